import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from benchmarks.processes import ProcessTree, kind_of, spent

TEN_MB = 10_000_000
BUSY = """
import time
until = time.process_time() + 0.05
while time.process_time() < until: pass
kept = bytearray(10_000_000)
print('ready', flush=True)
input()
del kept
print('less', flush=True)
input()
"""


@pytest.fixture
def busy() -> Iterator["subprocess.Popen[str]"]:
    """A child that says when it has worked and holds memory, then when it has let go of that."""
    command = [sys.executable, "-c", BUSY, "orchestration_agent"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def read_line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("command", "program", "kind"),
    [
        (["python", "-P", "-m", "cli", "serve", "worker"], "python", "worker"),
        (["python", "-P", "-m", "cli", "serve", "hosts"], "python", "fleet"),
        (["python", "-P", "-m", "cli", "serve"], "python", "engine"),
        (["python", "-m", "orchestration_agent", "--entry", "synthetic"], "python", "hosts"),
        (["postgres: writer"], "postgres", "postgres"),
        (["valkey-server"], "valkey-server", "valkey"),
        (["temporal", "server"], "temporal", "temporal"),
        (["python", "orchestrator", "up"], "orchestrator", "engine"),
    ],
)
def test_a_process_is_known_by_its_command(command: list[str], program: str, kind: str) -> None:
    assert kind_of(command, program) == kind


def test_cpu_and_memory_of_a_child_are_counted_for_its_kind(busy: "subprocess.Popen[str]") -> None:
    assert read_line(busy) == "ready"
    tree = ProcessTree(os.getpid())
    assert tree.cpu_seconds()["hosts"] >= 0.04
    assert tree.peak_bytes("hosts") > TEN_MB
    alone = ProcessTree(busy.pid)
    assert alone.cpu_seconds().keys() == {"hosts"}
    assert alone.peak_bytes("valkey") == 0


def test_a_peak_is_forgotten_when_it_is_reset(busy: "subprocess.Popen[str]") -> None:
    read_line(busy)
    tree = ProcessTree(busy.pid)
    with_memory = tree.peak_bytes("hosts")
    assert busy.stdin is not None
    busy.stdin.write("\n")
    busy.stdin.flush()
    assert read_line(busy) == "less"
    assert tree.peak_bytes("hosts") > with_memory - TEN_MB / 2
    tree.reset_peaks("hosts")
    assert tree.peak_bytes("hosts") <= with_memory - TEN_MB / 2


def test_what_was_spent_is_the_difference_the_most_first() -> None:
    before = {"worker": 1.0, "valkey": 2.0}
    assert list(spent(before, {"worker": 1.5, "valkey": 2.0, "gateway": 3.0}).items()) == [
        ("gateway", 3.0),
        ("worker", 0.5),
    ]
