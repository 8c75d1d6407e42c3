"""Commands: checked against the tables when a hook is registered and again when it runs, then run in the sandbox."""

from engine.contracts.hook_actions import HookAction
from engine.settings import Settings
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome


class CheckedCommand:
    """An action that passed `check_command`."""

    program: str
    arguments: tuple[str, ...]


def check_command(action: HookAction, settings: Settings) -> CheckedCommand:
    """Raises InvalidHookActionError with `reason`, `field` and `remedy`."""
    raise NotImplementedError


class CommandRunner:
    async def run(self, checked: CheckedCommand, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        raise NotImplementedError
