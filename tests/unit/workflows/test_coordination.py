"""What the kernel offers patterns: judged ends, own tasks, a board, errands; with a pattern that uses it all."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, TerminalError
from tests.unit.workflows.drill import Drill, launch_input, task
from workflows.kernel.desk import Desk, NoRoomError
from workflows.kernel.due import next_due_ms
from workflows.kernel.policy import Policy
from workflows.kernel.state import Phase, RunState


class ReviewPolicy(Policy):
    """Every result is reviewed by another agent's task; a review that says no sends the task back; failures are sent to
    an errand, which resolves them."""

    coordinates = True

    def judges(self, state: RunState, i: int) -> bool:
        return True

    def react(self, desk: Desk) -> None:
        for i in desk.submitted:
            if not desk.is_submitted(i):
                continue
            submission, spec = desk.state.submitted[i], desk.state.specs[i]
            if spec.asked:
                self._reviewed(desk, i)
            elif submission.failed:
                desk.send(f"rescue/{spec.id}", "rescue", about=i, input={"why": submission.message})
            else:
                n = desk.get(f"{spec.id}/reviews", 0) + 1
                desk.post(f"{spec.id}/reviews", n)
                note = {"result": submission.result}
                desk.ask(i, f"{spec.id}-review-{n}", agent="worker-1", action="review", note=note)
        for errand, outcome in desk.outcomes.values():
            i = desk.state.index[errand.task_id]
            if outcome.ok:
                desk.resolve(i, outcome.value)
            else:
                desk.fail(i, outcome.code, outcome.message)

    def _reviewed(self, desk: Desk, i: int) -> None:
        submission = desk.state.submitted[i]
        about = desk.state.index[desk.state.specs[i].id.partition("-review-")[0]]
        if submission.failed:
            desk.drop(i)
            desk.end(ExecutionStatus.FAILED, TerminalError(error_code="NO_REVIEW", error_message="nobody reviews"))
            return
        desk.accept(i)
        if submission.result == "no":
            desk.again(about, {"feedback": submission.result}, "the reviewer says no")
        else:
            desk.accept(about)

    def next_due_ms(self, state: RunState) -> int | None:
        due: int | None = state.board.get("/due")
        return due


def drill(*tasks: object, **fields: object) -> Drill:
    made = tasks or (task("a"), task("b", (0,)))
    return Drill(launch_input(*made, **fields), policy=ReviewPolicy())  # type: ignore[arg-type]


def test_a_judged_result_completes_its_task_only_when_the_pattern_accepts_it() -> None:
    run = drill()
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    decision = run.tick()
    assert run.phase("a") is Phase.SUBMITTED
    assert run.phase("b") is Phase.PENDING
    review = run.attempt("a-review-1")
    assert review.agent_id == "worker-1"
    assert decision.delta.assigned[0].note == {"result": "text"}
    assert [body.task_id for body in decision.writes.bodies] == ["a-review-1"] if decision.writes else False
    run.receive(run.completed(review, "yes"))
    run.tick()
    assert run.phase("a") is Phase.COMPLETED
    assert run.phase("b") is Phase.ASSIGNED
    ends = [(e["task_id"], e["status"], e.get("result")) for e in run.audit("task.completed")]
    assert ends == [("a-review-1", "success", "yes"), ("a", "success", "text")]


def test_a_rejected_result_goes_back_with_the_context_and_is_audited_as_failed() -> None:
    run = drill(task("a"))
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    run.receive(run.completed(run.attempt("a-review-1"), "no"))
    again = run.tick().delta.assigned
    assert [(a.task_id, a.attempt, a.note) for a in again] == [("a", 2, {"feedback": "no"})]
    rejected = [e for e in run.audit("task.completed") if e["status"] == "failed"]
    assert [(e["task_id"], e["attempt"], e["error"]) for e in rejected] == [
        ("a", 1, {"code": "REJECTED", "message": "the reviewer says no"})
    ]


def test_a_resent_assignment_carries_the_same_context() -> None:
    run = drill(task("a"))
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    resent = run.tick(after_ms=20_000).delta.resent
    assert [(a.task_id, a.note) for a in resent] == [("a-review-1", {"result": "text"})]


@pytest.mark.parametrize("ok", [True, False])
def test_a_task_that_failed_for_good_goes_the_way_that_an_errand_finds(ok: bool) -> None:
    run = drill(task("a", retry=RetryPolicy(max_attempts=1)), task("b", (0,)))
    run.tick()
    run.receive(run.failed(run.attempt("a")))
    decision = run.tick()
    assert [(e.key, e.kind, e.task_id) for e in decision.delta.errands] == [("rescue/a", "rescue", "a")]
    assert not run.state.closed
    run.continue_as_new()
    run.answer("rescue/a", "from elsewhere", ok=ok, code="HOPELESS", message="nothing helps")
    run.tick()
    assert run.state.errands == {}
    if ok:
        assert run.phase("a") is Phase.COMPLETED
        assert run.phase("b") is Phase.ASSIGNED
    else:
        assert run.state.status is ExecutionStatus.FAILED
        assert run.deltas[-1].error is not None
        assert run.deltas[-1].error.failed_task == "a"


def test_an_outcome_that_comes_twice_or_for_no_errand_changes_nothing() -> None:
    run = drill(task("a"))
    run.tick()
    run.answer("rescue/a", "twice")
    assert not run.tick().delta.returned_errands


def test_the_pattern_ends_the_execution_with_its_own_error() -> None:
    run = drill(task("a", retry=RetryPolicy(max_attempts=1)))
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    run.receive(run.failed(run.attempt("a-review-1")))
    decision = run.tick()
    assert run.state.status is ExecutionStatus.FAILED
    assert decision.delta.error is not None
    assert decision.delta.error.error_code == "NO_REVIEW"


def test_going_back_forgets_what_the_board_says_of_tasks_that_run_again() -> None:
    run = drill(task("a"), task("b", (0,)))
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    run.receive(run.completed(run.attempt("a-review-1"), "yes"))
    run.tick()
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009", "a", "a-review-1")
    run.tick()
    assert "a/reviews" not in run.state.board
    assert "a-review-1" not in run.state.index
    assert run.phase("a") is Phase.ASSIGNED


def test_a_pattern_may_wait_for_a_time_but_not_while_paused() -> None:
    run = drill(task("a"))
    run.tick()
    run.state.board["/due"] = run.now_ms + 5
    assert next_due_ms(run.state, run.policy) == run.now_ms + 5
    run.control("pause")
    run.state.board.pop("/due")
    run.tick()
    run.state.board["/due"] = run.now_ms + 5
    assert next_due_ms(run.state, run.policy) != run.now_ms + 5


def test_context_above_its_limit_is_refused() -> None:
    class Talkative(Policy):
        coordinates = True
        refused = ""

        def judges(self, state: RunState, i: int) -> bool:
            return True

        def react(self, desk: Desk) -> None:
            for i in desk.submitted:
                try:
                    desk.again(i, "x" * 70_000)
                except NoRoomError as error:
                    self.refused = str(error)
                    desk.say(AuditEventType.ERROR_OCCURRED, error_type="NO_ROOM", error_message=str(error))
                    desk.fail(i, "NO_ROOM", str(error))

    policy = Talkative()
    run = Drill(launch_input(task("a")), policy=policy)
    run.tick()
    run.receive(run.completed(run.attempt("a")))
    run.tick()
    assert "65536 may go with a task" in policy.refused
    assert run.state.status is ExecutionStatus.FAILED


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_whatever_happens_the_deltas_alone_give_the_same_state_and_all_ends(data: st.DataObject) -> None:
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
    run = drill(task("a", retry=retry), task("b", retry=retry), task("c", (0, 1), retry=retry), agents=3)
    for _ in range(40):
        if run.state.closed:
            break
        for attempt in run.in_flight():
            kind = data.draw(st.sampled_from(["wait", "yes", "no", "fail", "twice"]))
            report: list[Attempt] = [] if kind == "wait" else [attempt]
            for one in report:
                event = run.failed(one) if kind == "fail" else run.completed(one, kind)
                run.receive(event)
                if kind == "twice":
                    run.receive(event)
        for key in sorted(run.state.errands):
            if data.draw(st.booleans()):
                run.answer(key, "rescued", ok=data.draw(st.booleans()), code="LOST", message="lost")
        if data.draw(st.integers(0, 9)) == 0:
            run.control("resume" if run.state.paused else "pause")
        if data.draw(st.integers(0, 9)) == 0:
            run.continue_as_new()
        run.tick(after_ms=500)
    else:
        if run.state.paused:
            run.control("resume")
            run.tick()
        for _ in range(200):
            for key in sorted(run.state.errands):
                run.answer(key, "rescued")
            if run.state.closed:
                break
            run.receive(*(run.completed(attempt, "yes") for attempt in run.in_flight()))
            run.tick(after_ms=500)
    assert run.state.closed
    if run.state.status is ExecutionStatus.COMPLETED:
        assert all(run.phase(t.id) is Phase.COMPLETED for t in run.state.plan.tasks)


class _Hasty(ReviewPolicy):
    """Begins an errand for each result, and takes it back when another task has failed in the same tick."""

    def react(self, desk: Desk) -> None:
        for i in desk.submitted:
            desk.send(f"look/{desk.state.specs[i].id}", "look", about=i)
        if any(desk.state.submitted[i].failed for i in desk.submitted):
            desk._change.end_errand("look/a")


def test_an_errand_that_begins_and_ends_in_one_tick_has_never_been() -> None:
    run = Drill(launch_input(task("a"), task("b", retry=RetryPolicy(max_attempts=1))), policy=_Hasty())
    run.tick()
    run.receive(run.completed(run.attempt("a")), run.failed(run.attempt("b")))
    delta = run.tick().delta
    assert [errand.key for errand in delta.errands] == ["look/b"]
    assert delta.returned_errands == ()


def test_context_above_its_limit_leaves_no_task_behind() -> None:
    class Verbose(Policy):
        coordinates = True

        def judges(self, state: RunState, i: int) -> bool:
            return True

        def react(self, desk: Desk) -> None:
            for i in desk.submitted:
                with pytest.raises(NoRoomError):
                    desk.ask(i, "too-much", role="worker", action="read", note="x" * 70_000)
                desk.accept(i)

    run = Drill(launch_input(task("a")), policy=Verbose())
    run.tick()
    run.receive(run.completed(run.attempt("a")))
    run.tick()
    assert "too-much" not in run.state.index
    assert run.state.status is ExecutionStatus.COMPLETED


def test_what_was_said_about_an_end_does_not_outlive_going_back() -> None:
    run = drill(task("a"))
    run.tick()
    run.receive(run.completed(run.attempt("a"), "text"))
    run.tick()
    run.state.board["/hooks/ending"] = run.twin.board["/hooks/ending"] = True
    run.state.board["/kept"] = run.twin.board["/kept"] = 1
    run.control("pause")
    run.tick()
    run.rewind_to("00000000-0000-4000-8000-000000000009", "a")
    run.tick()
    assert "/hooks/ending" not in run.state.board
    assert run.state.board["/kept"] == 1
