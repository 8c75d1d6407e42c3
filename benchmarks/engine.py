"""The engine under test: started as people start it, called as clients call it."""

import http.client
import itertools
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from benchmarks.processes import ProcessTree
from benchmarks.results import NANOSECONDS_PER_MS

STOP_TIMEOUT_SECONDS: Final = 60.0
REQUEST_TIMEOUT_SECONDS: Final = 60.0
RUN_TIMEOUT_SECONDS: Final = 120.0
IDLE_SECONDS_MAX: Final = 2.0
PAGE_SIZE: Final = 1_000
MANY_POLL_SECONDS: Final = 0.5
CLOSED: Final = frozenset({"completed", "failed", "cancelled"})


class BrokenError(Exception):
    """Something did not do what it is there for: the figures would mean nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    result: dict[str, Any]
    latency_ms: float
    """From the first byte of the request to the last of the answer; encoding and decoding are not in it."""


class Api:
    """One client with one connection that stays open. Plain `http.client`: a client that is slow measures itself."""

    def __init__(self, url: str, token: str) -> None:
        address = urlsplit(url)
        assert address.hostname is not None
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=REQUEST_TIMEOUT_SECONDS)
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._ids = itertools.count(1)
        self._used = time.monotonic()

    def close(self) -> None:
        self._connection.close()

    def call(self, method: str, params: dict[str, Any]) -> Answer:
        request = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        body = json.dumps(request).encode()
        self._renew()
        began = time.perf_counter_ns()
        self._connection.request("POST", "/api/v1/jsonrpc", body, self._headers)
        answer = self._connection.getresponse().read()
        latency_ms = (time.perf_counter_ns() - began) / NANOSECONDS_PER_MS
        document = json.loads(answer)
        if "result" not in document:
            raise BrokenError(f"{method}: {document.get('error')}")
        return Answer(document["result"], latency_ms)

    def _renew(self) -> None:
        """The gateway closes a connection that was idle for a while, as servers do."""
        now = time.monotonic()
        if now - self._used > IDLE_SECONDS_MAX:
            self._connection.close()
            self._connection.connect()
        self._used = now

    def get(self, path: str) -> dict[str, Any]:
        self._renew()
        self._connection.request("GET", path, headers=self._headers)
        response = self._connection.getresponse()
        document: dict[str, Any] = json.loads(response.read())
        if response.status != http.client.OK:
            raise BrokenError(f"{path}: {document}")
        return document

    def events(self, execution_id: str) -> list[dict[str, Any]]:
        """The whole audit log of an execution."""
        found: list[dict[str, Any]] = []
        token = ""
        while True:
            page = self.get(f"/api/v1/executions/{execution_id}/events?limit={PAGE_SIZE}{token}")
            found += page["items"]
            if page["next_page_token"] is None:
                return found
            token = f"&page_token={page['next_page_token']}"

    def create(self, definition: dict[str, Any]) -> Answer:
        return self.call("workflow.create", definition)

    def execute(self, workflow_id: str, **options: Any) -> Answer:
        params = {"workflow_id": workflow_id, "input_data": {}, "execution_options": options}
        return self.call("workflow.execute", params)

    def executions(self, workflow_id: str, limit: int = PAGE_SIZE) -> list[dict[str, Any]]:
        """Its latest executions, in brief."""
        items: list[dict[str, Any]] = self.get(f"/api/v1/executions?workflow_id={workflow_id}&limit={limit}")["items"]
        return items

    def status(self, execution_id: str) -> Answer:
        return self.call("workflow.status", {"execution_id": execution_id})

    def all_completed(self, workflow_id: str, count: int, timeout_seconds: float) -> list[dict[str, Any]]:
        """Wait for the end of its `count` executions, up to a page of them."""
        deadline = time.monotonic() + timeout_seconds
        done = 0
        while time.monotonic() < deadline:
            time.sleep(MANY_POLL_SECONDS)
            items = self.executions(workflow_id)
            ended_otherwise = {item["status"] for item in items} & (CLOSED - {"completed"})
            if ended_otherwise:
                raise BrokenError(f"executions ended as {', '.join(sorted(ended_otherwise))}")
            done = sum(item["status"] == "completed" for item in items)
            if done == count:
                return items
        raise BrokenError(f"{done} of {count} executions completed within {timeout_seconds:g} s")

    def ended(self, workflow_id: str, execution_id: str, poll_seconds: float) -> dict[str, Any]:
        """Wait for the end of a workflow's latest execution, in brief: its tasks are not asked for, which in large
        runs would be work for the engine."""
        deadline = time.monotonic() + RUN_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(poll_seconds)
            [item] = self.executions(workflow_id, limit=1)
            if item["execution_id"] != execution_id:
                raise BrokenError("somebody else uses the engine")
            if item["status"] in CLOSED:
                if item["status"] != "completed":
                    raise BrokenError(f"an execution ended as {item['status']}")
                return item
        raise BrokenError(f"an execution did not end within {RUN_TIMEOUT_SECONDS:g} s")

    def completed(self, execution_id: str, poll_seconds: float) -> dict[str, Any]:
        """Wait for the end. What is timed is taken from recorded times, so the polling's grain does not matter."""
        deadline = time.monotonic() + RUN_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            time.sleep(poll_seconds)
            view = self.status(execution_id).result
            if view["status"] in CLOSED:
                if view["status"] != "completed":
                    raise BrokenError(f"an execution ended as {view['status']}: {view['error_details']}")
                return view
        raise BrokenError(f"an execution did not end within {RUN_TIMEOUT_SECONDS:g} s")


@dataclass(frozen=True, slots=True)
class RunningEngine:
    api: Api
    url: str
    token: str
    temporal_address: str
    temporal_namespace: str
    redis_url: str
    processes: ProcessTree

    def another_client(self) -> Api:
        """With a connection of its own."""
        return Api(self.url, self.token)


@contextmanager
def running_engine() -> Iterator[RunningEngine]:
    """An engine of its own with fresh data, stopped and removed afterwards."""
    # PostgreSQL runs as another user when we are root, and must be able to pass through.
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-bench-"))
    directory.chmod(0o711)
    command = [str(Path(sys.executable).with_name("orchestrator")), "up", "--data-dir", str(directory / "data")]
    process = subprocess.Popen([*command, "--port", "0", "--json"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        announced = json.loads(line) if line else {}
        if "url" not in announced:
            raise BrokenError(f"the engine did not start: exit code {process.wait(STOP_TIMEOUT_SECONDS)}; {line}")
        api = Api(announced["url"], announced["token"])
        try:
            yield RunningEngine(
                api,
                announced["url"],
                announced["token"],
                announced["temporal_address"],
                announced["temporal_namespace"],
                announced["redis_url"],
                ProcessTree(process.pid),
            )
        finally:
            api.close()
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        finally:
            process.kill()  # nothing, once it has ended
            process.stdout.close()
            shutil.rmtree(directory, ignore_errors=True)


def moment(text: str) -> float:
    """An answer's time as seconds since the epoch."""
    return datetime.fromisoformat(text).timestamp()
