"""An engine as its operator runs it: `orchestrator up`, a supervisor with all servers and roles as processes."""

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from engine.security.tokens import TokenIssuer
from tests.acceptance.caller import Caller
from tests.integration.embedded.processes import alive, descendants, poll

Answer = TypeVar("Answer")

ORCHESTRATOR = Path(sys.executable).with_name("orchestrator")
TEMPORAL = Path(sys.executable).with_name("temporal")
AGENTS_CODE = Path(__file__).with_name("agents_code")

READY_SECONDS = 300.0
STOP_SECONDS = 120.0
COMMAND_SECONDS = 180
LOG_TAIL_CHARACTERS = 3000

ENDS_WITH_ITS_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG, SIGKILL: tests that are killed leave no engine behind
os.execv(sys.argv[1], sys.argv[1:])
"""

CATALOGUE = """
agents:
  recorder:
    entry: python:recorder:run
    python_path: {python_path}
    capabilities: "*"
    slots: 8
    environment: {{RECORDER_FILE: {record}}}
  outside: {{entry: external, capabilities: "*"}}
"""


class RunningEngine:
    """One data directory, and the processes that run on it."""

    def __init__(
        self, directory: Path, workers: int = 1, catalogue: Path | None = None, started_held_seconds: float = 0.1
    ) -> None:
        """Tests wait for tasks to start: the news of that does not wait for other news unless asked."""
        self.directory = directory
        self.workers = workers
        self.environment = {**os.environ, "ORCHESTRATOR_STARTED_HELD_SECONDS": str(started_held_seconds)}
        self.data_dir = directory / "data"
        self.record = directory / "record.jsonl"
        self.record.touch()
        self.catalogue = catalogue or directory / "catalogue.yaml"
        if catalogue is None:
            self.catalogue.write_text(CATALOGUE.format(python_path=AGENTS_CODE, record=self.record))
        self.announced: dict[str, Any] = {}
        self.start_seconds = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._callers: list[Caller] = []

    # Its life ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Returns once the engine has announced itself."""
        started = time.monotonic()
        command = [sys.executable, "-c", ENDS_WITH_ITS_PARENT, str(ORCHESTRATOR), "up", "--data-dir"]
        command += [str(self.data_dir), "--port", "0", "--json", "--catalogue", str(self.catalogue)]
        command += ["--workers", str(self.workers)]
        with (self.directory / "up.log").open("ab") as log:
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, start_new_session=True, env=self.environment
            )
        self._process = process
        assert process.stdout is not None
        readable, _, _ = select.select([process.stdout], [], [], READY_SECONDS)
        line = process.stdout.readline() if readable else b""
        announced = json.loads(line) if line.strip() else {}
        if "url" not in announced:
            self.kill()
            raise AssertionError(f"the engine did not start: {announced.get('error')}\n{self.logs()}")
        self.announced = announced
        self.start_seconds = time.monotonic() - started

    def logs(self) -> str:
        """The ends of all that its processes have written."""
        return "\n".join(
            f"--- {file.relative_to(self.directory)}:\n{file.read_text('utf-8', 'replace')[-LOG_TAIL_CHARACTERS:]}"
            for file in sorted(self.directory.rglob("*.log"))
        )

    def stop(self) -> int:
        """As an operator does, with SIGTERM; the exit code. Nothing of it runs afterwards."""
        process, below = self._taken_leave_of()
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        poll(lambda: not alive(below), "the engine's processes are gone")
        return code

    def kill(self) -> None:
        """SIGKILL to the supervisor; its servers and roles, and the agents' hosts, die with it."""
        process, below = self._taken_leave_of()
        process.kill()
        process.wait()
        poll(lambda: not alive(below), "what belonged to the killed engine is gone")

    def _taken_leave_of(self) -> tuple[subprocess.Popen[bytes], set[tuple[int, str]]]:
        process = self._process
        assert process is not None
        self._process = None
        assert process.stdout is not None
        process.stdout.close()
        for caller in self._callers:
            caller.close()
        self._callers.clear()
        return process, descendants(process.pid)

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None

    # Its processes -------------------------------------------------------------------------------------------

    def role(self, name: str) -> int:
        """The pid of the role's process; waits while it is being started again."""
        return self.all_of_role(name, 1)[0]

    def all_of_role(self, name: str, count: int) -> list[int]:
        """The pids of the role's processes; waits until there are as many."""
        assert self._process is not None
        supervisor = self._process.pid
        found: list[int] = []

        def there() -> bool:
            found[:] = [pid for pid, _ in descendants(supervisor) if _arguments(pid)[3:6] == ["cli", "serve", name]]
            return len(found) >= count

        poll(there, f"{count} of the role {name} run")
        return sorted(found)

    def hosts(self, agent_type: str) -> list[int]:
        """The pids of this type's host processes."""
        assert self._process is not None
        return [
            pid
            for pid, _ in descendants(self._process.pid)
            if (words := _arguments(pid)) and "orchestration_agent" in words and agent_type in words
        ]

    def kill_role(self, name: str) -> None:
        """SIGKILL; the supervisor starts it again."""
        pid = self.role(name)
        os.kill(pid, signal.SIGKILL)
        poll(lambda: not _is_running(pid), f"the killed {name} is gone")

    def kill_server(self, name: str) -> None:
        """SIGKILL to `postgres`, `valkey` or `temporal`; the supervisor starts it again."""
        pid = self.server(name)
        os.kill(pid, signal.SIGKILL)
        poll(lambda: not _is_running(pid), f"the killed {name} is gone")

    def server(self, name: str) -> int:
        """The pid of a server's main process."""
        assert self._process is not None
        program = {"postgres": "postgres", "valkey": "valkey-server", "temporal": "temporal"}[name]
        for pid, _ in descendants(self._process.pid):
            if _parent(pid) == self._process.pid and Path("/proc", str(pid), "comm").read_text().strip() == program:
                return pid
        raise AssertionError(f"{name} does not run")

    # Talking to it -------------------------------------------------------------------------------------------

    def caller(self, tenant: str = "default", *roles: str) -> Caller:
        """Somebody with a token of that tenant; closed with the engine."""
        issuer = TokenIssuer.from_file(self.data_dir / "token-key.pem", "orchestrator", "orchestrator")
        token = issuer.issue(tenant=tenant, roles=list(roles) or ["admin"], subject=f"somebody of {tenant}")
        caller = Caller(self.announced["url"], token, tenant)
        self._callers.append(caller)
        return caller

    def command(self, *arguments: str) -> Any:
        """An `orchestrator` command's JSON."""
        result = subprocess.run(
            [ORCHESTRATOR, *arguments, "--data-dir", self.data_dir, "--json"],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return json.loads(result.stdout)

    def replays(self, tenant: str, execution_id: str) -> bool:
        """`orchestrator replay`: would the present code have decided as the history says?"""
        answer = self.command("replay", execution_id, "--tenant", tenant)
        return bool(answer["ok"])

    def temporal(self, verb: str, workflow_id: str, *arguments: str) -> str:
        """Temporal's own command, as an operator types it."""
        server = ["--address", self.announced["temporal_address"], "--namespace", self.announced["temporal_namespace"]]
        result = subprocess.run(
            [TEMPORAL, "workflow", verb, *server, "--workflow-id", workflow_id, *arguments],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def release(self, execution_id: str, *task_ids: str) -> None:
        """Let these tasks of agents of type `recorder`, which are `held`, go on, now or when they get there."""
        for task_id in task_ids:
            self.record.with_name(f"{self.record.name}.{execution_id}.{task_id}").touch()

    def recorded(self, execution_id: str) -> list[dict[str, Any]]:
        """What the agents of type `recorder` wrote down themselves, independently of the engine."""
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [line for line in lines if line["execution_id"] == execution_id]


@contextmanager
def running_engine(
    workers: int = 1, catalogue: Path | None = None, started_held_seconds: float = 0.1
) -> Iterator[RunningEngine]:
    """An engine of one's own, with an orderly end that leaves nothing behind. `catalogue`: in place of the tests'."""
    # Not pytest's own directory: PostgreSQL runs as another user when the tests run as root, and could not enter.
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-acceptance-"))
    directory.chmod(0o711)
    engine = RunningEngine(directory, workers, catalogue, started_held_seconds)
    try:
        engine.start()
        yield engine
        if engine.running:
            assert engine.stop() == 0
    finally:
        if engine.running:
            engine.kill()
        shutil.rmtree(directory)


def until(condition: Callable[[], Answer], what: str, deadline_seconds: float = 120.0) -> Answer:
    """Ask until the answer is truthy; the answer."""
    deadline = time.monotonic() + deadline_seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {deadline_seconds:g} s: {what}"
        time.sleep(0.02)
    return answer


def _arguments(pid: int) -> list[str]:
    try:
        return Path("/proc", str(pid), "cmdline").read_text("utf-8", "replace").split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def _is_running(pid: int) -> bool:
    try:
        state = Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
