"""`orchestrator up` as a process, with small roles: starting, dying, stopping."""

import contextlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis
from temporalio.api.workflowservice.v1 import RegisterNamespaceRequest
from temporalio.client import Client

from engine.embedded.postgres import OTHER_USER_ID
from tests.integration.embedded.processes import alive, descendants, is_root, poll

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("supervise.py")
STOP_SECONDS = 120.0


class Supervised:
    """A supervisor that is ready, and what it said of itself."""

    def __init__(self, process: "subprocess.Popen[bytes]", announced: dict[str, Any]) -> None:
        self.process = process
        self.announced = announced
        self.port = int(announced["url"].rpartition(":")[2])

    def gateway_pid(self) -> int | None:
        try:
            with urllib.request.urlopen(f"{self.announced['url']}/ready", timeout=10) as response:  # noqa: S310
                return int(response.read())
        except OSError:
            return None


@contextlib.contextmanager
def supervised(
    data_dir: Path, *, port: int = 0, python: Sequence[str] = (sys.executable,), **options: Any
) -> Iterator[Supervised]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *options.pop("path", [])])}
    process = subprocess.Popen(
        [*python, str(SCRIPT), str(data_dir), str(port)],
        stdout=subprocess.PIPE,
        cwd="/",
        env=environment,
        start_new_session=True,
        **options,
    )
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"the supervisor ended with {process.wait()}"
        yield Supervised(process, json.loads(line))
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        process.stdout.close()


def stopped(supervisor: Supervised, number: signal.Signals = signal.SIGTERM) -> int:
    supervisor.process.send_signal(number)
    return supervisor.process.wait(STOP_SECONDS)


async def fetch(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


def superuser_url(data_dir: Path, announced: dict[str, Any]) -> str:
    address = announced["database_url"].rpartition("@")[2].replace("/orchestrator", "/postgres")
    return f"postgresql://postgres:{(data_dir / 'postgres' / 'password').read_text('ascii').strip()}@{address}"


def test_it_announces_itself_and_stops_in_order(open_directory: Path) -> None:
    data_dir = open_directory / "data"
    with supervised(data_dir) as supervisor:
        keys = "url token temporal_address temporal_namespace temporal_ui database_url redis_url pid"
        assert list(supervisor.announced) == keys.split()
        assert supervisor.announced["pid"] == supervisor.process.pid
        engine_file = data_dir / "engine.json"
        assert json.loads(engine_file.read_bytes()) == supervisor.announced
        assert stat.S_IMODE(engine_file.stat().st_mode) == 0o600
        below = descendants(supervisor.process.pid)
        assert stopped(supervisor) == 0
        assert not alive(below)
        assert not engine_file.exists()
        assert supervisor.process.stdout is not None
        assert supervisor.process.stdout.read() == b""


async def test_killed_it_leaves_nothing_behind_and_the_next_one_carries_on(open_directory: Path) -> None:
    data_dir = open_directory / "data"
    with supervised(data_dir) as supervisor:
        told = supervisor.announced
        client = await Client.connect(told["temporal_address"])
        request = RegisterNamespaceRequest(namespace="kept")
        request.workflow_execution_retention_period.FromSeconds(86400)
        await client.workflow_service.register_namespace(request)
        await fetch(superuser_url(data_dir, told), "CREATE TABLE kept ()")
        async with Redis.from_url(told["redis_url"]) as redis:
            await redis.set("kept", "yes")
        below = descendants(supervisor.process.pid)
        assert len(below) > 5
        supervisor.process.kill()
        supervisor.process.wait()
        poll(lambda: not alive(below), "all its processes are gone")
    assert (data_dir / "engine.json").exists()
    with supervised(data_dir) as again:
        assert again.announced["pid"] == again.process.pid
        async with Redis.from_url(again.announced["redis_url"]) as redis:
            assert await redis.get("kept") == b"yes"
        assert await fetch(superuser_url(data_dir, again.announced), "SELECT to_regclass('kept') IS NOT NULL")
        await Client.connect(again.announced["temporal_address"], namespace="kept")
        assert stopped(again) == 0


def test_killed_in_its_start_it_leaves_nothing_behind_and_can_be_started(open_directory: Path) -> None:
    data_dir = open_directory / "data"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(data_dir), "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )
    poll((data_dir / "postgres" / "cluster" / "unfinished" / "base").exists, "initdb has begun")
    below = descendants(process.pid)
    process.kill()
    process.wait()
    poll(lambda: not alive(below), "all its processes are gone")
    with supervised(data_dir) as supervisor:
        assert stopped(supervisor) == 0


def test_stopped_in_its_start_it_ends_in_order(open_directory: Path) -> None:
    data_dir = open_directory / "data"
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), str(data_dir), "0"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    poll((data_dir / "valkey" / "valkey.conf").exists, "the servers are being started")
    below = descendants(process.pid)
    process.terminate()
    output, _ = process.communicate(timeout=STOP_SECONDS)
    assert (process.returncode, output) == (0, b"")
    assert not alive(below)


