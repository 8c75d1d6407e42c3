"""Each tenant's working directory: the only place that its commands can write to."""

import asyncio
from pathlib import Path
from typing import Final

from engine.contracts.hook_actions import HookAction
from engine.settings import Settings
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.running import Actions

WORK_FOLDER: Final = "work"


class InWorkDirectories:
    """Actions that are told where their tenant's working directory is; it is made when it is first needed."""

    def __init__(self, actions: Actions, settings: Settings) -> None:
        self._actions = actions
        self._root = (settings.hooks_work_dir or settings.data_dir / WORK_FOLDER).absolute()

    async def run(self, action: HookAction, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        if action.type == "command" and context.work_dir is None:
            work_dir = self._root / context.tenant
            await asyncio.to_thread(_make, work_dir)
            context = context.model_copy(update={"work_dir": work_dir})
        return await self._actions.run(action, context, timeout_seconds)


def _make(work_dir: Path) -> None:
    work_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
