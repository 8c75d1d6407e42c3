"""`orchestrator up`: the servers and the engine's roles on this machine, supervised by this process.

It keeps running until SIGTERM or Ctrl-C and then stops everything in order; killed, it takes all of them with it.
"""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

from cli.configuration import load_settings
from cli.connection import ENGINE_FILE
from cli.options import DATA_DIR_DEFAULT, AllocatorOption, DataDirOption, JsonOption
from cli.outcome import ExitCode
from engine.embedded.addresses import LOOPBACK, HeldPort, hold_free_port, hold_port, says_port_taken
from engine.embedded.engine import EmbeddedEngine, ServerPorts, StepDone
from engine.embedded.roles import Role, RoleSpec, command_role, http_ready, stop_roles, wait_for_roles
from engine.embedded.server import write_secret
from engine.errors import ConfigurationError, UnavailableError
from engine.security.tokens import TokenIssuer

PORT_DEFAULT: Final = 8002
READY_TIMEOUT_SECONDS: Final = 180.0
PORT_ATTEMPTS: Final = 4
MAY_PASS: Final = frozenset({int(ExitCode.UNAVAILABLE)})
BOOTSTRAP_TENANT: Final = "default"
BOOTSTRAP_ROLE: Final = "admin"
WILDCARDS: Final = ("0.0.0.0", "::", "")  # noqa: S104 - recognised, not bound
INTERRUPTED: Final = 130
WORKERS_MAX: Final = 8
"""Each has its connections to PostgreSQL, and a share of the event streams' partitions."""


@dataclass(frozen=True, slots=True)
class UpOptions:
    data_dir: Path = DATA_DIR_DEFAULT
    port: int = PORT_DEFAULT
    host: str = LOOPBACK
    catalogue: Path | None = None
    as_json: bool = False
    server_ports: ServerPorts = field(default_factory=ServerPorts)
    workers: int = 1
    allocator: str | None = None


app = typer.Typer(add_completion=False)


@app.command("up")
def up_command(
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The gateway's port; 0 takes a free one.")] = PORT_DEFAULT,
    host: Annotated[str, typer.Option(envvar="ORCHESTRATOR_HOST", help="The gateway's address.")] = LOOPBACK,
    catalogue: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="The operator's catalogue of agent types.")
    ] = None,
    postgres_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    redis_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    temporal_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    temporal_ui_port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    workers: Annotated[
        int, typer.Option(min=1, max=WORKERS_MAX, help="Worker processes, which share the executions.")
    ] = 1,
    allocator: AllocatorOption = None,
    as_json: JsonOption = False,
) -> None:
    """Start the engine with its servers on this machine and keep it running."""
    ports = ServerPorts(postgres_port, redis_port, temporal_port, temporal_ui_port)
    options = UpOptions(data_dir, port, host, catalogue, as_json, ports, workers, allocator)
    raise typer.Exit(asyncio.run(run_up(options)))


def engine_roles(host: str, port: int, workers: int = 1) -> list[RoleSpec]:
    """What makes an engine, beside its servers."""
    names = ["worker", *(f"worker-{n}" for n in range(2, workers + 1))]
    return [
        command_role("gateway", "serve", "gateway", "--host", host, "--port", str(port), passing_exit_codes=MAY_PASS),
        *(command_role(name, "serve", "worker", passing_exit_codes=MAY_PASS) for name in names),
        command_role("hosts", "serve", "hosts", passing_exit_codes=MAY_PASS),
        command_role("hooks", "serve", "hooks", passing_exit_codes=MAY_PASS),
    ]


async def run_up(options: UpOptions, roles: Sequence[RoleSpec] | None = None) -> int:
    """Start, announce, wait for a signal, stop; the exit code.

    Raises ConfigurationError or UnavailableError when the engine cannot be started. `roles` replaces the engine's own
    roles; one of them must answer `GET /ready` on the port in its environment's ORCHESTRATOR_PORT.
    """
    supervisor = Supervisor(options, roles)
    with _stop_signals() as stopped:
        running = asyncio.create_task(supervisor.start())
        stop = asyncio.create_task(stopped.wait())
        try:
            await asyncio.wait([running, stop], return_when=asyncio.FIRST_COMPLETED)
            if not stop.done():
                await running
                supervisor.announce()
                await stop
        finally:
            stop.cancel()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await supervisor.stop()
    return 0


