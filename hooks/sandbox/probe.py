"""Which sandbox this system has: found out by running one, once, since settings and kernels forbid in many ways."""

import asyncio
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final, Literal

from engine.errors import ConfigurationError
from engine.observability.log import get_logger
from hooks.sandbox.launch import Sandbox, SandboxFailedError
from hooks.sandbox.spec import Command, Limits, SandboxMode

SandboxSetting = Literal["auto", "namespaces", "bubblewrap", "off"]

PROBE_LIMITS: Final = Limits(10.0, 256 * 1024**2, 16, 1024**2, 1024**2, 4096, 65536)
PROBE_PROGRAM: Final = "/bin/sh"
PROBE_SCRIPT: Final = "test ! -e /etc/shadow && test ! -e /home && echo isolated > probe"

log = get_logger(__name__)


class SandboxProbe:
    """Answers which sandbox there is; asks the system once."""

    def __init__(self, setting: SandboxSetting, *, bubblewrap: Path | None = None) -> None:
        self._setting = setting
        self._bubblewrap = bubblewrap
        self._lock = asyncio.Lock()
        self._found: Sandbox | None = None

    async def sandbox(self) -> Sandbox:
        """Raises ConfigurationError when the one that the operator asked for by name does not work."""
        async with self._lock:
            if self._found is None:
                self._found = await self._find()
                log.info("hooks.sandbox", mode=self._found.mode)
            return self._found

    async def _find(self) -> Sandbox:
        if self._setting == "off":
            return Sandbox("limits")
        reasons = []
        for candidate in self._candidates():
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
    try:
        command = Command(
            program=program,
            argv=("sh", "-c", PROBE_SCRIPT),
            environment={},
            work_dir=directory,
            limits=PROBE_LIMITS,
        )
        ended = await sandbox.run(command)
        if ended.exit_code != 0 or not await asyncio.to_thread((directory / "probe").is_file):
            return f"the probe ended with {ended.exit_code or ended.reason}"
        return None
    except SandboxFailedError as error:
        return error.message
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


def _probe_files() -> tuple[Path, Path]:
    return Path(os.path.realpath(tempfile.mkdtemp(prefix="hook-probe-"))), Path(os.path.realpath(PROBE_PROGRAM))
