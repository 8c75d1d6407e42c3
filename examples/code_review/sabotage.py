"""Kills the process of a worker while it is in the middle of a task."""

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cli.board import ENDED, Board
from cli.client import EngineClient
from engine.errors import UnavailableError

PAGE_SIZE: Final = 1_000
PROGRESS_MIN: Final = 0.05
PROGRESS_PATIENT: Final = 0.6
"""Until then it waits for the other workers to be done, so that one takes over at once."""

PROGRESS_MAX: Final = 0.9
"""Later, the task might be done before the signal arrives."""


@dataclass(frozen=True, slots=True)
class Kill:
    """What was killed."""

    task_id: str
    agent_id: str
    host_id: str
    pid: int
    progress: float


class Saboteur:
    """Waits for its moment in one task of one execution, and acts once."""

    def __init__(
        self, client: EngineClient, execution_id: str, *, task_id: str, agent_type: str, dependents: frozenset[str]
    ) -> None:
        self._client = client
        self._execution_id = execution_id
        self._task_id = task_id
        self._agent_type = agent_type
        self._dependents = dependents
        """They wait for the task, so they are no work that others could be busy with."""
        self.kill: Kill | None = None

    def look(self, board: Board) -> Kill | None:
        """The kill, when this was the moment. Raises UnavailableError when the process cannot be found."""
        row = board.tasks.get(self._task_id)
        if self.kill is not None or row is None or row.state != "running" or row.attempts > 1:
            return None
        alone = all(
            other.state in ENDED or other.task_id in self._dependents
            for other in board.tasks.values()
            if other is not row
        )
        earliest = PROGRESS_MIN if alone else PROGRESS_PATIENT
        if not earliest <= row.progress <= PROGRESS_MAX:
            return None
        host_id = self._host_of(row.agent_id)
        pid = self._pid_of(host_id)
        os.kill(pid, signal.SIGKILL)
        self.kill = Kill(row.task_id, row.agent_id, host_id, pid, row.progress)
        return self.kill

    def _host_of(self, agent_id: str) -> str:
        found = ""
        for page in self._client.pages(f"/api/v1/executions/{self._execution_id}/events", limit=PAGE_SIZE):
            for event in page["items"]:
                if event["event_type"] == "agent.bound" and event["payload"]["agent_id"] == agent_id:
                    found = event["payload"]["host_id"]
        return found

    def _pid_of(self, host_id: str) -> int:
        for host in self._client.get("/api/v1/agents", type=self._agent_type, limit=PAGE_SIZE)["items"]:
            pid = host["pid"]
            if host["host_id"] == host_id and isinstance(pid, int) and _is_host(pid, host_id):
                return pid
        raise UnavailableError(f"the engine knows no process of the agent host {host_id!r}")


def _is_host(pid: int, host_id: str) -> bool:
    """Whether the process is what its host says, as far as the system tells: process ids are used again."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return not Path("/proc/self").exists()
    return host_id.encode() in command.split(b"\0")
