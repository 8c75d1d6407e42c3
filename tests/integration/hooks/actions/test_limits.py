"""Commands that take more than they may: each is stopped, and the machine goes on. With a sandbox and without."""

import resource
import time

import pytest

from hooks.actions.outcome import ActionOutcome
from tests.integration.hooks.actions.conftest import Bench, sandbox_of

MEBIBYTE = 1024 * 1024
SETTINGS = {
    "hooks_unsandboxed_code": True,
    "hooks_memory_bytes_max": 192 * MEBIBYTE,
    "hooks_processes_max": 24,
    "hooks_file_bytes_max": MEBIBYTE,
    "hooks_written_bytes_max": 16 * MEBIBYTE,
    "hooks_output_bytes_max": 4096,
    "hooks_output_read_bytes_max": 2 * MEBIBYTE,
}
BYTES_OF_THIS_PROCESS_MAX = 64 * MEBIBYTE
"""How much it may grow while a command prints a gigabyte."""


def test_source(code: str) -> str:
    lines = "\n".join(f"    {line}" for line in code.splitlines())
    return f"import os, socket, subprocess, sys, threading, time\n\n\ndef test_greedy():\n{lines}\n"


test_source.__test__ = False  # type: ignore[attr-defined]

STOPPED = {
    "sleeps for ever": ("time.sleep(600)", "TIMEOUT"),
    "computes for ever": ("while True: pass", "TIMEOUT"),
    "ignores being told": ("import signal; signal.signal(15, signal.SIG_IGN); time.sleep(600)", "TIMEOUT"),
    "computes in many threads": (
        "def spin():\n    while True: pass\n"
        "for _ in range(4): threading.Thread(target=spin, daemon=True).start()\n"
        "time.sleep(600)",
        "TIMEOUT",
    ),
    "an evil regular expression": ("import re; re.match('(a+)+$', 'a' * 60 + 'b')", "TIMEOUT"),
    "a gigabyte of output": ("for _ in range(1024): os.write(1, b'x' * 1048576)", "OUTPUT_EXCEEDED"),
    "a gigabyte of errors": ("for _ in range(1024): os.write(2, b'x' * 1048576)", "OUTPUT_EXCEEDED"),
    "output of many processes": (
        "while True: subprocess.run(['head', '-c', '500000', '/dev/zero'])",
        "OUTPUT_EXCEEDED",
    ),
    "memory": ("held = []\nwhile True: held.append(bytearray(4 * 1048576)); time.sleep(0.005)", "MEMORY_EXCEEDED"),
    "memory of many processes": (
        "for _ in range(8):\n"
        "    if os.fork() == 0:\n"
        "        held = b'x' * (40 * 1048576)\n"
        "        time.sleep(600)\n"
        "time.sleep(600)",
        "MEMORY_EXCEEDED",
    ),
    "memory that is shared": (
        "import mmap\nheld = mmap.mmap(-1, 400 * 1048576)\n"
        "for n in range(400): held.write(b'x' * 1048576); time.sleep(0.002)\n"
        "time.sleep(600)",
        "MEMORY_EXCEEDED",
    ),
    "many files": (
        "for n in range(400):\n"
        "    with open(f'{n % 20}', 'wb') as file: file.write(os.urandom(500000)); os.fsync(file.fileno())\n"
        "time.sleep(600)",
        "DISK_EXCEEDED",
    ),
    "many files by many processes": (
        "for n in range(400): subprocess.run(['dd', 'if=/dev/zero', f'of={n % 20}', 'bs=500000', 'count=1'])\n"
        "time.sleep(600)",
        "DISK_EXCEEDED",
    ),
}


@pytest.fixture
def greedy(bench: Bench) -> Bench:
    bench.settings = dict(SETTINGS)
    return bench


@pytest.mark.parametrize("setting", ["auto", "bubblewrap", "off"])
@pytest.mark.parametrize("title", STOPPED)
async def test_what_takes_too_much_is_stopped(title: str, setting: str, greedy: Bench) -> None:
    code, expected = STOPPED[title]
    greedy.setting = setting  # type: ignore[assignment]
    greedy.write("test_greedy.py", test_source(code))
    if await sandbox_of(greedy.setting) is None:
        assert (await greedy.run("pytest -q -s")).error_code == "CONFIGURATION"
        return
    before = _peak_bytes()
    began = time.monotonic()
    outcome = await greedy.run("pytest -q -s", timeout_seconds=3.0 if expected == "TIMEOUT" else 30.0)
    assert outcome.error_code == expected, outcome
    assert outcome.status == ("timeout" if expected == "TIMEOUT" else "failed")
    assert time.monotonic() - began < 28
    assert len(outcome.output) <= 2 * 4096 + 1
    assert _peak_bytes() - before < BYTES_OF_THIS_PROCESS_MAX


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


