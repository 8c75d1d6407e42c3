"""A client of the engine's interfaces, with nothing of the engine in it."""

import itertools
import json
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import httpx
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

REQUEST_SECONDS = 120.0
DEADLINE_SECONDS = 180.0
CLOSED = {"completed", "failed", "cancelled"}


class Refused(Exception):
    """A JSON-RPC error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(json.dumps(error))
        self.code = error["code"]
        self.error = error


class Caller:
    """Somebody with a token."""

    def __init__(self, url: str, token: str, tenant: str) -> None:
        self.url = url
        self.token = token
        self.tenant = tenant
        self.http = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=REQUEST_SECONDS
        )  # fmt: skip
        self._ids = itertools.count(1)

    def close(self) -> None:
        self.http.close()

    def rpc(self, method: str, /, **params: Any) -> Any:
        """The result of one call over JSON-RPC. Raises Refused."""
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        answer = self.http.post("/api/v1/jsonrpc", json=request).json()
        assert answer["id"] == request["id"]
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["result"]

    def rest(self, verb: str, path: str, **arguments: Any) -> httpx.Response:
        return self.http.request(verb, f"/api/v1{path}", **arguments)

    def create(
        self,
        *tasks: dict[str, Any],
        agents: int = 2,
        agent_type: str = "synthetic",
        types: Mapping[str, str] | None = None,
        **fields: Any,
    ) -> str:
        """A definition with one role, `worker`, or with those that `types` has; its id."""
        roles = types or {"worker": agent_type}
        definition = {
            "name": f"wf-{uuid.uuid4().hex[:12]}",
            "version": "1.0",
            "orchestration_pattern": "supervisor",
            "agents": {role: {"type": roles[role], "count": agents} for role in sorted(roles)},
            "tasks": [{"agent": "worker", **task} for task in tasks],
            "coordination": {"type": "hybrid"},
            **fields,
        }
        workflow_id: str = self.rpc("workflow.create", **definition)["workflow_id"]
        return workflow_id

    def execute(self, workflow_id: str, **options: Any) -> str:
        started = self.rpc("workflow.execute", workflow_id=workflow_id, input_data={}, execution_options=options)
        execution_id: str = started["execution_id"]
        return execution_id

    def status(self, execution_id: str) -> dict[str, Any]:
        answer: dict[str, Any] = self.rpc("workflow.status", execution_id=execution_id)
        return answer

    def events(self, execution_id: str) -> list[dict[str, Any]]:
        """The whole audit log, page by page."""
        found: list[dict[str, Any]] = []
        query: dict[str, Any] = {"limit": 1000}
        while True:
            response = self.rest("GET", f"/executions/{execution_id}/events", params=query)
            assert response.status_code == 200, response.text
            page = response.json()
            found += page["items"]
            if page["next_page_token"] is None:
                return found
            query["page_token"] = page["next_page_token"]

    def checkpoints(self, execution_id: str) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = self.rest("GET", f"/executions/{execution_id}/checkpoints").json()["items"]
        return items

    def until_status(
        self, execution_id: str, *wanted: str, deadline_seconds: float = DEADLINE_SECONDS
    ) -> dict[str, Any]:
        """The status once it is one of those; an outage of the gateway in between is sat out."""
        deadline = time.monotonic() + deadline_seconds
        last: Any = None
        while time.monotonic() < deadline:
            try:
                last = self.status(execution_id)
            except (httpx.TransportError, Refused) as error:
                if isinstance(error, Refused) and error.code != -32603:
                    raise
                last = error
            else:
                if last["status"] in wanted:
                    return dict(last)
                assert last["status"] not in CLOSED, f"{last['status']} instead of {wanted}: {last['error_details']}"
            time.sleep(0.03)
        raise AssertionError(f"not {' or '.join(wanted)} within {deadline_seconds:g} s: {last}")

    def until_completed(self, execution_id: str, deadline_seconds: float = DEADLINE_SECONDS) -> dict[str, Any]:
        return self.until_status(execution_id, "completed", deadline_seconds=deadline_seconds)

    def until_event(
        self, execution_id: str, event_type: str, deadline_seconds: float = DEADLINE_SECONDS, **payload: Any
    ) -> dict[str, Any]:
        """The first such fact in the audit log, once it is there."""
        deadline = time.monotonic() + deadline_seconds
        while time.monotonic() < deadline:
            for event in self.events(execution_id):
                if event["event_type"] == event_type and payload.items() <= event["payload"].items():
                    return event
            time.sleep(0.03)
        raise AssertionError(f"no {event_type} {payload} within {deadline_seconds:g} s")

    @contextmanager
    def watching(self, execution_id: str) -> Iterator["Watcher"]:
        """A WebSocket, read until the engine closes it."""
        address = f"{self.url.replace('http', 'ws', 1)}/ws/workflows/{execution_id}"
        headers = {"Authorization": f"Bearer {self.token}"}
        with connect(address, additional_headers=headers, open_timeout=60, close_timeout=30) as connection:
            yield Watcher(connection)


class Watcher:
    """Collects messages beside the test."""

    def __init__(self, connection: ClientConnection) -> None:
        self.messages: list[dict[str, Any]] = []
        self.close_code: int | None = None
        self._connection = connection
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def until_closed(self, timeout_seconds: float = DEADLINE_SECONDS) -> list[dict[str, Any]]:
        self._thread.join(timeout_seconds)
        assert not self._thread.is_alive(), f"the engine has not closed the WebSocket after {timeout_seconds:g} s"
        return self.messages

    def _read(self) -> None:
        try:
            while True:
                self.messages.append(json.loads(self._connection.recv()))
        except ConnectionClosed as closed:
            self.close_code = closed.rcvd.code if closed.rcvd else None
