"""What tests of supervision ask of the operating system: who descends from a process, and is everybody gone."""

import os
import time
from collections.abc import Callable
from pathlib import Path

DEADLINE_SECONDS = 90.0


def descendants(pid: int) -> set[tuple[int, str]]:
    """(pid, start time) of all processes below; the start time tells a process from a later one with its id."""
    parents: dict[int, list[int]] = {}
    started: dict[int, str] = {}
    for entry in Path("/proc").iterdir():
        fields = _stat(entry) if entry.name.isdigit() else None
        if fields is not None:
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
            started[int(entry.name)] = fields[19]
    found: set[tuple[int, str]] = set()
    pending = [pid]
    while pending:
        for child in parents.get(pending.pop(), []):
            found.add((child, started[child]))
            pending.append(child)
    return found


def alive(processes: set[tuple[int, str]]) -> set[tuple[int, str]]:
    found = set()
    for pid, started in processes:
        fields = _stat(Path("/proc", str(pid)))
        if fields is not None and fields[19] == started and fields[0] != "Z":
            found.add((pid, started))
    return found


def poll(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"still not true after {DEADLINE_SECONDS:g} s: {what}"
        time.sleep(0.02)


def is_root() -> bool:
    return os.geteuid() == 0


def _stat(directory: Path) -> list[str] | None:
    """The fields after the program's name: state, parent, ..., start time as the 20th."""
    try:
        return (directory / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
