"""All actions behind one door: what the API asks at registration, and what the hook worker runs."""

from engine.contracts.hook_actions import HookAction
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome


class HookActions:
    """`check` at registration; `run` checks again, since settings and functions change between the two."""

    def check(self, action: HookAction) -> None:
        """Raises InvalidHookActionError with `reason`, `field` and `remedy`."""
        raise NotImplementedError

    async def run(self, action: HookAction, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        """Never raises but on cancellation: what is refused comes back as an outcome with `refused`."""
        raise NotImplementedError

    async def close(self) -> None:
        """Wait briefly for what still runs, then leave it."""
        raise NotImplementedError
