"""A child process of the supervisor: a server or a role of the engine.

It has a session of its own, so that Ctrl-C in a terminal reaches the supervisor alone and the order of stopping stays
ours; it writes to a log file; and it dies when the supervisor does, however that happens (see `spawn`).
"""

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from engine.embedded import spawn
from engine.errors import ConfigurationError, UnavailableError

LOG_ROTATE_BYTES: Final = 16 * 1024 * 1024
LOG_TAIL_BYTES: Final = 4096
PROBE_INTERVAL_SECONDS: Final = 0.02
PROBE_TIMEOUT_SECONDS: Final = 5.0
KILL_WAIT_SECONDS: Final = 10.0

Probe = Callable[[], Awaitable[bool]]


class ChildProcess:
    """One program, started at most once. `wait` may be called by several tasks."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str | Path],
        *,
        directory: Path,
        log_file: Path,
        environment: Mapping[str, str],
        user_id: int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        death_signal: signal.Signals = signal.SIGKILL,
        kept_open: Sequence[int] = (),
    ) -> None:
        self.name = name
        self.log_file = log_file
        self._arguments = [str(argument) for argument in arguments]
        self._directory = directory
        self._environment = dict(environment)
        self._user_id = user_id
        self._stop_signal = stop_signal
        self._death_signal = death_signal
        self._kept_open = tuple(kept_open)
        self._process: asyncio.subprocess.Process | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.returncode is None

    @property
    def returncode(self) -> int | None:
        return None if self._process is None else self._process.returncode

    async def start(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            # The kernel's parent-death signal follows the thread that forked, not the process.
            raise ConfigurationError(f"{self.name} must be started from the main thread")
        log = _open_log(self.log_file)
        try:
            self._log_start = os.fstat(log).st_size
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                spawn.__file__,
                str(os.getpid()),
                str(int(self._death_signal)),
                "-" if self._user_id is None else str(self._user_id),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=asyncio.subprocess.STDOUT,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
                pass_fds=self._kept_open,
            )
        except OSError as error:
            raise ConfigurationError(f"{self.name} cannot be started: {error}") from error
        finally:
            os.close(log)

    async def wait(self) -> int:
        """Until it has ended; the exit code, negative for a signal."""
        if self._process is None:
            raise UnavailableError(f"{self.name} was not started")
        return await self._process.wait()

    async def wait_ready(self, probe: Probe, timeout_seconds: float) -> None:
        """Until `probe` answers True. Raises UnavailableError with the log's end if it exits or takes too long."""
        exited = asyncio.create_task(self.wait())
        try:
            async with asyncio.timeout(timeout_seconds):
                while not exited.done():
                    if await _answers(probe):
                        return
                    await asyncio.wait([exited], timeout=PROBE_INTERVAL_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(
                f"{self.name} is not ready after {timeout_seconds:g} s; {self.last_words()}"
            ) from error
        finally:
            exited.cancel()
        raise UnavailableError(
            f"{self.name} ended with exit code {self.returncode} before it was ready; {self.last_words()}"
        )

    async def stop(self, timeout_seconds: float) -> int | None:
        """Ask it to end, then make it end. The exit code; None if it was never started."""
        process = self._process
        if process is None:
            return None
        if process.returncode is None:
            self.send(self._stop_signal)
            try:
                await asyncio.wait_for(process.wait(), timeout_seconds)
            except TimeoutError:
                self.send(signal.SIGKILL)
        return await asyncio.wait_for(process.wait(), KILL_WAIT_SECONDS)

    def send(self, number: signal.Signals) -> None:
        """Does nothing when it has ended."""
        if self._process is not None and self._process.returncode is None:
            try:
                self._process.send_signal(number)
            except ProcessLookupError:
                return

    def log_tail(self) -> str:
        """The end of what it has logged since it was started."""
        with self.log_file.open("rb") as log:
            end = log.seek(0, os.SEEK_END)
            log.seek(max(self._log_start, end - LOG_TAIL_BYTES))
            return log.read().decode("utf-8", "replace").strip()

    def last_words(self) -> str:
        return f"the end of {self.log_file}:\n{self.log_tail() or '(empty)'}"


async def _answers(probe: Probe) -> bool:
    try:
        return await asyncio.wait_for(probe(), PROBE_TIMEOUT_SECONDS)
    except (OSError, EOFError, TimeoutError):
        return False


def _open_log(log_file: Path) -> int:
    """Append; the previous file is kept once it is large, so that a restart loop cannot fill the disk."""
    log_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if log_file.exists() and log_file.stat().st_size > LOG_ROTATE_BYTES:
        log_file.replace(log_file.with_suffix(log_file.suffix + ".1"))
    return os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
