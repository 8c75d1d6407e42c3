import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
import uvloop

from cli.serve import run_role
from engine.errors import UnavailableError
from engine.settings import Settings
from tests.unit.cli.conftest import Orchestrator


def test_a_role_runs_to_its_end() -> None:
    ran: list[bool] = []

    async def role() -> None:
        ran.append(True)

    run_role(role())
    assert ran == [True]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_role_in_order(number: signal.Signals) -> None:
    stopped: list[bool] = []

    async def role() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.sleep(60)
        finally:
            stopped.append(True)

    run_role(role())
    assert stopped == [True]


def test_a_role_runs_on_the_kind_of_loop_that_it_is_given() -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def role() -> None:
        loops.append(asyncio.get_running_loop())

    run_role(role(), uvloop.new_event_loop)
    assert isinstance(loops[0], uvloop.Loop)


def test_a_role_that_fails_is_not_taken_for_done() -> None:
    async def role() -> None:
        raise UnavailableError("no database")

    with pytest.raises(UnavailableError):
        run_role(role())


def test_a_cancellation_that_nobody_asked_for_is_not_swallowed() -> None:
    async def role() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_role(role())


@pytest.mark.parametrize(
    ("arguments", "roles"),
    [
        (("worker",), {"workflows", "bridge"}),
        (("worker", "--role", "workflows"), {"workflows"}),
        (("bridge",), {"bridge"}),
        (("hooks",), {"hooks"}),
    ],
)
def test_each_role_of_the_worker_is_started_by_name(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], roles: set[str]
) -> None:
    started: list[frozenset[str]] = []

    async def serve_worker(_: Settings, wanted: frozenset[str]) -> None:
        started.append(wanted)

    monkeypatch.setattr("cli.serve_worker.serve_worker", serve_worker)
    monkeypatch.setattr("cli.serve_worker.run_role", lambda role, _loop: asyncio.run(role))
    assert orchestrator("serve", *arguments).code == 0
    assert started == [frozenset(roles)]


def test_the_gateway_listens_where_it_is_told(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    async def serve_gateway(settings: Settings) -> None:
        seen.append((settings.host, settings.port))

    monkeypatch.setenv("ORCHESTRATOR_HOST", "127.0.0.9")
    monkeypatch.setattr("cli.serve_gateway.serve_gateway", serve_gateway)
    monkeypatch.setattr("cli.serve_gateway.run_role", lambda role, _loop_factory: asyncio.run(role))
    assert orchestrator("serve", "gateway", "--port", "9999").code == 0
    assert seen == [("127.0.0.9", 9999)]


def test_the_fleet_of_hosts_is_a_role(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Settings] = []

    async def serve_hosts(settings: Settings) -> None:
        seen.append(settings)

    monkeypatch.setattr("cli.serve_hosts.serve_hosts", serve_hosts)
    monkeypatch.setattr("cli.serve_hosts.run_role", asyncio.run)
    assert orchestrator("serve", "hosts").code == 0
    assert len(seen) == 1


def test_a_process_without_servers_ends_with_5_and_says_which() -> None:
    environment = os.environ | {"REDIS_URL": "redis://127.0.0.1:1/0", "ORCHESTRATOR_DATA_DIR": os.devnull + "/none"}
    environment |= {"DATABASE_URL": "postgresql://x:y@127.0.0.1:1/z", "TEMPORAL_ADDRESS": "127.0.0.1:1"}
    result = subprocess.run(
        [sys.executable, "-m", "cli", "serve", "worker"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert result.returncode == 5, result.stderr
    assert "Traceback" not in result.stderr
    assert "error: " in result.stderr


def test_the_gateway_loads_nothing_of_the_worker() -> None:
    """Each role is a process; what it does not need would be paid for at every start."""
    program = "import cli.serve_gateway, sys; sys.exit('worker' in sys.modules or 'engine.agents.fleet' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
