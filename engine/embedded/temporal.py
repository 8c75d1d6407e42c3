"""The embedded Temporal server with its UI, on a SQLite file.

It is asked and configured through its HTTP interface and its own command, not through the Python SDK: the supervisor
stays small and starts faster without it. The program comes with a package; nothing here downloads one.
"""

import asyncio
import json
from collections.abc import Mapping
from http import HTTPStatus
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from engine.embedded import binaries
from engine.embedded.addresses import LOOPBACK
from engine.embedded.loopback_http import exchange
from engine.embedded.process import PROBE_TIMEOUT_SECONDS, ChildProcess
from engine.embedded.server import EmbeddedServer
from engine.errors import UnavailableError

RETENTION_SECONDS: Final = 7 * 24 * 3600
COMMAND_TIMEOUT_SECONDS: Final = 60.0
REQUEST_TIMEOUT_SECONDS: Final = 15.0
REQUEST_ATTEMPTS: Final = 4
REQUEST_PAUSE_SECONDS: Final = 0.5
SEARCH_ATTRIBUTES: Final[Mapping[str, str]] = MappingProxyType(
    {"OrchestratorTenant": "Keyword", "OrchestratorPattern": "Keyword", "OrchestratorWorkflow": "Keyword"}
)
DYNAMIC_CONFIGURATION: Final[Mapping[str, object]] = MappingProxyType(
    {
        # The defaults (20 a second for the one shard) cost each step of a chain about 40 ms of waiting.
        "history.transferProcessorMaxPollRPS": 200,
        "history.timerProcessorMaxPollRPS": 200,
        # With the default, timers below a second fire a second late.
        "history.timerProcessorMaxTimeShift": "10ms",
        # Signals that arrive during a workflow task; above it the task is failed by force.
        "history.maximumBufferedEventsBatch": 1000,
        "matching.enableFairness": True,
    }
)
SQLITE_PRAGMAS: Final = ("journal_mode=wal", "synchronous=normal")


class TemporalServer(EmbeddedServer):
    name = "temporal"

    def __init__(
        self,
        directory: Path,
        port: int = 0,
        *,
        ui_port: int = 0,
        namespace: str = "default",
        retention_seconds: int = RETENTION_SECONDS,
    ) -> None:
        super().__init__(directory, (port, ui_port, 0, 0))
        self.namespace = namespace
        self._retention_seconds = retention_seconds
        self.ui_codec_endpoint: str | None = None
        """Where the UI has payloads decoded; from the next start on."""

    @property
    def address(self) -> str:
        return f"{LOOPBACK}:{self.port}"

    @property
    def url(self) -> str:
        return self.address

    @property
    def ui_url(self) -> str:
        return f"http://{LOOPBACK}:{self._ports[1]}"

    async def _prepare(self, descriptor: int) -> None:  # noqa: ARG002 - nothing is started here
        """The server makes its file itself. One that was killed over that left a file that no server starts from; it
        was never ready, so that nothing is lost with it."""
        if not self._made.exists():
            for leftover in self.directory.glob("temporal.db*"):
                leftover.unlink()

    def _new_process(self, ports: tuple[int, ...], descriptor: int) -> ChildProcess:
        grpc, ui, http_api, metrics = (str(port) for port in ports)
        arguments: list[str | Path] = [binaries.temporal_program(), "server", "start-dev", "--ip", LOOPBACK]
        arguments += ["--port", grpc, "--ui-port", ui, "--http-port", http_api, "--metrics-port", metrics]
        arguments += ["--db-filename", self.directory / "temporal.db", "--namespace", self.namespace]
        arguments += ["--log-level", "warn", "--ui-disable-news-fetch"]
        if self.ui_codec_endpoint is not None:
            arguments += ["--ui-codec-endpoint", self.ui_codec_endpoint]
        for pragma in SQLITE_PRAGMAS:
            arguments += ["--sqlite-pragma", pragma]
        for key, value in DYNAMIC_CONFIGURATION.items():
            arguments += ["--dynamic-config-value", f"{key}={json.dumps(value)}"]
        for name, kind in SEARCH_ATTRIBUTES.items():
            arguments += ["--search-attribute", f"{name}={kind}"]
        return ChildProcess(
            self.name,
            arguments,
            directory=self.directory,
            log_file=self.log_file,
            environment=self._environment(),
            kept_open=(descriptor,),
        )

    async def _probe(self, ports: tuple[int, ...]) -> bool:
        status, _ = await self._request(ports[2], "GET", "")
        return status == HTTPStatus.OK

    @property
    def _made(self) -> Path:
        """There since the server was first ready."""
        return self.directory / "made"

    async def _configure(self) -> None:
        """Flags act only when a namespace is made: an older one gets its retention and attributes here."""
        self._made.touch()
        configuration = (await self._asked("GET", "", None, "the namespace's description")).get("config", {})
        retention = f"{self._retention_seconds}s"
        if configuration.get("workflowExecutionRetentionTtl") != retention:
            body = {"config": {"workflowExecutionRetentionTtl": retention}}
            await self._asked("POST", "/update", body, "the namespace's retention")
        known = set(configuration.get("customSearchAttributeAliases", {}).values())
        missing = [name for name in SEARCH_ATTRIBUTES if name not in known]
        if missing:
            await self._add_search_attributes(missing)

    async def _asked(self, method: str, path: str, body: dict[str, Any] | None, what: str) -> dict[str, Any]:
        """Some times: on a busy machine the server's first answers may take longer than anybody waits."""
        answer: object = None
        for attempt in range(REQUEST_ATTEMPTS):
            if attempt:
                await asyncio.sleep(REQUEST_PAUSE_SECONDS)
            try:
                status, document = await self._request(self._ports[2], method, path, body, REQUEST_TIMEOUT_SECONDS)
            except OSError as error:
                answer = repr(error)
                continue
            if status == HTTPStatus.OK:
                return document
            answer = document
        raise UnavailableError(f"Temporal refused {what}: {answer}")

    async def _add_search_attributes(self, names: list[str]) -> None:
        arguments: list[str | Path] = [binaries.temporal_program(), "operator", "search-attribute", "create"]
        arguments += ["--address", self.address, "--namespace", self.namespace]
        for name in names:
            arguments += ["--name", name, "--type", SEARCH_ATTRIBUTES[name]]
        command = ChildProcess(
            "temporal operator",
            arguments,
            directory=self.directory,
            log_file=self.directory / "operator.log",
            environment=self._environment(),
        )
        await command.start()
        try:
            code = await asyncio.wait_for(command.wait(), COMMAND_TIMEOUT_SECONDS)
        except TimeoutError as error:
            raise UnavailableError("Temporal did not add the search attributes in time") from error
        finally:
            await command.stop(timeout_seconds=0)
        if code != 0:
            raise UnavailableError(f"Temporal refused the search attributes: {command.log_tail()}")

    async def _request(
        self,
        port: int,
        method: str,
        path: str,
        body: dict[str, Any] | None = None,
        timeout_seconds: float = PROBE_TIMEOUT_SECONDS,
    ) -> tuple[int, dict[str, Any]]:
        url = f"/api/v1/namespaces/{self.namespace}{path}"
        return await exchange(LOOPBACK, port, method, url, body, timeout_seconds)
