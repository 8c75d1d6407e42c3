"""A supervising agent looks at what workers bring: it accepts, sends back, gives to another, or adds tasks.

What it remembers of a task stands on the board: `<task>/review` counts the reviews asked for, those that sent the task
back, and the answers in a row that made no sense, and holds what was said so far; `<review>/of` is the id of the task
that a review is about.
"""

from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.judging import JudgeInput, Judgement
from engine.contracts.patterns.supervisor import Review
from workflows.kernel.desk import Desk, NoRoomError
from workflows.kernel.spawning import SpawnRefusedError
from workflows.kernel.state import RunState
from workflows.policies.naming import free_task_id
from workflows.policies.sharing import agent_key, avoid_key
from workflows.policies.verdicts import ANSWER_FIELDS, BadAnswerError, Verdict, read_verdict

REJECTED: Final = "REVIEW_REJECTED"
NO_VERDICT: Final = "NO_VERDICT"
NO_ROOM: Final = "NO_ROOM"

VERDICTS: Final = ("accept", "reject", "reassign", "spawn")
VERDICTS_ON_FAILURE: Final = ("accept", "reject", "reassign")

ANSWER_BYTES_MAX: Final = 128 * 1024
FEEDBACK_KEPT_MAX: Final = 5
AGENTS_SHOWN_MAX: Final = 50


