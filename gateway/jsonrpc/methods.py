"""The engine's operations as JSON-RPC methods."""

from collections.abc import Collection
from typing import Any

import orjson
import structlog

from engine.errors import EngineError, InvalidParametersError, UnauthenticatedError
from gateway.errors import INTERNAL, METHOD_NOT_FOUND, shown, wire_error
from gateway.jsonrpc.protocol import Call, RpcError
from gateway.operations.operation import Caller, Operations


class Methods:
    """Handles the calls of one HTTP request, on behalf of its caller or of nobody."""

    def __init__(
        self,
        operations: Operations,
        methods: Collection[str],
        caller: Caller | UnauthenticatedError,
        request_id: str,
        idempotency_key: str | None,
    ) -> None:
        self._operations = operations
        self._methods = methods
        self._caller = caller
        self._request_id = request_id
        self._idempotency_key = idempotency_key

    async def __call__(self, call: Call) -> Any:
        caller = self._caller
        if isinstance(caller, UnauthenticatedError):
            raise rpc_error(caller, self._request_id)
        if call.method not in self._methods:
            raise RpcError(METHOD_NOT_FOUND, "Method not found", {"method": call.method[:255]})
        try:
            result = await self._operations.perform(call.method, caller, self._named(call))
            return None if result is None else orjson.Fragment(result.model_dump_json())
        except EngineError as error:
            raise rpc_error(error, self._request_id) from error
        except Exception as error:
            # The end of this call: its neighbours in the batch must not suffer for it.
            structlog.get_logger("gateway.jsonrpc").exception(
                "call_failed", method=call.method, request_id=self._request_id
            )
            raise RpcError(INTERNAL.rpc_code, INTERNAL.title, {"request_id": self._request_id}) from error

    def _named(self, call: Call) -> dict[str, Any]:
        """Parameters by name, whichever way they were sent; the header's idempotency key where it applies."""
        names = self._operations[call.method].positional
        if isinstance(call.params, list):
            if len(call.params) > len(names):
                raise InvalidParametersError(f"at most {len(names)} parameters", parameters=list(names))
            params = dict(zip(names, call.params, strict=False))
        else:
            params = dict(call.params or {})
        if self._idempotency_key is not None and "idempotency_key" in names:
            params.setdefault("idempotency_key", self._idempotency_key)
        return params


def rpc_error(error: EngineError, request_id: str) -> RpcError:
    wire = wire_error(error)
    if wire is INTERNAL:
        structlog.get_logger("gateway.jsonrpc").error("internal_error", request_id=request_id, error=repr(error))
        return RpcError(INTERNAL.rpc_code, INTERNAL.title, {"request_id": request_id})
    message, data = shown(error)
    return RpcError(wire.rpc_code, f"{wire.title}: {message}", {**data, "code": error.code, "request_id": request_id})
