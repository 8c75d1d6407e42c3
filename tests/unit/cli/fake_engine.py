"""An engine as the command sees it: HTTP and WebSocket on a real port, answers given by the test."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

TOKEN = "a-token"
EXECUTION_ID = "5b0d9c1e-2f6a-4a3f-9d1b-3a5e6f708192"
WORKFLOW_ID = "0d9c1e5b-2f6a-4a3f-9d1b-3a5e6f708192"


class Refusal(Exception):
    """A JSON-RPC error that a method answers."""

    def __init__(self, code: int, message: str, **data: Any) -> None:
        super().__init__(message)
        self.error = {"code": code, "message": message, "data": data}


class FakeEngine:
    """`methods` answer JSON-RPC, `pages` answer REST listings, `messages` go to whoever opens the WebSocket."""

    def __init__(self) -> None:
        self.url = ""
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.methods: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "workflow.status": lambda _: self.next_status()
        }
        self.statuses: list[dict[str, Any]] = []
        self.pages: dict[str, list[dict[str, Any]]] = {}
        self.documents: dict[str, dict[str, Any]] = {}
        """REST answers that are no listings, by path."""
        self.messages: list[dict[str, Any]] = []
        self.sockets_opened = 0

    def next_status(self) -> dict[str, Any]:
        """The statuses in turn; the last one stays."""
        return self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]

    def application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/api/v1/jsonrpc", self._rpc, methods=["POST"]),
                Route("/health", self._ok),
                Route("/ready", self._ok),
                Route("/api/v1/{path:path}", self._page),
                WebSocketRoute("/ws/workflows/{execution_id}", self._socket),
            ]
        )

    async def _ok(self, _: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def _rpc(self, request: Request) -> Response:
        document = await request.json()
        answer: dict[str, Any] = {"jsonrpc": "2.0", "id": document["id"]}
        if request.headers.get("authorization") != f"Bearer {TOKEN}":
            answer["error"] = {"code": -32016, "message": "the token is not valid"}
            return JSONResponse(answer)
        self.calls.append((document["method"], document["params"]))
        try:
            answer["result"] = self.methods[document["method"]](document["params"])
        except Refusal as refusal:
            answer["error"] = refusal.error
        return JSONResponse(answer)

    async def _page(self, request: Request) -> Response:
        if request.url.path in self.documents:
            return JSONResponse(self.documents[request.url.path])
        pages = self.pages.get(request.url.path)
        if pages is None:
            problem = {"type": "about:blank", "title": "Not Found", "status": 404, "detail": "there is no such thing"}
            return JSONResponse(problem, 404, media_type="application/problem+json")
        number = int(request.query_params.get("page_token", "0"))
        following = str(number + 1) if number + 1 < len(pages) else None
        return JSONResponse({"items": pages[number]["items"], "next_page_token": following})

    async def _socket(self, socket_: WebSocket) -> None:
        self.sockets_opened += 1
        await socket_.accept()
        for message in self.messages:
            await socket_.send_json(message)
        # Stays open until the other side has seen enough.
        await socket_.receive()


@contextmanager
def serving(engine: FakeEngine) -> Iterator[FakeEngine]:
    listener = socket.create_server(("127.0.0.1", 0))
    engine.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        engine.application(), log_level="error", lifespan="off", ws="websockets-sansio", timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield engine
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def status_of(status: str, **states: str) -> dict[str, Any]:
    """An answer of `workflow.status`."""
    return {
        "workflow_id": WORKFLOW_ID,
        "execution_id": EXECUTION_ID,
        "status": status,
        "current_phase": None,
        "agents": [],
        "task_states": states,
        "task_counts": {},
        "performance_metrics": {
            "total_runtime_seconds": 3,
            "agents_allocated": 1,
            "tasks_completed": sum(state == "completed" for state in states.values()),
            "tasks_failed": sum(state == "failed" for state in states.values()),
            "coordination_overhead": 12.5,
        },
        "error_details": None,
        "epoch": 1,
        "latest_checkpoint_id": None,
        "trace_id": EXECUTION_ID,
        "started_at": "2026-01-01T00:00:00Z",
        "completed_at": None,
    }
