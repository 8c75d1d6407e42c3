"""Child processes, with small Python programs for servers."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.embedded import process as process_module
from engine.embedded import spawn
from engine.embedded.process import ChildProcess
from engine.errors import ConfigurationError, UnavailableError
from tests.integration.embedded.processes import alive, descendants, poll

Child = Callable[..., ChildProcess]
DEADLINE_SECONDS = 10.0


@pytest.fixture
def child(tmp_path: Path) -> Child:
    def make(program: str, **options: Any) -> ChildProcess:
        return ChildProcess(
            "child",
            [sys.executable, "-I", "-S", "-u", "-c", program],
            directory=tmp_path,
            log_file=tmp_path / "logs" / "child.log",
            environment={"GREETING": "hello"},
            **options,
        )

    return make


async def said(child: ChildProcess, text: str) -> bool:
    return text in child.log_tail()


async def test_it_gets_its_environment_and_writes_to_its_log(child: Child) -> None:
    process = child("import os; print(os.environ['GREETING'], 'HOME' in os.environ, os.getcwd())")
    await process.start()
    assert await process.wait() == 0
    assert process.log_tail() == f"hello False {process.log_file.parents[1]}"
    assert not process.running
    assert process.returncode == 0


async def test_its_log_is_kept_and_its_tail_is_of_this_run(child: Child) -> None:
    for text in ("first", "second"):
        process = child(f"print({text!r})")
        await process.start()
        await process.wait()
        assert process.log_tail() == text
    assert process.log_file.read_text() == "first\nsecond\n"


async def test_a_large_log_is_set_aside_when_it_starts(child: Child, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_module, "LOG_ROTATE_BYTES", 4)
    for text in ("first", "second"):
        process = child(f"print({text!r})")
        await process.start()
        await process.wait()
    assert process.log_file.read_text() == "second\n"
    assert process.log_file.with_name("child.log.1").read_text() == "first\n"


async def test_ready_is_when_the_probe_says_so(child: Child) -> None:
    process = child("import time; print('ready'); time.sleep(60)")
    await process.start()
    await process.wait_ready(lambda: said(process, "ready"), timeout_seconds=DEADLINE_SECONDS)
    assert process.running
    assert await process.stop(timeout_seconds=DEADLINE_SECONDS) == -signal.SIGTERM


async def test_one_that_ends_before_it_is_ready_is_reported_with_its_last_words(child: Child) -> None:
    process = child("import sys; print('no room'); sys.exit(3)")
    await process.start()
    with pytest.raises(UnavailableError, match=r"(?s)exit code 3 before it was ready.*no room"):
        await process.wait_ready(lambda: said(process, "never"), timeout_seconds=DEADLINE_SECONDS)


async def test_one_that_is_never_ready_is_given_up(child: Child) -> None:
    process = child("import time; time.sleep(60)")
    await process.start()

    async def refused() -> bool:
        raise ConnectionRefusedError

    with pytest.raises(UnavailableError, match=r"(?s)not ready after 0\.1 s.*\(empty\)"):
        await process.wait_ready(refused, timeout_seconds=0.1)
    await process.stop(timeout_seconds=DEADLINE_SECONDS)


async def test_one_that_ignores_the_stop_signal_is_killed(child: Child) -> None:
    process = child("import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf'); time.sleep(60)")
    await process.start()
    await process.wait_ready(lambda: said(process, "deaf"), timeout_seconds=DEADLINE_SECONDS)
    assert await process.stop(timeout_seconds=0.1) == -signal.SIGKILL


async def test_it_is_stopped_by_the_signal_of_its_kind(child: Child) -> None:
    process = child("import time; time.sleep(60)", stop_signal=signal.SIGUSR1)
    await process.start()
    assert await process.stop(timeout_seconds=DEADLINE_SECONDS) == -signal.SIGUSR1
    process.send(signal.SIGTERM)
    assert await process.stop(timeout_seconds=0) == -signal.SIGUSR1


async def test_one_that_was_never_started_has_nothing_to_stop(child: Child) -> None:
    process = child("")
    assert process.pid is None
    assert not process.running
    assert await process.stop(timeout_seconds=1) is None
    process.send(signal.SIGTERM)
    with pytest.raises(UnavailableError, match="was not started"):
        await process.wait()


async def test_it_is_started_from_the_main_thread_only(child: Child) -> None:
    process = child("")
    with pytest.raises(ConfigurationError, match="main thread"):
        await asyncio.to_thread(asyncio.run, process.start())


async def test_a_directory_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    process = ChildProcess(
        "child", ["/bin/true"], directory=tmp_path / "missing", log_file=tmp_path / "log", environment={}
    )
    with pytest.raises(ConfigurationError, match="child cannot be started"):
        await process.start()


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A supervisor of its own starts it, says its id and is killed."""
    program = (
        "import asyncio, sys\n"
        "from pathlib import Path\n"
        "from engine.embedded.process import ChildProcess\n"
        "async def main():\n"
        "    child = ChildProcess('child', ['/bin/sleep', '60'], directory=Path('/'),\n"
        "        log_file=Path(sys.argv[1]), environment={})\n"
        "    await child.start()\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    supervisor = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "log")], stdout=subprocess.PIPE, cwd=Path(__file__).parents[3]
    )
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    [(_, started)] = descendants(supervisor.pid)
    supervisor.kill()
    supervisor.communicate()
    poll(lambda: not alive({(pid, started)}), "the child is gone")


def spawned(*arguments: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-I", "-S", spawn.__file__, *arguments], capture_output=True, timeout=10, check=False
    )


def test_a_parent_that_is_gone_already_means_not_to_start() -> None:
    someone_else = str(os.getppid())
    finished = spawned(someone_else, "9", "-", "/bin/echo", "started")
    assert finished.returncode == 1
    assert b"the supervisor" in finished.stderr
    assert finished.stdout == b""


def test_a_parent_that_lives_means_to_go_on() -> None:
    spawn.die_with_parent(os.getppid(), 0)  # signal 0 asks for none: this process goes on as it was


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_root_is_given_up_before_the_program_starts() -> None:
    finished = spawned(str(os.getpid()), "9", "65534", "/usr/bin/id", "-u")
    assert finished.stdout == b"65534\n"
    assert spawned(str(os.getpid()), "9", "65534", "/usr/bin/id", "-G").stdout == b"65534\n"


def test_a_program_that_is_not_there_fails_loudly() -> None:
    finished = spawned(str(os.getpid()), "9", "-", "/nowhere")
    assert finished.returncode == 1
    assert b"/nowhere" in finished.stderr or b"No such file" in finished.stderr
