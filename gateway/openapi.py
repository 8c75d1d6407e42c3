"""The OpenAPI document: made from the same models that the operations validate with.

The endpoints take raw requests (bodies are parsed with limits that the framework's own parsing lacks), so what
they take is described here.
"""

from collections.abc import Sequence
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from gateway.operations.operation import Operation
from gateway.rest.routes import Route

TEMPLATE: Final = "#/components/schemas/{model}"

PROBLEM_SCHEMA: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["type", "title", "status", "code", "request_id"],
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "code": {"type": "string"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "errors": {"type": "array", "items": {"type": "object"}},
    },
}

_PROBLEM: Final = {"content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}}
_REFUSALS: Final = {
    400: "the request is not valid; `errors` says where",
    401: "no valid token",
    403: "the token's roles do not allow it",
    404: "no such thing, or not yours",
    409: "the present state forbids it, or the idempotency key stands for another request",
    413: "the body is too large",
    422: "the definition is valid, but cannot run here",
    429: "too many requests; see Retry-After",
    503: "a server that the engine needs does not answer; see Retry-After",
}


def describe(route: Route, operation: Operation) -> dict[str, Any]:
    """Arguments for FastAPI's `add_api_route`."""
    schema = operation.parameters.model_json_schema(ref_template=TEMPLATE)
    properties = schema.get("properties", {})
    in_path = [name for name in properties if f"{{{name}}}" in route.path]
    parameters = [_parameter("path", name, properties[name], required=True) for name in in_path]
    parameters += [_parameter("query", name, properties[name], required=False) for name in route.query]
    if "idempotency_key" in operation.positional:
        key = {"type": "string", "minLength": 1, "maxLength": 255, "pattern": r"^[\x21-\x7e]+$"}
        parameters.append(_parameter("header", "Idempotency-Key", key, required=False))
    extra: dict[str, Any] = {"parameters": parameters, "security": [{"bearer": []}]}
    if route.body != "none":
        extra["requestBody"] = {
            "required": route.body == "required",
            "content": {"application/json": {"schema": _body_schema(operation.parameters, schema, in_path)}},
        }
    responses: dict[int | str, dict[str, Any]] = {
        status: {"description": text, **_PROBLEM} for status, text in _REFUSALS.items()
    }
    if route.status != 204:
        responses[route.status.value] = {"model": operation.result, "description": route.summary}
    return {
        "summary": route.summary,
        "description": f"Operation `{operation.name}`; needs the permission `{operation.permission.value}`.",
        "tags": [route.path.split("/")[1]],
        "openapi_extra": extra,
        "responses": responses,
        "operation_id": operation.name.replace(".", "_"),
    }


def _parameter(place: str, name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    return {"in": place, "name": name, "required": required, "schema": _without_null(schema)}


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A query parameter is absent, never null."""
    kept = {key: value for key, value in schema.items() if not (key == "default" and value is None)}
    options = [option for option in kept.get("anyOf", ()) if option != {"type": "null"}]
    if len(options) == 1:
        del kept["anyOf"]
        kept |= options[0]
    return kept


def _body_schema(model: type[BaseModel], schema: dict[str, Any], in_path: list[str]) -> dict[str, Any]:
    if not in_path:
        return {"$ref": TEMPLATE.format(model=model.__name__)}
    body = {key: value for key, value in schema.items() if key != "$defs"}
    body["properties"] = {name: value for name, value in body["properties"].items() if name not in in_path}
    body["required"] = [name for name in body.get("required", ()) if name not in in_path]
    return body


def install_openapi(app: FastAPI, operations: Sequence[Operation]) -> None:
    """Replace FastAPI's document by one that also has the models of bodies, the scheme and the problem."""
    models = [operation.parameters for operation in operations]

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            made = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            components = made.setdefault("components", {})
            schemas = components.setdefault("schemas", {})
            for model in models:
                schema = model.model_json_schema(ref_template=TEMPLATE)
                for name, part in schema.pop("$defs", {}).items():
                    schemas.setdefault(name, part)
                schemas.setdefault(model.__name__, schema)
            schemas["Problem"] = PROBLEM_SCHEMA
            components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}}
            app.openapi_schema = made
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]  # the way FastAPI documents for extending it
