"""Which sandbox this system has: found out by running one, once, since settings and kernels forbid in many ways."""

import asyncio
import math
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import Final, Literal

from engine.errors import ConfigurationError
from engine.observability.log import get_logger
from hooks.sandbox.launch import Sandbox, SandboxFailedError
from hooks.sandbox.spec import Command, Limits, SandboxMode

SandboxSetting = Literal["auto", "namespaces", "bubblewrap", "off"]

PROBE_LIMITS: Final = Limits(10.0, 256 * 1024**2, 16, 1024**2, 1024**2, 4096, 65536)
PROBE_PROGRAM: Final = "/bin/sh"
PROBE_SCRIPT: Final = 'test ! -e /etc/shadow && test ! -e "$1" && echo isolated > probe'
NONE_REMEMBERED_SECONDS: Final = 60.0
"""Where there is no sandbox, it is looked for again after so long."""


log = get_logger(__name__)


class SandboxProbe:
    """Answers which sandbox there is; asks the system once, and now and then while there is none."""

    def __init__(self, setting: SandboxSetting, *, bubblewrap: Path | None = None) -> None:
        self._setting = setting
        self._bubblewrap = bubblewrap
        self._lock = asyncio.Lock()
        self._found: Sandbox | None = None
        self._ask_again_at = math.inf

    async def sandbox(self) -> Sandbox:
        """Raises ConfigurationError when the one that the operator asked for by name does not work.

        Raises SandboxFailedError when that could not be found out: a busy machine must not pass for one that has none.
        """
        async with self._lock:
            if self._found is None or time.monotonic() > self._ask_again_at:
                self._found = await self._find()
                none_found = self._setting == "auto" and not self._found.isolates
                self._ask_again_at = time.monotonic() + NONE_REMEMBERED_SECONDS if none_found else math.inf
                log.info("hooks.sandbox", mode=self._found.mode)
            return self._found

    async def _find(self) -> Sandbox:
        if self._setting == "off":
            return Sandbox("limits")
        reasons = []
        for candidate in self._candidates():
            if candidate.mode == "bubblewrap" and os.geteuid() == 0:
                # Its user namespace has root alone: there is nobody else in it to run commands as.
                reasons.append("bubblewrap: commands of an engine that runs as root would run as root")
                continue
            reason = await _does_not_work(candidate)
            if reason is None:
                return candidate
            reasons.append(f"{candidate.mode}: {reason}")
        if self._setting != "auto":
            found = "; ".join(reasons) or "bwrap is not installed"
            raise ConfigurationError(f"ORCHESTRATOR_HOOKS_SANDBOX={self._setting} does not work here: {found}")
        log.warning("hooks.sandbox_unavailable", reasons=reasons)
        return Sandbox("limits")

    def _candidates(self) -> list[Sandbox]:
        found = self._bubblewrap or (Path(path) if (path := shutil.which("bwrap")) else None)
        modes: tuple[SandboxMode, ...] = ("namespaces", "bubblewrap")
        wanted = [mode for mode in modes if self._setting in ("auto", mode)]
        return [Sandbox(mode, found) for mode in wanted if mode != "bubblewrap" or found is not None]


async def _does_not_work(sandbox: Sandbox) -> str | None:
    """Whether it runs a command, hides what it must hide and lets the working directory be written to."""
    directory, program = await asyncio.to_thread(_probe_files)
    work_dir, outside = directory / "work", directory / "outside"
    try:
        command = Command(
            program=program,
            argv=("sh", "-c", PROBE_SCRIPT, "probe", str(outside)),
            environment={},
            work_dir=work_dir,
            limits=PROBE_LIMITS,
        )
        ended = await sandbox.run(command)
        if ended.reason == "time":
            raise _TooSlowError("the sandbox could not be tried out in time")
        if ended.exit_code != 0 or not await asyncio.to_thread((work_dir / "probe").is_file):
            return f"the probe ended with {ended.exit_code or ended.reason}"
        return None
    except _TooSlowError:
        raise
    except SandboxFailedError as error:
        return error.message
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


class _TooSlowError(SandboxFailedError):
    """Whether it works is not known."""

    transient = True


def _probe_files() -> tuple[Path, Path]:
    directory = Path(os.path.realpath(tempfile.mkdtemp(prefix="hook-probe-")))
    (directory / "work").mkdir()
    (directory / "outside").touch()
    return directory, Path(os.path.realpath(PROBE_PROGRAM))
