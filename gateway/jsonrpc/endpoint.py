"""`POST /api/v1/jsonrpc`."""

from http import HTTPStatus
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import EngineError, TooLargeError, UnauthenticatedError
from gateway.dependencies import GatewayDependencies
from gateway.http import identify, request_id
from gateway.json_body import MalformedBodyError, parse_json, read_body
from gateway.jsonrpc.methods import Methods, rpc_error
from gateway.jsonrpc.protocol import error_answer, parse_error_answer, respond
from gateway.operations.operation import Caller
from gateway.operations.table import METHODS

UNAUTHENTICATED_PARSE_BYTES_MAX: Final = 64 * 1024
"""Bodies of strangers are parsed only so that the error carries their request's id, and only small ones."""


def jsonrpc_routes(dependencies: GatewayDependencies) -> APIRouter:
    router = APIRouter(tags=["json-rpc"])

    async def endpoint(request: Request) -> Response:
        caller = await _caller(request, dependencies)
        if isinstance(caller, EngineError) and not isinstance(caller, UnauthenticatedError):
            return _answer(error_answer(None, rpc_error(caller, request_id(request))))
        try:
            body = await read_body(request, dependencies.settings.request_bytes_max)
        except TooLargeError as error:
            return _answer(
                error_answer(None, rpc_error(error, request_id(request))),
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            )
        except MalformedBodyError as error:
            return _answer(parse_error_answer(str(error)))
        if isinstance(caller, UnauthenticatedError) and len(body) > UNAUTHENTICATED_PARSE_BYTES_MAX:
            return _answer(error_answer(None, rpc_error(caller, request_id(request))))
        return await _dispatch(request, dependencies, caller, body)

    router.add_api_route(
        "/api/v1/jsonrpc",
        endpoint,
        methods=["POST"],
        summary="JSON-RPC 2.0: " + ", ".join(METHODS),
        response_class=Response,
        openapi_extra=_DESCRIPTION,
        responses={413: {"description": "the body exceeds the limit (error -32019)"}},
    )
    return router


async def _caller(request: Request, dependencies: GatewayDependencies) -> Caller | EngineError:
    try:
        return await identify(request, dependencies)
    except EngineError as error:
        return error


async def _dispatch(
    request: Request, dependencies: GatewayDependencies, caller: Caller | UnauthenticatedError, body: bytes
) -> Response:
    try:
        value = parse_json(body)
    except MalformedBodyError as error:
        if isinstance(caller, UnauthenticatedError):
            return _answer(error_answer(None, rpc_error(caller, request_id(request))))
        return _answer(parse_error_answer(str(error)))
    # One key cannot stand for several calls.
    key = None if isinstance(value, list) else request.headers.get("idempotency-key")
    methods = Methods(dependencies.operations, METHODS, caller, request_id(request), key)
    answer = await respond(value, methods, dependencies.settings.batch_requests_max)
    return Response(status_code=HTTPStatus.NO_CONTENT) if answer is None else _answer(answer)


def _answer(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body, status, media_type="application/json")


_DESCRIPTION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["jsonrpc", "method"],
                    "properties": {
                        "jsonrpc": {"const": "2.0"},
                        "method": {"type": "string", "enum": list(METHODS)},
                        "params": {"type": ["object", "array"]},
                        "id": {"type": ["string", "number", "null"]},
                    },
                },
                "example": {
                    "jsonrpc": "2.0",
                    "method": "workflow.status",
                    "params": {"execution_id": "6f1c8c6e-3a86-4b0e-9a51-2f0e3b6a1c11"},
                    "id": 1,
                },
            }
        },
    },
    "security": [{"bearer": []}],
}
