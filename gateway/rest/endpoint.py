"""REST under `/api/v1`: requests to parameters, results to answers, errors to problem documents."""

import re
from typing import Any, Final

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from engine.errors import InvalidParametersError
from gateway.dependencies import GatewayDependencies
from gateway.http import identify, request_id
from gateway.json_body import MalformedBodyError, parse_json, read_body
from gateway.openapi import describe
from gateway.rest.routes import ROUTES, Route

PREFIX: Final = "/api/v1"

_WHOLE_NUMBER: Final = re.compile(r"-?[0-9]{1,9}\Z", re.ASCII)


def rest_routes(dependencies: GatewayDependencies) -> APIRouter:
    router = APIRouter(prefix=PREFIX)
    for route in ROUTES:
        operation = dependencies.operations[route.operation]
        router.add_api_route(
            route.path,
            _endpoint(dependencies, route),
            methods=[route.method],
            name=route.operation,
            status_code=route.status,
            response_class=Response,
            **describe(route, operation),
        )
    return router


def _endpoint(dependencies: GatewayDependencies, route: Route) -> Any:
    takes_key = "idempotency_key" in dependencies.operations[route.operation].positional

    async def endpoint(request: Request) -> Response:
        caller = await identify(request, dependencies)
        given = await _parameters(request, route, dependencies.settings.request_bytes_max)
        if takes_key:
            _add_key(given, request)
        result = await dependencies.operations.perform(route.operation, caller, given)
        headers = {"X-Request-ID": request_id(request)}
        if route.location is not None:
            headers["Location"] = route.location.format_map(vars(result))
        if result is None or route.status == 204:
            return Response(status_code=route.status, headers=headers)
        return Response(result.model_dump_json(), route.status, headers, media_type="application/json")

    return endpoint


async def _parameters(request: Request, route: Route, bytes_max: int) -> dict[str, Any]:
    """What path, query and body say, each name once."""
    given = _query(request, route)
    if route.body != "none":
        body = await read_body(request, bytes_max)
        if body or route.body == "required":
            given |= _object(body)
    for name, value in request.path_params.items():
        if name in given:
            raise _invalid(name, "stands in the path already")
        given[name] = value
    return given


def _query(request: Request, route: Route) -> dict[str, Any]:
    given: dict[str, Any] = {}
    errors = []
    for name, value in request.query_params.multi_items():
        shown = name[:100] if name.isprintable() else ascii(name)[:100]
        if name not in route.query:
            allowed = ", ".join(route.query) or "none"
            errors.append(_error("UNKNOWN_PARAMETER", shown, f"is not a query parameter here; allowed: {allowed}"))
        elif name in given:
            errors.append(_error("REPEATED_PARAMETER", shown, "stands more than once"))
        else:
            given[name] = int(value) if name == "limit" and _WHOLE_NUMBER.match(value) else value
    if errors:
        raise InvalidParametersError("the query is not valid", errors=errors[:100])
    return given


def _object(body: bytes) -> dict[str, Any]:
    try:
        value = parse_json(body)
    except MalformedBodyError as error:
        raise InvalidParametersError(str(error), errors=[_error("MALFORMED_BODY", "", str(error))]) from error
    if not isinstance(value, dict):
        raise InvalidParametersError("the body must be a JSON object")
    return value


def _add_key(given: dict[str, Any], request: Request) -> None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return
    if given.get("idempotency_key", key) != key:
        raise _invalid("idempotency_key", "differs from the Idempotency-Key header")
    given["idempotency_key"] = key


def _invalid(location: str, message: str) -> InvalidParametersError:
    return InvalidParametersError(f"{location} {message}", errors=[_error("INVALID", location, message)])


def _error(code: str, location: str, message: str) -> dict[str, str]:
    return {"code": code, "location": location, "message": message}
