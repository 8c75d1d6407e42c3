"""Commands run for real: in the sandbox that this system has, in each other one that it has, and in none.

Nothing is skipped: where there is no sandbox, what needs one is refused, and that is what the tests then look for.
"""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.contracts.hook_actions import HookAction
from engine.errors import ConfigurationError
from engine.settings import Settings
from hooks.actions.addresses import Resolve, resolve_by_system
from hooks.actions.command import SYSTEM_PATH, CommandRunner, check_command
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.sandbox.launch import Sandbox
from hooks.sandbox.probe import SandboxProbe, SandboxSetting
from hooks.secrets import EnvironmentSecrets, SecretStore

CANARY = "x  =  'untouched'\n"
OWNER = 54321
PWNED = "pwned"
"""The name of the file that an attack makes, in the working directory or outside of it."""


@dataclass
class Bench:
    """A working directory, what lies outside of it, and a way to run commands."""

    work_dir: Path
    outside: Path
    setting: SandboxSetting = "auto"
    settings: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    resolve: Resolve = resolve_by_system

    @property
    def canary(self) -> Path:
        return self.outside / "canary.py"

    def write(self, path: str, text: str) -> Path:
        file = self.work_dir / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    async def run(
        self,
        command: str,
        *arguments: str,
        timeout_seconds: float = 20.0,
        secrets: dict[str, str] | None = None,
        **event: Any,
    ) -> ActionOutcome:
        programs = await asyncio.to_thread(self._give_away) if self.setting == "off" and os.geteuid() == 0 else {}
        settings = Settings(_env_file=None, **{"hooks_sandbox": self.setting, **programs, **self.settings})
        runner = CommandRunner(
            settings,
            SecretStore([EnvironmentSecrets(self.secrets)]),
            probe=SandboxProbe(self.setting, bubblewrap=bubblewrap()),
            resolve=self.resolve,
        )
        action = HookAction(type="command", command=command, args=list(arguments), secrets=secrets or {})
        context = HookContext(
            tenant="default", trigger="post_task", subject="post_task", **({"work_dir": self.work_dir} | event)
        )
        return await runner.run(check_command(action, settings), context, timeout_seconds)

    def _give_away(self) -> dict[str, Any]:
        """As root, and without a sandbox, commands run as the owner, who must reach a Python to run pytest."""
        for path in (self.work_dir, *self.work_dir.rglob("*")):
            os.chown(path, OWNER, OWNER, follow_symlinks=False)
        programs = self.outside.parent / "programs"
        programs.mkdir(exist_ok=True)
        packages = Path(pytest.__file__).parent.parent
        shim = programs / "pytest"
        shim.write_text(f'#!/bin/sh\nPYTHONPATH={packages} exec /usr/bin/python3 -m pytest "$@"\n')
        shim.chmod(0o755)
        return {"hooks_command_path": (str(programs), str(Path(sys.executable).parent), *SYSTEM_PATH)}

    def assert_untouched(self) -> None:
        assert self.canary.read_text() == CANARY
        assert sorted(path.name for path in self.outside.iterdir()) == ["canary.py"]


def bubblewrap() -> Path | None:
    found = shutil.which("bwrap")
    return None if found is None else Path(found)


async def sandbox_of(setting: SandboxSetting) -> Sandbox | None:
    """None where this system does not have it."""
    try:
        return await SandboxProbe(setting, bubblewrap=bubblewrap()).sandbox()
    except ConfigurationError:
        return None


@pytest.fixture
def bench() -> Iterator[Bench]:
    # Not below pytest's own directory, which other users may not enter.
    directory = Path(os.path.realpath(tempfile.mkdtemp(prefix="hook-bench-")))
    directory.chmod(0o711)
    made = Bench(directory / "work", directory / "outside")
    made.work_dir.mkdir()
    made.outside.mkdir()
    made.canary.write_text(CANARY)
    try:
        yield made
        made.assert_untouched()
    finally:
        shutil.rmtree(directory)