def test_a_role_that_dies_is_started_again_on_the_same_port(open_directory: Path) -> None:
    with supervised(open_directory / "data") as supervisor:
        first = supervisor.gateway_pid()
        assert first is not None
        os.kill(first, signal.SIGKILL)
        poll(lambda: supervisor.gateway_pid() not in (None, first), "another gateway answers")
        assert stopped(supervisor, signal.SIGINT) == 0


def test_a_second_one_on_the_same_directory_is_refused(open_directory: Path) -> None:
    with supervised(open_directory / "data") as supervisor:
        second = subprocess.run(
            [sys.executable, str(SCRIPT), str(open_directory / "data"), "0"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=STOP_SECONDS,
            check=False,
        )
        assert second.returncode != 0
        assert b"another engine runs on the data directory" in second.stderr
        assert supervisor.gateway_pid() is not None
        assert (open_directory / "data" / "engine.json").exists()
        assert stopped(supervisor) == 0


def test_two_run_side_by_side(open_directory: Path) -> None:
    with supervised(open_directory / "one") as one, supervised(open_directory / "two") as two:
        for key in ("url", "temporal_address", "temporal_ui", "database_url", "redis_url", "token"):
            assert one.announced[key] != two.announced[key]
        assert stopped(one, signal.SIGHUP) == 0
        assert two.gateway_pid() is not None
        assert stopped(two) == 0


def interpreter_of_an_ordinary_user() -> tuple[str, list[str]] | None:
    """One of the same version that the other user can execute; ours may lie where only root can enter."""
    packages = [entry for entry in sys.path if entry.endswith("site-packages")] + [str(ROOT / "sdk" / "src")]
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for candidate in (sys.executable, shutil.which(name, path="/usr/bin:/usr/local/bin")):
        if candidate is None:
            continue
        environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), *packages]), "PATH": os.defpath}
        with contextlib.suppress(OSError):
            arguments = [candidate, "-c", "import cli.up"]
            user: dict[str, Any] = {"user": OTHER_USER_ID, "group": OTHER_USER_ID, "extra_groups": []}
            tried = subprocess.run(
                arguments,
                env=environment,
                cwd="/",
                capture_output=True,
                timeout=180,
                check=False,
                **user,
            )
            if tried.returncode == 0:
                return candidate, packages
    return None


def test_an_ordinary_user_can_run_it(open_directory: Path) -> None:
    if not is_root():
        pytest.skip("all the other tests run as an ordinary user already")
    interpreter = interpreter_of_an_ordinary_user()
    if interpreter is None:
        pytest.skip("no Python here that an ordinary user can execute")
    home = open_directory / "home"
    home.mkdir(mode=0o700)
    os.chown(home, OTHER_USER_ID, OTHER_USER_ID)
    data_dir = home / "data"
    user: dict[str, Any] = {"user": OTHER_USER_ID, "group": OTHER_USER_ID, "extra_groups": []}
    with supervised(data_dir, python=(interpreter[0],), path=interpreter[1], **user) as supervisor:
        below = descendants(supervisor.process.pid)
        owners = {Path("/proc", str(pid)).stat().st_uid for pid, _ in below}
        assert owners == {OTHER_USER_ID}
        assert stat.S_IMODE(data_dir.stat().st_mode) == 0o700
        supervisor.process.kill()
        supervisor.process.wait()
        poll(lambda: not alive(below), "all its processes are gone")
    with supervised(data_dir, python=(interpreter[0],), path=interpreter[1], **user) as again:
        assert stopped(again) == 0
