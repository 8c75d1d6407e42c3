import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cli.engine_process import own_engine
from engine.errors import UnavailableError

READY = """
import json, pathlib, signal, sys
folder = pathlib.Path(sys.argv[sys.argv.index("--data-dir") + 1])
(folder / "arguments").write_text(json.dumps(sys.argv[1:]))
signal.signal(signal.SIGTERM, lambda *_: ((folder / "stopped").touch(), sys.exit(0)))
print(json.dumps({"url": "http://127.0.0.1:5/", "token": "t", "pid": 1}), flush=True)
signal.pause()
"""


def command(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


def test_the_engine_runs_while_it_is_used_and_is_stopped_in_order(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.yaml"
    with own_engine(tmp_path, catalogue, command=command(READY)) as connection:
        assert (connection.url, connection.token) == ("http://127.0.0.1:5", "t")
        assert not (tmp_path / "stopped").exists()
    assert (tmp_path / "stopped").exists()
    arguments = (tmp_path / "arguments").read_text()
    assert '"--port", "0", "--json"' in arguments
    assert f'"--catalogue", "{catalogue}"' in arguments


def test_the_engine_is_stopped_when_its_user_fails(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), own_engine(tmp_path, None, command=command(READY)):
        raise ZeroDivisionError
    assert (tmp_path / "stopped").exists()


def test_an_engine_that_ends_while_starting_is_told_with_its_exit_code(tmp_path: Path) -> None:
    with (
        pytest.raises(UnavailableError, match="exit code 7"),
        own_engine(tmp_path, None, command=command("raise SystemExit(7)")),
    ):
        pass


def test_an_engine_that_never_gets_ready_is_stopped(tmp_path: Path) -> None:
    code = (
        "import os, pathlib, sys, time; pathlib.Path(sys.argv[3], 'pid').write_text(str(os.getpid())); time.sleep(60)"
    )
    starting = own_engine(tmp_path, None, command=command(code), ready_timeout_seconds=1.0)
    with pytest.raises(UnavailableError, match="did not get ready"), starting:
        pass
    pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_an_engine_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.engine_process.STOP_TIMEOUT_SECONDS", 0.2)
    stubborn = READY.replace('lambda *_: ((folder / "stopped").touch(), sys.exit(0))', "signal.SIG_IGN")
    stubborn = stubborn.replace("signal.pause()", "[signal.pause() for _ in range(9)]")
    stubborn = stubborn.replace("print(", '(folder / "pid").write_text(str(__import__("os").getpid()))\nprint(')
    with own_engine(tmp_path, None, command=command(stubborn)):
        pid = int((tmp_path / "pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel of Linux tells children of their parent's end")
def test_an_engine_is_stopped_when_its_user_is_killed(tmp_path: Path) -> None:
    user = (
        "import pathlib, os, signal, sys\n"
        "from cli.engine_process import own_engine\n"
        f"with own_engine(pathlib.Path({str(tmp_path)!r}), None, command=(sys.executable, '-c', sys.argv[1])):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", user, READY], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 10
    while not (tmp_path / "stopped").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_package_is_a_program() -> None:
    result = subprocess.run([sys.executable, "-m", "cli", "--version"], capture_output=True, timeout=60, check=False)
    assert result.returncode == 0
