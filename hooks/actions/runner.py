"""All actions behind one door: what the API asks at registration, and what the hook worker runs."""

import time
from collections.abc import Sequence

from engine.contracts.hook_actions import HookAction
from engine.errors import InvalidHookActionError
from engine.settings import Settings
from hooks.actions.command import CommandRunner, check_command
from hooks.actions.context import HookContext
from hooks.actions.functions import FunctionRegistry
from hooks.actions.jobs import HookJobs
from hooks.actions.outcome import ActionOutcome
from hooks.actions.results import refusal_outcome
from hooks.secrets import SecretSource, SecretStore, SecretValues


class HookActions:
    """`check` at registration; `run` checks again, since settings and functions change between the two."""

    def __init__(
        self,
        settings: Settings,
        *,
        commands: CommandRunner | None = None,
        functions: FunctionRegistry | None = None,
        secret_sources: Sequence[SecretSource] = (),
        jobs: HookJobs | None = None,
    ) -> None:
        secrets = SecretStore.from_settings(settings, *secret_sources)
        self._settings = settings
        self._commands = commands or CommandRunner(settings, secrets, jobs=jobs)
        self.functions = functions or FunctionRegistry(settings, secrets)

    def check(self, action: HookAction) -> None:
        """Raises InvalidHookActionError with `reason`, `field` and `remedy`."""
        if action.type == "command":
            check_command(action, self._settings)
        else:
            self.functions.check(action)

    async def run(self, action: HookAction, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        """Never raises but on cancellation: what is refused comes back as an outcome with `refused`."""
        started_at = time.monotonic()
        try:
            if action.type == "command":
                return await self._commands.run(check_command(action, self._settings), context, timeout_seconds)
            return await self.functions.run(self.functions.check(action), context, timeout_seconds)
        except InvalidHookActionError as error:
            return refusal_outcome(error, SecretValues({}), started_at)

    async def close(self) -> None:
        """Take no more function calls; commands end with those who wait for them."""
        await self.functions.close()
