"""Blocking hooks: what they guard is held until an errand has asked them, and then goes on or does not.

A task that hooks guard stands in `Phase.GUARDED` once all else lets it start. What they answered is on the board:
"<task>/hooks" that they let it pass, "<task>/input" what it is given instead of its own input, and "/hooks/<trigger>"
for the execution as a whole. A task runs again from a checkpoint: they are asked again.
"""

import json
from collections.abc import Iterable
from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.hooks import HookTrigger, Verdict
from engine.contracts.kernel import Errand, ErrandOutcome, TerminalError
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX
from workflows.kernel.audit import AuditTrail
from workflows.kernel.fold import Fold
from workflows.kernel.state import Phase, RunState, passed_key
from workflows.kernel.transitions import Transitions

ERRAND_KIND: Final = "hooks"
HOOK_VETO: Final = "HOOK_VETO"
ENDING_KEY: Final = "/hooks/ending"
INPUT_BYTES_MAX: Final = 16 * 1024
"""Of what a hook gives a task instead of its input: it stands in each of the task's assignments, and in the journal."""


class Guards:
    """One tick's part in it. Costs nothing where the launch says that there are no blocking hooks."""

    def __init__(self, change: Transitions, trail: AuditTrail, fold: Fold) -> None:
        self.change = change
        self.state: RunState = change.state
        self.trail = trail
        self.fold = fold
        self.refusal: TerminalError | None = None
        """The execution as a whole may not begin, or not end well."""

    @property
    def holds_all(self) -> bool:
        """Nothing starts until the hooks before the workflow have let it."""
        return self._asks(HookTrigger.PRE_WORKFLOW)

    @property
    def holds_end(self) -> bool:
        return self._asks(HookTrigger.POST_WORKFLOW)

    @property
    def ending(self) -> bool:
        """It was about to be completed, and waits for the hooks."""
        return self.state.launch.hooks is not None and ENDING_KEY in self.state.board

    @property
    def lets_end(self) -> bool:
        return self.ending and not self.holds_end and self.state.status is ExecutionStatus.EXECUTING

    def await_end(self) -> None:
        self.change.post(ENDING_KEY, True)
        self._ask_about_workflow(HookTrigger.POST_WORKFLOW)

    def _asks(self, trigger: HookTrigger) -> bool:
        hooks = self.state.launch.hooks
        if hooks is None:
            return False
        wanted = hooks.pre_workflow if trigger is HookTrigger.PRE_WORKFLOW else hooks.post_workflow
        return wanted and workflow_key(trigger) not in self.state.board

    def carry_out(self, outcomes: Iterable[ErrandOutcome]) -> None:
        """Take in what hooks have answered."""
        state = self.state
        for outcome in outcomes:
            errand = state.errands.get(outcome.key)
            if errand is None or errand.kind != ERRAND_KIND:
                continue
            self.change.end_errand(outcome.key)
            verdict = verdict_of(outcome)
            if errand.task_id:
                self._settle_task(errand.task_id, verdict)
            else:
                self._settle_workflow(HookTrigger(errand.input["trigger"]), verdict)

    def begin(self) -> None:
        """Ask for what is held now."""
        state = self.state
        if state.status is not ExecutionStatus.EXECUTING:
            return
        if self.holds_all:
            self._ask_about_workflow(HookTrigger.PRE_WORKFLOW)
            return
        for i in sorted(state.guarded):
            task = state.specs[i]
            self._send(f"hooks/{task.id}/{state.epoch}", HookTrigger.PRE_TASK, task.id, task.role)

    def _ask_about_workflow(self, trigger: HookTrigger) -> None:
        self._send(f"hooks//{trigger.value}/{self.state.epoch}", trigger, "", "")

    def _send(self, key: str, trigger: HookTrigger, task_id: str, role: str) -> None:
        if key not in self.state.errands:
            document = {"trigger": trigger.value} | ({"role": role} if role else {})
            self.change.begin_errand(Errand(key=key, kind=ERRAND_KIND, task_id=task_id, input=document))

    def _settle_task(self, task_id: str, verdict: Verdict) -> None:
        i = self.state.index.get(task_id)
        if i is None or self.state.tasks[i].phase is not Phase.GUARDED:
            return  # it was cancelled meanwhile
        if verdict.decision == "veto":
            self._vetoed(HookTrigger.PRE_TASK, verdict, task_id=task_id)
            self.fold.fail_waiting(i, HOOK_VETO, _reason(verdict))
            return
        self.change.post(passed_key(task_id), True)
        if verdict.input is not None:
            self.change.post(input_key(task_id), verdict.input)
        self.change.admit(task_id)

    def _settle_workflow(self, trigger: HookTrigger, verdict: Verdict) -> None:
        if verdict.decision == "proceed":
            self.change.post(workflow_key(trigger), True)
            return
        self._vetoed(trigger, verdict)
        self.refusal = TerminalError(error_code=HOOK_VETO, error_message=_reason(verdict))

    def _vetoed(self, trigger: HookTrigger, verdict: Verdict, **where: Any) -> None:
        self.trail.add(
            AuditEventType.HOOK_VETOED,
            hook_id=verdict.hook_id,
            hook_name=verdict.hook_name,
            trigger=trigger.value,
            reason=verdict.reason,
            **where,
        )


def verdict_of(outcome: ErrandOutcome) -> Verdict:
    """A guard that cannot be asked guards: what it would have said is not known."""
    if not outcome.ok:
        return Verdict(decision="veto", reason=f"{outcome.code}: {outcome.message}")
    verdict = Verdict.model_validate(outcome.value)
    if verdict.input is not None:
        size_bytes = len(json.dumps(verdict.input, ensure_ascii=False).encode("utf-8", "replace"))
        if size_bytes > INPUT_BYTES_MAX:
            reason = f"a hook's input has {size_bytes} bytes: {INPUT_BYTES_MAX} may go with a task"
            return verdict.model_copy(update={"decision": "veto", "reason": reason, "input": None})
    return verdict


def input_key(task_id: str) -> str:
    return f"{task_id}/input"


def workflow_key(trigger: HookTrigger) -> str:
    return f"/hooks/{trigger.value}"


def _reason(verdict: Verdict) -> str:
    by = f"hook {verdict.hook_name}: " if verdict.hook_name else ""
    return f"{by}{verdict.reason or 'vetoed'}"[:ERROR_MESSAGE_LENGTH_MAX]