class Supervisor:
    """The engine's processes of one `up`."""

    def __init__(self, options: UpOptions, roles: Sequence[RoleSpec] | None = None) -> None:
        self._options = options
        self._specs = roles
        self._console = Console(stderr=True, highlight=False)
        self._started = time.monotonic()
        self._settings = load_settings(allocator=options.allocator)
        self._engine = EmbeddedEngine(
            options.data_dir,
            ports=options.server_ports,
            token_key_file=self._settings.token_key_file,
            progress=self._show,
            report=self._report,
        )
        self._roles: list[Role] = []
        self._port = options.port
        self._held: HeldPort | None = None
        self._announcement = self._engine.data_dir / ENGINE_FILE
        self._announced = False

    async def start(self) -> None:
        self._hold_port()
        self._engine.temporal.ui_codec_endpoint = f"http://{self._reachable_host()}:{self._port}/api/v1/codec"
        with self._console.status("starting the engine"):
            await self._engine.start()
            self._announcement.unlink(missing_ok=True)  # of a supervisor that was killed
            began = time.monotonic()
            await self._start_roles()
            self._show(StepDone("engine", time.monotonic() - began))

    async def _start_roles(self) -> None:
        """Again with another port, where the choice is ours and somebody listens on it in spite of our holding it."""
        for attempt in range(1, PORT_ATTEMPTS + 1):
            if self._held is not None:
                self._held.hand_over()
            environment = self._role_environment()
            specs = (
                engine_roles(self._options.host, self._port, self._options.workers)
                if self._specs is None
                else self._specs
            )
            for spec in specs:
                role = Role(spec, environment, self._engine.log_directory, self._report)
                self._roles.append(role)
                await role.start()
            probe = http_ready(self._reachable_host(), self._port, "/ready")
            try:
                await wait_for_roles(self._roles, probe, READY_TIMEOUT_SECONDS)
            except UnavailableError as error:
                if self._options.port or attempt == PORT_ATTEMPTS or not says_port_taken(error.message):
                    raise
                self._report(f"port {self._port} was taken; trying another")
                await stop_roles(self._roles)
                self._roles.clear()
                self._release_port()
                self._hold_port()
                continue
            return

    def announce(self) -> None:
        """One line of JSON on stdout, or a text with the links; the same JSON in the data directory."""
        document = {
            "url": f"http://{self._reachable_host()}:{self._port}",
            "token": self._bootstrap_token(),
            "temporal_address": self._engine.temporal_address,
            "temporal_namespace": self._engine.temporal_namespace,
            "temporal_ui": self._engine.temporal_ui,
            "database_url": self._engine.database_url,
            "redis_url": self._engine.redis_url,
            "pid": os.getpid(),
        }
        line = json.dumps(document)
        write_secret(self._announcement, line.encode("utf-8"))
        self._announced = True
        seconds = time.monotonic() - self._started
        if self._options.as_json:
            # Whoever started us may have stopped reading; the engine runs on.
            with suppress(BrokenPipeError):
                print(line, flush=True)
            return
        text = f"The engine is ready after {seconds:.1f} s.\n\n"
        text += f"  API and console  {document['url']}\n  API docs         {document['url']}/docs\n"
        text += f"  Temporal UI      {document['temporal_ui']}\n  data             {self._engine.data_dir}\n"
        if self._options.workers > 1:
            text += f"  workers          {self._options.workers}\n"
        text += f"  token            {document['token']}\n\nStop it with Ctrl-C. Try: orchestrator list"
        with suppress(BrokenPipeError):
            print(text, flush=True)

    def _bootstrap_token(self) -> str:
        issuer = TokenIssuer.from_file(
            self._engine.token_key_file, self._settings.token_issuer, self._settings.token_audience
        )
        return issuer.issue(tenant=BOOTSTRAP_TENANT, roles=[BOOTSTRAP_ROLE])

    async def stop(self) -> None:
        if self._announced:
            self._announcement.unlink(missing_ok=True)
        await stop_roles(self._roles)
        await self._engine.stop()
        self._release_port()

    def _hold_port(self) -> None:
        self._held = hold_port(self._options.port) if self._options.port else hold_free_port()
        if self._held is None:
            raise ConfigurationError(f"port {self._port} is in use: choose another with --port, or 0 for a free one")
        self._port = self._held.port

    def _release_port(self) -> None:
        if self._held is not None:
            self._held.release()
            self._held = None

    def _reachable_host(self) -> str:
        return LOOPBACK if self._options.host in WILDCARDS else self._options.host

    def _role_environment(self) -> dict[str, str]:
        environment = self._engine.environment()
        environment |= {"ORCHESTRATOR_HOST": self._options.host, "ORCHESTRATOR_PORT": str(self._port)}
        if self._options.catalogue is not None:
            environment["ORCHESTRATOR_CATALOGUE_FILE"] = str(self._options.catalogue.absolute())
        environment["ORCHESTRATOR_ALLOCATOR"] = self._settings.allocator
        return environment

    def _show(self, step: StepDone) -> None:
        self._console.print(f"{step.name:<12} ready after {step.seconds:.1f} s")

    def _report(self, message: str) -> None:
        self._console.print(f"{time.strftime('%H:%M:%S')} {message}", markup=False)


@contextmanager
def _stop_signals() -> Iterator[asyncio.Event]:
    """Set by SIGTERM, SIGINT or SIGHUP. A second Ctrl-C ends at once: the children die with this process."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()

    def interrupt() -> None:
        if stopped.is_set():
            print("stopping at once", file=sys.stderr)
            os._exit(INTERRUPTED)
        stopped.set()

    loop.add_signal_handler(signal.SIGINT, interrupt)
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)
