"""How errors look on the wire: one table for JSON-RPC and HTTP.

Whatever is not in the table is internal: it is logged in full and answered with nothing but the request's id.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from engine.errors import EngineError

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
TOO_LARGE: Final = -32019


@dataclass(frozen=True, slots=True)
class WireError:
    rpc_code: int
    status: HTTPStatus
    title: str


INTERNAL: Final = WireError(INTERNAL_ERROR, HTTPStatus.INTERNAL_SERVER_ERROR, "Internal error")

WIRE_ERRORS: Final[dict[str, WireError]] = {
    "UNSUPPORTED_PATTERN": WireError(-32000, HTTPStatus.UNPROCESSABLE_ENTITY, "Unsupported orchestration pattern"),
    "CAPABILITIES_UNAVAILABLE": WireError(-32001, HTTPStatus.UNPROCESSABLE_ENTITY, "Agent capabilities not available"),
    "RESOURCES_UNSATISFIABLE": WireError(
        -32002, HTTPStatus.UNPROCESSABLE_ENTITY, "Resource constraints not satisfiable"
    ),
    "NOT_FOUND": WireError(-32003, HTTPStatus.NOT_FOUND, "Not found"),
    "ALREADY_EXECUTING": WireError(-32004, HTTPStatus.CONFLICT, "Workflow already executing"),
    "RESOURCE_ALLOCATION_FAILED": WireError(-32005, HTTPStatus.CONFLICT, "Resource allocation failed"),
    "AGENT_ALLOCATION_TIMEOUT": WireError(-32006, HTTPStatus.SERVICE_UNAVAILABLE, "Agent allocation timeout"),
    "INVALID_TRANSITION": WireError(-32007, HTTPStatus.CONFLICT, "Not possible in the current state"),
    "CHECKPOINT_NOT_FOUND": WireError(-32008, HTTPStatus.NOT_FOUND, "Checkpoint not found"),
    "INVALID_DEFINITION": WireError(INVALID_PARAMS, HTTPStatus.BAD_REQUEST, "Invalid workflow definition"),
    "INVALID_PARAMETERS": WireError(INVALID_PARAMS, HTTPStatus.BAD_REQUEST, "Invalid params"),
    "PATTERN_NAME_CONFLICT": WireError(-32009, HTTPStatus.CONFLICT, "Pattern name conflict"),
    "INVALID_COORDINATION_LOGIC": WireError(-32010, HTTPStatus.BAD_REQUEST, "Invalid coordination logic"),
    "HOOK_NAME_CONFLICT": WireError(-32011, HTTPStatus.CONFLICT, "Hook name conflict"),
    "INVALID_HOOK_TRIGGER": WireError(-32012, HTTPStatus.BAD_REQUEST, "Invalid trigger type"),
    "INVALID_HOOK_ACTION": WireError(-32013, HTTPStatus.BAD_REQUEST, "Invalid action"),
    "HOOK_NOT_FOUND": WireError(-32014, HTTPStatus.NOT_FOUND, "Hook not found"),
    "HOOK_EXECUTION_FAILED": WireError(-32015, HTTPStatus.SERVICE_UNAVAILABLE, "Hook execution failed"),
    "UNAUTHENTICATED": WireError(-32016, HTTPStatus.UNAUTHORIZED, "Unauthenticated"),
    "FORBIDDEN": WireError(-32017, HTTPStatus.FORBIDDEN, "Forbidden"),
    "IDEMPOTENCY_KEY_REUSED": WireError(-32018, HTTPStatus.CONFLICT, "Idempotency key reused with another body"),
    "TOO_LARGE": WireError(TOO_LARGE, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "Request too large"),
    "TOO_MANY_REQUESTS": WireError(-32020, HTTPStatus.TOO_MANY_REQUESTS, "Too many requests"),
    "UNAVAILABLE": WireError(INTERNAL_ERROR, HTTPStatus.SERVICE_UNAVAILABLE, "Temporarily unavailable"),
}


def wire_error(error: EngineError) -> WireError:
    return WIRE_ERRORS.get(error.code, INTERNAL)


def shown(error: EngineError) -> tuple[str, dict[str, Any]]:
    """The message and the data that a caller may see: nothing of errors that are the engine's own affair."""
    if error.code not in WIRE_ERRORS:
        return INTERNAL.title, {}
    if error.code == "NOT_FOUND":
        # One text for all: what is another tenant's must read like what never was.
        return "no such thing, or not yours", {}
    return error.message, error.data