class Reviewing:
    """The part of the supervisor that reviews. Pure: it keeps nothing but its settings."""

    def __init__(self, review: Review) -> None:
        self.review = review
        self._named = None if review.tasks is None else frozenset(review.tasks)

    def judges(self, state: RunState, i: int) -> bool:
        spec = state.specs[i]
        if spec.asked:
            return True
        named = state.specs[state.parent.get(i, i)].id
        return spec.role != self.review.agent and (self._named is None or named in self._named)

    def react(self, desk: Desk) -> None:
        for i in desk.submitted:
            if not desk.is_submitted(i):
                continue
            if desk.state.specs[i].asked:
                self._answered(desk, i)
            elif desk.state.submitted[i].failed and not self.review.failures:
                submission = desk.state.submitted[i]
                desk.fail(i, submission.code, submission.message)
            else:
                self._ask(desk, i, _memory(desk, i))
        for errand, outcome in desk.outcomes.values():
            i = desk.state.index.get(errand.task_id, -1)
            if i < 0 or not desk.is_submitted(i):
                continue
            if outcome.ok:
                judgement = Judgement.model_validate(outcome.value)
                why = None if judgement.ok else "; ".join(judgement.reasons)
                self._decide(desk, i, judgement.taken, why)
            else:
                self._decide(desk, i, None, outcome.message)

    # Asking --------------------------------------------------------------------------------------------------

    def _ask(self, desk: Desk, i: int, memory: dict[str, Any]) -> None:
        state, review = desk.state, self.review
        spec, submission = state.specs[i], state.submitted[i]
        n = memory["reviews"] + 1
        task_id = free_task_id(state, spec.id, "review", n)
        note: dict[str, Any] = {
            "task": spec.id,
            "agent": submission.agent_id,
            "attempt": submission.attempt,
            "review": memory["given"] + 1,
            "reviews_max": review.rounds_max,
            "verdicts": list(VERDICTS_ON_FAILURE if submission.failed else VERDICTS),
            "agents": [agent.agent_id for agent in state.agents_of(spec.role)[:AGENTS_SHOWN_MAX]],
            "feedback": memory["feedback"],
        }
        if memory.get("problem"):
            note["problem"] = memory["problem"]
        if submission.failed:
            note["error"] = {"code": submission.code, "message": submission.message}
        elif submission.result_ref is None:
            note["result"] = submission.result
        else:
            note["stored"] = {"result": submission.result_ref}
        timeout_ms = None if review.timeout_seconds is None else review.timeout_seconds * 1000
        try:
            desk.ask(i, task_id, role=review.agent, action=review.action, note=note, timeout_ms=timeout_ms)
        except NoRoomError as error:
            self._without_verdict(desk, i, NO_ROOM, str(error))
            return
        desk.post(f"{task_id}/of", spec.id)
        desk.post(f"{spec.id}/review", {**memory, "reviews": n})

    # Answers -------------------------------------------------------------------------------------------------

    def _answered(self, desk: Desk, i: int) -> None:
        submission = desk.state.submitted[i]
        if submission.failed:
            self._decide(desk, i, None, f"the review failed: {submission.message}")
        elif submission.result_ref is None:
            self._decide(desk, i, submission.result, None)
        else:
            question = JudgeInput(
                refs={"result": submission.result_ref}, take=ANSWER_FIELDS, take_bytes_max=ANSWER_BYTES_MAX
            )
            key = f"{submission.task_id}/answer"
            desk.send(key, "judge", about=i, input=question.model_dump(mode="json", exclude_defaults=True))

    def _decide(self, desk: Desk, review_i: int, answer: Any, problem: str | None) -> None:
        """`problem` says why there is no answer."""
        state = desk.state
        about = state.index.get(desk.get(f"{state.specs[review_i].id}/of", ""), -1)
        failed = state.submitted[review_i].failed
        if about < 0 or not desk.is_submitted(about):
            desk.drop(review_i)
            return
        memory = _memory(desk, about)
        try:
            if problem is not None:
                raise BadAnswerError(problem)
            allowed = VERDICTS_ON_FAILURE if state.submitted[about].failed else VERDICTS
            verdict = self._checked(desk, about, read_verdict(answer, allowed))
            if verdict.kind == "spawn":
                desk.spawn(about, verdict.tasks)
        except (BadAnswerError, SpawnRefusedError) as error:
            desk.drop(review_i) if failed else desk.accept(review_i)
            self._bad_answer(desk, about, memory, str(error))
            return
        desk.accept(review_i)
        self._carry_out(desk, about, verdict, {**memory, "bad": 0, "problem": None})

    def _checked(self, desk: Desk, about: int, verdict: Verdict) -> Verdict:
        """Raises BadAnswerError when it names an agent that cannot do the task."""
        state, role = desk.state, desk.state.specs[about].role
        if verdict.kind == "reassign":
            others = [a.agent_id for a in state.agents_of(role) if a.agent_id != state.submitted[about].agent_id]
            if verdict.agent is not None and verdict.agent not in others:
                raise BadAnswerError(f"{verdict.agent} is no other agent of the role {role}")
            if not others:
                raise BadAnswerError(f"the role {role} has no other agent")
        return verdict

    def _bad_answer(self, desk: Desk, about: int, memory: dict[str, Any], why: str) -> None:
        bad = memory["bad"] + 1
        desk.say(
            AuditEventType.REVIEW_REFUSED, task_id=desk.state.specs[about].id, reason=why[:1000], refused_in_a_row=bad
        )
        if bad > self.review.bad_answers_max:
            self._without_verdict(desk, about, NO_VERDICT, f"no review said anything that makes sense: {why}")
        else:
            self._ask(desk, about, {**memory, "bad": bad, "problem": why[:1000]})

    def _without_verdict(self, desk: Desk, about: int, code: str, why: str) -> None:
        submission = desk.state.submitted[about]
        if submission.failed:
            desk.fail(about, submission.code, submission.message)
        elif self.review.on_no_verdict == "accept":
            desk.accept(about)
        else:
            desk.fail(about, code, why)

    # Verdicts ------------------------------------------------------------------------------------------------

    def _carry_out(self, desk: Desk, about: int, verdict: Verdict, memory: dict[str, Any]) -> None:
        submission = desk.state.submitted[about]
        task_id = submission.task_id
        desk.say(
            AuditEventType.REVIEW_GIVEN,
            task_id=task_id,
            agent_id=submission.agent_id,
            attempt=submission.attempt,
            verdict=verdict.kind,
            feedback=verdict.feedback,
        )
        if verdict.kind in ("accept", "spawn"):
            self._close(desk, about)
            return
        given = memory["given"] + 1
        said = {"attempt": submission.attempt, "agent": submission.agent_id, "feedback": verdict.feedback}
        memory = {**memory, "given": given, "feedback": [*memory["feedback"], said][-FEEDBACK_KEPT_MAX:]}
        desk.post(f"{task_id}/review", memory)
        if given >= self.review.rounds_max:
            self._exhausted(desk, about, given, verdict)
            return
        if verdict.kind == "reassign":
            desk.post(agent_key(task_id), verdict.agent)
            desk.post(avoid_key(task_id), None if verdict.agent else [submission.agent_id])
        note: dict[str, Any] = {"review": given, "verdict": verdict.kind, "feedback": memory["feedback"]}
        if submission.result_ref is not None:
            note["stored"] = {"result": submission.result_ref}
        elif not submission.failed:
            note["result"] = submission.result
        desk.again(about, note, verdict.feedback or f"the review says {verdict.kind}")

    def _exhausted(self, desk: Desk, about: int, given: int, verdict: Verdict) -> None:
        submission = desk.state.submitted[about]
        if submission.failed:
            desk.fail(about, submission.code, submission.message)
        elif self.review.on_exhausted == "accept":
            self._close(desk, about)
        else:
            times = "once" if given == 1 else f"{given} times"
            desk.fail(about, REJECTED, f"sent back {times}, at last with: {verdict.feedback or verdict.kind}")

    def _close(self, desk: Desk, about: int) -> None:
        submission = desk.state.submitted[about]
        if submission.failed:  # the supervisor agrees that it has failed
            desk.fail(about, submission.code, submission.message)
        else:
            desk.accept(about)


def _memory(desk: Desk, i: int) -> dict[str, Any]:
    empty: dict[str, Any] = {"reviews": 0, "given": 0, "bad": 0, "feedback": []}
    found: dict[str, Any] = desk.get(f"{desk.state.specs[i].id}/review", empty)
    return found