REFUSED = {
    "a file that is too large": "open('large', 'wb').write(b'x' * (8 * 1048576))",
    "files that fill the memory": ("for n in range(1000): open(f'/tmp/{n}', 'wb').write(b'x' * 1000000)"),
    "more descriptors than it may": "held = [open('/dev/null') for _ in range(5000)]",
    "more files in memory than it may": "for n in range(100000): open(f'/tmp/{n}', 'w').close()",
    "shared memory": "for n in range(100): open(f'/dev/shm/{n}', 'wb').write(b'x' * 1000000)",
    "memory behind a descriptor": "os.memfd_create('x')",
    "memory behind a key": "assert __import__('ctypes').CDLL(None).shmget(0, 4096, 0o600) != -1",
    "a crash's image": "assert __import__('resource').getrlimit(4) != (0, 0)",
}


@pytest.mark.parametrize("title", REFUSED)
async def test_what_would_fill_the_machine_is_refused_by_the_kernel(title: str, greedy: Bench) -> None:
    sandbox = await sandbox_of("auto")
    if sandbox is None or not sandbox.isolates:
        greedy.settings["hooks_unsandboxed_code"] = False
    greedy.write("test_greedy.py", test_source(REFUSED[title]))
    outcome = await greedy.run("pytest -q -s")
    expected = "EXIT_STATUS" if sandbox is not None and sandbox.isolates else "SANDBOX_REQUIRED"
    assert outcome.error_code == expected, outcome
    assert sum(path.stat().st_size for path in greedy.work_dir.rglob("*") if path.is_file()) < 2 * MEBIBYTE


BOMBS = {
    "fork bomb": "while True:\n    os.fork()",
    "shell's fork bomb": "subprocess.run(['sh', '-c', 'f() { f | f & }; f; sleep 600'])",
    "bomb of sleepers": "while True:\n    subprocess.Popen(['sleep', '600'])",
    "bomb of threads": "while True:\n    threading.Thread(target=time.sleep, args=(600,)).start()",
    "bomb of orphans": (
        "while True:\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        "            time.sleep(600)\n"
        "        os._exit(0)\n"
        "    try:\n"
        "        os.wait()\n"
        "    except ChildProcessError:\n"
        "        pass"
    ),
}


@pytest.mark.parametrize("title", BOMBS)
async def test_a_fork_bomb_stays_within_its_limits(title: str, greedy: Bench) -> None:
    """In a sandbox only: what is counted from outside alone is too late for some of them."""
    sandbox = await sandbox_of("auto")
    isolates = sandbox is not None and sandbox.isolates
    greedy.settings["hooks_unsandboxed_code"] = False
    greedy.write("test_greedy.py", test_source(BOMBS[title]))
    outcome = await greedy.run("pytest -q -s", timeout_seconds=4.0)
    if not isolates:
        assert outcome.error_code == "SANDBOX_REQUIRED"
        return
    assert outcome.status in ("failed", "timeout")
    assert outcome.error_code in ("EXIT_STATUS", "TIMEOUT", "PROCESSES_EXCEEDED", "MEMORY_EXCEEDED", "OUTPUT_EXCEEDED")
    assert _can_still_run(await greedy.run("git status"))


async def test_more_processes_than_permitted_are_stopped_without_a_sandbox_too(greedy: Bench) -> None:
    greedy.setting = "off"
    greedy.write(
        "test_greedy.py", test_source("for _ in range(60):\n    subprocess.Popen(['sleep', '600'])\ntime.sleep(600)")
    )
    outcome = await greedy.run("pytest -q -s")
    assert outcome.error_code == "PROCESSES_EXCEEDED"
    assert outcome.refused


def _can_still_run(outcome: ActionOutcome) -> bool:
    return outcome.error_code == "WORK_DIRECTORY_INVALID"
