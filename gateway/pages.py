"""The pages: the console at `/` and the API documentation at `/docs`, both without anything from elsewhere."""

from importlib.resources import files
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from gateway.dependencies import GatewayDependencies

_STATIC: Final = Path(__file__).parent / "static"
_HTML: Final = "text/html; charset=utf-8"
_JS: Final = "text/javascript; charset=utf-8"
_CSS: Final = "text/css; charset=utf-8"
_CACHED: Final = {"Cache-Control": "public, max-age=3600"}

DOCS_POLICY: Final = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'"
"""Swagger UI sets styles on elements and has its images inline; scripts stay as strict as elsewhere."""


def page_routes(dependencies: GatewayDependencies) -> APIRouter:
    """The files are read once, here: there is nothing on disk for a path to wander to."""
    router = APIRouter(include_in_schema=False)
    swagger = files("fastapi_swagger") / "resources"
    ui_url = dependencies.settings.temporal_ui_url
    console = (_STATIC / "console.html").read_bytes()

    @router.get("/")
    async def index() -> Response:
        return Response(console, media_type=_HTML)

    @router.get("/console/settings.json")
    async def settings() -> JSONResponse:
        return JSONResponse({"temporal_ui_url": ui_url})

    docs = (_STATIC / "docs.html").read_bytes()

    @router.get("/docs")
    async def documentation() -> Response:
        return Response(docs, media_type=_HTML, headers={"Content-Security-Policy": DOCS_POLICY})

    for path, content, media_type in (
        ("/console/console.js", (_STATIC / "console.js").read_bytes(), _JS),
        ("/console/console.css", (_STATIC / "console.css").read_bytes(), _CSS),
        ("/docs/docs.js", (_STATIC / "docs.js").read_bytes(), _JS),
        ("/docs/swagger-ui-bundle.js", (swagger / "swagger-ui-bundle.js").read_bytes(), _JS),
        ("/docs/swagger-ui.css", (swagger / "swagger-ui.css").read_bytes(), _CSS),
        ("/favicon.ico", (swagger / "favicon-32x32.png").read_bytes(), "image/png"),
    ):
        _serve(router, path, content, media_type)
    return router


def _serve(router: APIRouter, path: str, content: bytes, media_type: str) -> None:
    @router.get(path)
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=_CACHED)
