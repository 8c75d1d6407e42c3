"""The engine's own processes (gateway, worker, host fleet), kept running beside the embedded servers."""

import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from engine.embedded.backoff import Backoff
from engine.embedded.engine import Report, no_report
from engine.embedded.loopback_http import exchange
from engine.embedded.process import ChildProcess, Probe
from engine.errors import EngineError, UnavailableError

STOP_SECONDS: Final = 10.0
STARTS_BEFORE_READY_MAX: Final = 3
POLL_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class RoleSpec:
    """What to run. `arguments` follow the interpreter."""

    name: str
    arguments: tuple[str, ...]
    stop_seconds: float = STOP_SECONDS
    passing_exit_codes: frozenset[int] = frozenset()
    """With these it says that a server did not answer, which may pass: ending so is never a reason to give up."""


def command_role(name: str, *arguments: str, passing_exit_codes: frozenset[int] = frozenset()) -> RoleSpec:
    """A role that is a command of `orchestrator`; -P keeps the current directory's modules out."""
    return RoleSpec(name, ("-P", "-m", "cli", *arguments), passing_exit_codes=passing_exit_codes)


class Role:
    """Runs one role, and runs it again whenever it ends, until it is stopped."""

    def __init__(
        self, spec: RoleSpec, environment: Mapping[str, str], log_directory: Path, report: Report = no_report
    ) -> None:
        self.spec = spec
        self.starts = 0
        self._environment = environment
        self._log_file = log_directory / f"{spec.name}.log"
        self._report = report
        self._ends = 0
        self._last_words = ""
        self._process: ChildProcess | None = None
        self._loop: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None and self._process.running else None

    async def start(self) -> None:
        process = await self._spawn()
        self._loop = asyncio.create_task(self._keep_running(process), name=self.spec.name)

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it takes too long. It is not started again."""
        # First, so that it does not start another one meanwhile.
        if self._loop is not None:
            self._loop.cancel()
            await asyncio.gather(self._loop, return_exceptions=True)
        if self._process is not None:
            await self._process.stop(self.spec.stop_seconds)

    def failing(self) -> str | None:
        """Why it is of no use to wait for it any longer; only meaningful while it was never ready."""
        if self._ends < STARTS_BEFORE_READY_MAX:
            return None
        return f"{self.spec.name} ended {self._ends} times while starting; {self._last_words}"

    def last_words(self) -> str:
        """What it logged last, of its present or its last process."""
        return "" if self._process is None else f"{self.spec.name}: {self._process.last_words()}"

    async def _spawn(self) -> ChildProcess:
        process = ChildProcess(
            self.spec.name,
            [sys.executable, *self.spec.arguments],
            directory=Path.cwd(),
            log_file=self._log_file,
            environment=self._environment,
        )
        await process.start()
        self._process = process
        self.starts += 1
        return process

    async def _keep_running(self, process: ChildProcess) -> None:
        backoff = Backoff()
        while True:
            started = time.monotonic()
            code = await process.wait()
            if code not in self.spec.passing_exit_codes:
                self._ends += 1
            self._last_words = process.last_words()
            delay = backoff.after_running(time.monotonic() - started)
            self._report(f"{self.spec.name} ended with exit code {code}; starting it again in {delay:g} s")
            await asyncio.sleep(delay)
            try:
                process = await self._spawn()
            except EngineError as error:
                self._report(f"{self.spec.name} cannot be started again: {error.message}")


async def stop_roles(roles: Sequence[Role]) -> None:
    await asyncio.gather(*(role.stop() for role in roles))


async def wait_for_roles(roles: Sequence[Role], probe: Probe, timeout_seconds: float) -> None:
    """Until `probe` answers True. Raises UnavailableError with what the roles said, early when one cannot start."""
    try:
        async with asyncio.timeout(timeout_seconds):
            while not await _passes(probe):
                for role in roles:
                    reason = role.failing()
                    if reason is not None:
                        raise UnavailableError(reason)
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError as error:
        said = "\n".join(role.last_words() for role in roles)
        raise UnavailableError(f"the engine is not ready after {timeout_seconds:g} s\n{said}".rstrip()) from error


def http_ready(host: str, port: int, path: str) -> Probe:
    """True once a GET answers 200."""

    async def probe() -> bool:
        status, _ = await exchange(host, port, "GET", path)
        return status == 200

    return probe


async def _passes(probe: Probe) -> bool:
    try:
        return await probe()
    except OSError:
        return False
