"""What the engine's processes cost: CPU seconds and peak memory, by what they are. From /proc, so on Linux only."""

import contextlib
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
RESET_PEAK: Final = "5"
"""Written to `clear_refs`, it sets the recorded peak to what is in use now."""
BYTES_PER_KIB: Final = 1024
SERVERS: Final = {"postgres": "postgres", "valkey-server": "valkey", "temporal": "temporal"}


@dataclass(frozen=True, slots=True)
class _Process:
    pid: int
    parent: int
    ticks: int
    """CPU time of it and of the children that it has waited for."""


def kind_of(command: list[str], program: str) -> str:
    """What a process of the engine is: the name of its role, `hosts` for agents' hosts, or its server."""
    for server, kind in SERVERS.items():
        if program.startswith(server):
            return kind
    if "orchestration_agent" in command:
        return "hosts"
    if "serve" in command:
        role = command[command.index("serve") + 1 :][:1]
        return {"hosts": "fleet"}.get(role[0], role[0]) if role else "engine"
    return "engine"


class ProcessTree:
    """All processes below one and itself, grouped by what they are."""

    def __init__(self, root: int) -> None:
        self._root = root

    def cpu_seconds(self) -> Mapping[str, float]:
        """Since each of them began. Those that have ended count with the one that waited for them."""
        ticks_per_second = os.sysconf("SC_CLK_TCK")
        found: dict[str, float] = defaultdict(float)
        for process in self._processes():
            found[_kind(process.pid)] += process.ticks / ticks_per_second
        return found

    def reset_peaks(self, kind: str) -> None:
        """From now on `peak_bytes` tells what was the most since now."""
        for process in self._processes():
            if _kind(process.pid) == kind:
                (PROC / str(process.pid) / "clear_refs").write_text(RESET_PEAK)

    def peak_bytes(self, kind: str) -> int:
        """The most that one process of that kind has had in memory at once; 0 when there is none."""
        return max((_peak_bytes(process.pid) for process in self._processes() if _kind(process.pid) == kind), default=0)

    def _processes(self) -> Iterator[_Process]:
        known = {entry.pid: entry for name in os.listdir(PROC) if name.isdigit() if (entry := _read(int(name)))}
        below: dict[int, list[int]] = defaultdict(list)
        for process in known.values():
            below[process.parent].append(process.pid)
        pending = [self._root]
        while pending:
            pid = pending.pop()
            pending += below[pid]
            if pid in known:
                yield known[pid]


def spent(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """CPU seconds between two readings, the most first; what took less than a clock's tick is left out."""
    seconds = {kind: value - before.get(kind, 0.0) for kind, value in after.items()}
    return {kind: value for kind, value in sorted(seconds.items(), key=lambda item: -item[1]) if value > 0}


def _read(pid: int) -> _Process | None:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        fields = (PROC / str(pid) / "stat").read_text("ascii", "replace").rpartition(")")[2].split()
        return _Process(pid, int(fields[1]), sum(int(field) for field in fields[11:15]))
    return None


def _kind(pid: int) -> str:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        command = (PROC / str(pid) / "cmdline").read_text("utf-8", "replace").split("\0")
        return kind_of(command, (PROC / str(pid) / "comm").read_text("utf-8", "replace").strip())
    return "engine"


def _peak_bytes(pid: int) -> int:
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for line in (PROC / str(pid) / "status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * BYTES_PER_KIB
    return 0
