"""Roles, with small programs."""

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.embedded.engine import StepDone, no_progress, no_report
from engine.embedded.roles import Role, RoleSpec, command_role, http_ready, stop_roles, wait_for_roles
from engine.errors import UnavailableError

SLEEPER = RoleSpec("sleeper", ("-I", "-S", "-c", "import time; time.sleep(60)"))
ENDING = RoleSpec("ending", ("-I", "-S", "-c", "raise SystemExit('no such setting')"))
DEAF = RoleSpec(
    "deaf", ("-I", "-S", "-u", "-c", "import signal as s, time\ns.signal(15, 1)\nprint(1)\ntime.sleep(60)"), 0.1
)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for happens in another process
            await asyncio.sleep(0.01)


async def never() -> bool:
    return False


async def test_a_role_that_ends_is_started_again_and_reported(tmp_path: Path) -> None:
    messages: list[str] = []
    role = Role(SLEEPER, os.environ, tmp_path, messages.append)
    await role.start()
    first = role.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    await until(lambda: role.pid not in (None, first))
    await role.stop()
    assert role.pid is None
    assert role.starts == 2
    assert messages == ["sleeper ended with exit code -9; starting it again in 0.2 s"]


async def test_stopped_roles_stay_stopped(tmp_path: Path) -> None:
    messages: list[str] = []
    roles = [Role(SLEEPER, os.environ, tmp_path, messages.append) for _ in range(2)]
    for role in roles:
        await role.start()
    await stop_roles(roles)
    assert [role.starts for role in roles] == [1, 1]
    assert messages == []


async def test_a_role_stopped_between_two_starts_is_not_started(tmp_path: Path) -> None:
    messages: list[str] = []
    role = Role(ENDING, os.environ, tmp_path, messages.append)
    await role.start()
    await until(lambda: bool(messages))
    starts = role.starts
    await role.stop()
    assert role.starts == starts
    assert "ending" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_a_role_that_cannot_be_started_again_is_tried_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    messages: list[str] = []
    role = Role(SLEEPER, os.environ, tmp_path / "logs", messages.append)
    await role.start()
    monkeypatch.setattr("sys.executable", str(tmp_path / "missing"))
    assert role.pid is not None
    os.kill(role.pid, signal.SIGKILL)
    await until(lambda: any("cannot be started again" in message for message in messages))
    monkeypatch.undo()
    await until(lambda: role.pid is not None)
    await role.stop()


async def test_a_deaf_role_is_killed(tmp_path: Path) -> None:
    role = Role(DEAF, os.environ, tmp_path)
    await role.start()
    await until(lambda: (tmp_path / "deaf.log").read_text() == "1\n")
    await role.stop()
    assert role.pid is None


async def test_a_role_that_cannot_start_ends_the_waiting_with_its_last_words(tmp_path: Path) -> None:
    roles = [Role(SLEEPER, os.environ, tmp_path), Role(ENDING, os.environ, tmp_path)]
    for role in roles:
        await role.start()
    with pytest.raises(UnavailableError, match=r"(?s)ending ended \d times while starting.*no such setting"):
        await wait_for_roles(roles, never, timeout_seconds=30)
    await stop_roles(roles)


async def test_waiting_for_readiness_has_an_end() -> None:
    async def refused() -> bool:
        raise ConnectionRefusedError

    with pytest.raises(UnavailableError, match=r"not ready after 0\.1 s"):
        await wait_for_roles([], refused, timeout_seconds=0.1)


async def test_a_role_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    await Role(SLEEPER, os.environ, tmp_path).stop()


def test_a_role_of_the_engine_is_a_command_of_this_interpreter() -> None:
    assert command_role("worker", "serve", "worker").arguments == ("-P", "-m", "cli", "serve", "worker")


async def test_a_port_where_nobody_speaks_http_is_not_ready() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        probe = http_ready("127.0.0.1", listener.getsockname()[1], "/ready")
        waiting = asyncio.ensure_future(probe())
        connection, _ = await asyncio.get_running_loop().run_in_executor(None, listener.accept)
        connection.sendall(b"SSH-2.0\r\n")
        connection.close()
        with pytest.raises(OSError, match=r"no HTTP|reset"):
            await waiting


def test_progress_and_reports_may_be_ignored() -> None:
    no_progress(StepDone("x", 0.0))
    no_report("x")
