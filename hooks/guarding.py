"""Asking the blocking hooks before something: in their order, each told what the one before has changed.

A hook answers with what it prints or returns. A JSON object may say `"decision": "veto"` with a `reason`, or give the
task another `input`; anything else, and no output, means that it may go on. A hook that fails has not answered: its
`on_error` decides then.
"""

import asyncio
from dataclasses import dataclass
from typing import Any, Final
from uuid import NAMESPACE_OID, UUID, uuid5

import orjson

from engine.contracts.hooks import CircuitState, HookDetail, HookMode, HookTrigger, Verdict
from engine.contracts.kernel import ErrandRequest
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX
from engine.hook_ports import HookDeliveries, HookStore
from engine.observability.log import get_logger
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.directory import HookDirectory
from hooks.running import Actions, record_of, run_hook
from hooks.subjects import TASK_STARTING, WORKFLOW_ENDING, WORKFLOW_STARTING, subject_of, task_fields

log = get_logger(__name__)

EVENT_TYPES: Final = {
    HookTrigger.PRE_TASK: TASK_STARTING,
    HookTrigger.PRE_WORKFLOW: WORKFLOW_STARTING,
    HookTrigger.POST_WORKFLOW: WORKFLOW_ENDING,
}


@dataclass(frozen=True, slots=True)
class Guarded:
    """What is about to happen."""

    trigger: HookTrigger
    workflow_name: str
    task_id: str = ""
    role: str = ""
    input: dict[str, Any] | None = None

    @property
    def subject(self) -> str:
        fields = task_fields(self.task_id, self.role) if self.task_id else {}
        return subject_of(EVENT_TYPES[self.trigger], self.workflow_name, fields)


class Guardian:
    """Runs blocking hooks in a hook worker's process."""

    def __init__(
        self,
        directory: HookDirectory,
        store: HookStore,
        deliveries: HookDeliveries,
        actions: Actions,
        slots: asyncio.Semaphore,
    ) -> None:
        self._directory = directory
        self._store = store
        self._deliveries = deliveries
        self._actions = actions
        self._slots = slots

    async def verdict(self, request: ErrandRequest, guarded: Guarded) -> Verdict:
        """Raises UnavailableError when the hooks cannot be looked up: it is asked again then."""
        index = await self._directory.index(request.tenant)
        rules = index.matching(guarded.trigger, HookMode.BLOCKING, guarded.subject)
        if not rules:
            return Verdict()
        found = await self._store.runnable(request.tenant, [rule.hook_id for rule in rules])
        hooks = {hook.hook_id: hook for hook in found}
        given, changed = guarded.input, False
        for hook in [hooks[rule.hook_id] for rule in rules if rule.hook_id in hooks]:
            answer = await self._ask(request, guarded, hook, given)
            if answer.decision == "veto":
                return answer
            if answer.input is not None and guarded.trigger is HookTrigger.PRE_TASK:
                given, changed = answer.input, True
        return Verdict(input=given if changed else None)

    async def _ask(
        self, request: ErrandRequest, guarded: Guarded, hook: HookDetail, given: dict[str, Any] | None
    ) -> Verdict:
        if hook.circuit.state is CircuitState.OPEN:
            await self._deliveries.skipped(request.tenant, [hook.hook_id])
            return _failed(hook, "it is switched off after repeated failures")
        run_id = uuid5(NAMESPACE_OID, f"{request.tenant}/{request.execution_id}/{request.errand.key}/{hook.hook_id}")
        context = _context(request, guarded, hook, given).model_copy(update={"run_key": str(run_id)})
        outcome, runs = await run_hook(self._actions, hook, context, self._slots)
        run = record_of(
            hook,
            run_id,
            outcome,
            runs,
            execution_id=UUID(request.execution_id),
            trace_id=request.trace_id,
            subject=guarded.subject,
            trigger=guarded.trigger,
        )
        announcement = {
            "hook_id": str(hook.hook_id),
            "hook_name": hook.name,
            "trigger": guarded.trigger.value,
            "event_matched": EVENT_TYPES[guarded.trigger],
            "subject": guarded.subject,
        } | ({"task_id": guarded.task_id} if guarded.task_id else {})
        recorded = await self._deliveries.record(
            request.tenant, [run.model_copy(update={"announcement": announcement})]
        )
        for hook_id in recorded.switched_off:
            log.error("hook.switched_off", tenant=request.tenant, hook_id=str(hook_id))
        return _answer(hook, outcome)


def _context(request: ErrandRequest, guarded: Guarded, hook: HookDetail, given: dict[str, Any] | None) -> HookContext:
    return HookContext(
        tenant=request.tenant,
        trigger=guarded.trigger.value,
        subject=guarded.subject,
        hook_id=hook.hook_id,
        hook_name=hook.name,
        event_type=EVENT_TYPES[guarded.trigger],
        execution_id=UUID(request.execution_id),
        workflow_id=UUID(request.workflow_id),
        workflow_name=guarded.workflow_name,
        task_id=guarded.task_id or None,
        role=guarded.role or None,
        input=given,
    )


def _answer(hook: HookDetail, outcome: ActionOutcome) -> Verdict:
    if outcome.status != "completed":
        return _failed(hook, outcome.error_message or outcome.error_code or outcome.status)
    if outcome.output_truncated:
        # What is left of a veto reads like no answer at all, or like another one.
        return _failed(hook, "its output is longer than what is kept of it")
    try:
        said = orjson.loads(outcome.output)
    except orjson.JSONDecodeError:
        return Verdict()
    if not isinstance(said, dict):
        return Verdict()
    decision, changed = said.get("decision", "proceed"), said.get("input")
    if decision not in ("proceed", "veto"):
        return _failed(hook, 'its answer\'s "decision" is neither "proceed" nor "veto"')
    if changed is not None and not isinstance(changed, dict):
        return _failed(hook, 'its answer\'s "input" is not an object')
    if decision == "veto":
        reason = str(said.get("reason") or "")[:ERROR_MESSAGE_LENGTH_MAX]
        return Verdict(decision="veto", reason=reason, hook_id=str(hook.hook_id), hook_name=hook.name)
    return Verdict(input=changed)


def _failed(hook: HookDetail, why: str) -> Verdict:
    if hook.on_error == "proceed":
        return Verdict()
    return Verdict(
        decision="veto",
        reason=f"it gave no answer: {why}"[:ERROR_MESSAGE_LENGTH_MAX],
        hook_id=str(hook.hook_id),
        hook_name=hook.name,
    )
