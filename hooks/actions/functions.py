"""Functions that the operator registered by name as entry points of the group `orchestrator.hooks`."""

from typing import Final

from engine.contracts.hook_actions import HookAction
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome

ENTRY_POINT_GROUP: Final = "orchestrator.hooks"


class CheckedFunction:
    """An action that passed `FunctionRegistry.check`."""

    name: str
    arguments: tuple[str, ...]


class FunctionRegistry:
    def names(self) -> tuple[str, ...]:
        raise NotImplementedError

    def check(self, action: HookAction) -> CheckedFunction:
        """Raises InvalidHookActionError with `reason`, `field` and `remedy`."""
        raise NotImplementedError

    async def run(self, checked: CheckedFunction, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        raise NotImplementedError
