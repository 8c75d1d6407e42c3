"""Saga: a long transaction of steps, each undone in reverse order when the whole cannot be completed.

Undoing is the kernel's, for every pattern. What the saga adds is when not to undo yet (forward recovery), when not to
undo any more (pivots), and in what order.
"""

from engine.contracts.events import AuditEventType
from engine.contracts.kernel import ExecutionInput
from engine.contracts.patterns.saga import SagaPatternConfig
from workflows.kernel.desk import Desk
from workflows.kernel.policy import Policy
from workflows.kernel.state import Phase, RunState


class SagaPolicy(Policy):
    """Steps go out when their dependencies are done, each by itself: it is in the journal before the next begins."""

    def __init__(self, config: SagaPatternConfig) -> None:
        self.config = config

    def rolls_back(self, state: RunState) -> bool:
        return not passed_pivot(state, self.config)

    def undoes_side_by_side(self, state: RunState) -> bool:  # noqa: ARG002 - the same for all
        return self.config.undo_order == "side_by_side"

    def doubts_failures(self, state: RunState) -> bool:  # noqa: ARG002
        return self.config.failed_steps == "compensate"


class ForwardSagaPolicy(SagaPolicy):
    """With forward recovery: a step that was given up is done again a number of times, after a while.

    On the board: "<step>/forward" how often, "<step>/forward_due" when next.
    """

    coordinates = True

    def judges(self, state: RunState, i: int) -> bool:  # noqa: ARG002 - results stand as they are
        return False

    def judges_failure(self, state: RunState, i: int) -> bool:  # noqa: ARG002
        return True

    def react(self, desk: Desk) -> None:
        for i in sorted(desk.state.submitted):
            task_id = desk.state.specs[i].id
            if f"{task_id}/forward_due" in desk.state.board:
                self._again_when_due(desk, i)
            else:
                self._recover(desk, i)

    def next_due_ms(self, state: RunState) -> int | None:
        times = (state.board.get(f"{state.specs[i].id}/forward_due") for i in state.submitted)
        return min((time for time in times if time is not None), default=None)

    def _recover(self, desk: Desk, i: int) -> None:
        submission = desk.state.submitted[i]
        task_id = submission.task_id
        so_far = desk.get(f"{task_id}/forward", 0)
        past_pivot = passed_pivot(desk.state, self.config)
        allowed = self.config.attempts_after_pivot if past_pivot else self.config.forward_attempts
        if so_far >= allowed:
            desk.fail(i, submission.code, submission.message)
            return
        delay_seconds = self.config.forward_delay_seconds
        desk.post(f"{task_id}/forward", so_far + 1)
        desk.post(f"{task_id}/forward_due", desk.now_ms + int(delay_seconds * 1000))
        desk.say(
            AuditEventType.FORWARD_RECOVERY,
            task_id=task_id,
            recovery=so_far + 1,
            recoveries_max=allowed,
            delay_seconds=delay_seconds,
            past_pivot=past_pivot,
            error={"code": submission.code, "message": submission.message},
        )

    def _again_when_due(self, desk: Desk, i: int) -> None:
        key = f"{desk.state.specs[i].id}/forward_due"
        if desk.get(key) <= desk.now_ms:
            desk.post(key, None)
            desk.again(i)


def passed_pivot(state: RunState, config: SagaPatternConfig) -> bool:
    """Whether there is no way back."""
    return any(
        name in state.index and state.tasks[state.index[name]].phase is Phase.COMPLETED for name in config.pivots
    )


def saga_policy(launch: ExecutionInput) -> SagaPolicy:
    """Judging every step costs ticks: only where forward recovery is asked for."""
    config = SagaPatternConfig.model_validate(launch.pattern_config)
    forward = config.forward_attempts > 0 or config.pivots
    return ForwardSagaPolicy(config) if forward else SagaPolicy(config)
