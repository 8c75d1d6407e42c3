"""Handoff: one agent after another. Each is handed the context, adds to it and hands over; a gate judges what it hands.

A hand-over counts only when its gate has let it pass: until then nothing of it is in the context. What a gate refuses
goes back to the same agent with the reasons; after too often, the task goes back to the last accepted state.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.judging import JudgeInput, Judgement
from engine.contracts.kernel import Submission
from engine.contracts.patterns.handoff import HandoffConfig, JudgingAgent
from workflows.kernel.desk import Desk, NoRoomError, note_key
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState
from workflows.policies.baton import Baton, Travel, added_key, baton_of, hand_overs, merged, size_bytes
from workflows.policies.naming import free_task_id
from workflows.policies.sharing import Sharing, agent_key, room_within
from workflows.policies.verdicts import BadAnswerError, cut, read_verdict

HANDOFF_REJECTED: Final = "HANDOFF_REJECTED"
CONTEXT_TOO_LARGE: Final = "CONTEXT_TOO_LARGE"
NO_VERDICT: Final = "NO_VERDICT"
NO_ROOM: Final = "NO_ROOM"

VERDICTS: Final = ("accept", "reject")
REASONS_BYTES_MAX: Final = 6 * 1024
COUNT_KEY: Final = "/handed"
"""Hand-overs that were accepted so far, in the whole execution."""


class HandoffPolicy(Policy):
    """Keeps its settings only; everything else stands on the board, see `workflows.policies.baton`."""

    coordinates = True

    def __init__(self, config: HandoffConfig) -> None:
        self.config = config
        self.travel = Travel(config)

    def judges(self, state: RunState, i: int) -> bool:  # noqa: ARG002 - of every task alike
        return True

    def react(self, desk: Desk) -> None:
        for i in sorted(_taken(desk.state)):
            desk.fail(i, CONTEXT_TOO_LARGE, self._too_large())
        for i in desk.submitted:
            if desk.is_submitted(i):
                self._ended(desk, i)
        for errand, outcome in desk.outcomes.values():
            i = desk.state.index.get(errand.task_id, -1)
            if i < 0 or not desk.is_submitted(i):
                continue
            owner = self._owner(desk, i)
            if not outcome.ok:
                self._fail(desk, owner, outcome.code, outcome.message)
                continue
            judgement = Judgement.model_validate(outcome.value)
            if judgement.ok:
                self._offered(desk, owner, judgement.taken)
            else:
                self._reject(desk, owner, "; ".join(judgement.reasons))
        self._hand_out(desk)

    def next_due_ms(self, state: RunState) -> int | None:
        return min((state.submitted[i].at_ms for i in _taken(state)), default=None)

    def share_out(self, state: RunState, role: str, waiting: list[tuple[int, int]]) -> Iterator[tuple[int, str]]:
        """What goes back goes to the agent that had it; the rest to the least loaded."""
        sharing = Sharing(state, role, room_within(state, None))
        back = [item for item in waiting if _directed(state, item[1])]
        yield from sharing.directed(back)
        yield from sharing.least_loaded([item for item in waiting if not _directed(state, item[1])])

    def _hand_out(self, desk: Desk) -> None:
        """Tasks of the graph that can start are handed the context."""
        state = desk.state
        for i in desk.ready():
            spec = state.specs[i]
            if not spec.asked and note_key(spec.id) not in state.board:
                note = self.travel.note(state, i, baton_of(state, spec.id))
                if not self._fits(note):
                    desk.take(i)  # and in the next tick it fails: what is taken in a tick is not given up in it
                else:
                    desk.note(i, note)

    # What comes back -----------------------------------------------------------------------------------------

    def _owner(self, desk: Desk, i: int) -> int:
        """The task of the graph for whose sake this one is."""
        name = desk.state.specs[i].id
        owner: str = desk.get(f"{name}/holds") or desk.get(f"{name}/judges") or name
        return desk.state.index[owner]

    def _ended(self, desk: Desk, i: int) -> None:
        state = desk.state
        owner, submission = self._owner(desk, i), state.submitted[i]
        if not desk.is_submitted(owner):
            desk.drop(i)
        elif desk.get(f"{submission.task_id}/judges") is not None:
            self._judged(desk, owner, i)
        elif submission.failed:
            self._fail(desk, owner, submission.code, submission.message)
        else:
            self._handed(desk, owner, submission)

    def _handed(self, desk: Desk, owner: int, submission: Submission) -> None:
        """What its holder hands over goes through the gate."""
        baton = self._baton(desk, owner)
        gate = self.travel.station(baton.station).gate
        if not gate.expressions and gate.json_schema is None and submission.result_ref is None:
            result = submission.result if isinstance(submission.result, dict) else {}
            self._offered(desk, owner, {name: result[name] for name in ("context", "handoff_to") if name in result})
            return
        values: dict[str, Any] = {}
        if gate.expressions:
            values["context"] = self._context(desk, baton)
        if submission.result_ref is None:
            values["result"] = submission.result
        question = JudgeInput(
            expressions=tuple(gate.expressions),
            json_schema=gate.json_schema,
            values=values,
            refs={} if submission.result_ref is None else {"result": submission.result_ref},
            take=("context", "handoff_to"),
            take_bytes_max=self.config.context_bytes_max + 1024,
        )
        key = f"{submission.task_id}/gate-{submission.attempt}"
        about = desk.state.index[submission.task_id]
        desk.send(key, "judge", about=about, input=question.model_dump(mode="json", exclude_unset=True))

    def _offered(self, desk: Desk, owner: int, offer: dict[str, Any]) -> None:
        """It fits the gate's expressions and schema: now what it adds, to whom it goes, and the judging agent."""
        baton = self._baton(desk, owner)
        added, to = offer.get("context", {}), offer.get("handoff_to")
        problem = self._problem_with(desk, baton, owner, added, to)
        if problem is not None:
            self._reject(desk, owner, problem)
            return
        desk.post(f"{desk.state.specs[owner].id}/offer", {"context": added, "to": to})
        judge = self.travel.station(baton.station).gate.judge
        if judge is None:
            self._accept(desk, owner, {"context": added, "to": to})
        else:
            self._ask_judge(desk, owner, baton, judge)

    def _problem_with(self, desk: Desk, baton: Baton, owner: int, added: Any, to: Any) -> str | None:
        if not isinstance(added, dict):
            return "context is no object"
        size = size_bytes(merged(self._context(desk, baton), added))
        if size > self.config.context_bytes_max:
            return f"the context would have {size} bytes; at most {self.config.context_bytes_max}"
        if to is None:
            return None
        station = self.travel.station(baton.station)
        if baton.station != desk.state.specs[owner].id:
            return "handoff_to: this is done again for the one that waits for it, and goes nowhere else"
        if not isinstance(to, str) or to not in station.to:
            allowed = ", ".join(station.to[:20]) or "nobody"
            return f"handoff_to names none of those to whom it may go: {allowed}"
        if baton.hop >= station.hops_max:
            return f"handoff_to: the task has been through {baton.hop} hands, which is all that it may"
        return None

    # The judging agent ---------------------------------------------------------------------------------------

    def _ask_judge(self, desk: Desk, owner: int, baton: Baton, judge: JudgingAgent, problem: str = "") -> None:
        state = desk.state
        submission = state.submitted[state.index[baton.holder]]
        task_id = free_task_id(state, state.specs[owner].id, "judge", baton.hop)
        note: dict[str, Any] = {
            "task": baton.station,
            "agent": submission.agent_id,
            "criteria": judge.criteria,
            "verdicts": list(VERDICTS),
            "context": self._context(desk, baton),
        }
        if not self._fits(note):
            self._fail(desk, owner, CONTEXT_TOO_LARGE, self._too_large())
            return
        if problem:
            note["problem"] = problem
        if submission.result_ref is None:
            note["result"] = submission.result
        else:
            note["stored"] = {"result": submission.result_ref}
        timeout_ms = None if judge.timeout_seconds is None else judge.timeout_seconds * 1000
        try:
            desk.ask(owner, task_id, role=judge.agent, action=judge.action, note=note, timeout_ms=timeout_ms)
        except NoRoomError as error:
            self._fail(desk, owner, NO_ROOM, str(error))
            return
        desk.post(f"{task_id}/judges", state.specs[owner].id)

    def _judged(self, desk: Desk, owner: int, i: int) -> None:
        submission, baton = desk.state.submitted[i], self._baton(desk, owner)
        judge = self.travel.station(baton.station).gate.judge
        try:
            if submission.failed:
                raise BadAnswerError(f"the judging agent failed: {submission.message}")
            if submission.result_ref is not None:
                raise BadAnswerError("the answer is too large: a verdict and feedback are enough")
            verdict = read_verdict(submission.result, VERDICTS)
        except BadAnswerError as error:
            desk.drop(i) if submission.failed else desk.accept(i)
            bad = baton.bad_answers + 1
            self._post(desk, owner, replace(baton, bad_answers=bad))
            if judge is None or bad > judge.bad_answers_max:
                self._fail(desk, owner, NO_VERDICT, f"the judging agent says nothing that makes sense: {error}")
            else:
                self._ask_judge(desk, owner, baton, judge, str(error)[:1000])
            return
        desk.accept(i)
        self._post(desk, owner, replace(baton, bad_answers=0))
        if verdict.kind == "accept":
            self._accept(desk, owner, desk.get(f"{desk.state.specs[owner].id}/offer", {"context": {}, "to": None}))
        else:
            self._reject(desk, owner, verdict.feedback or "the judging agent says no")

    # Accepted ------------------------------------------------------------------------------------------------

    def _accept(self, desk: Desk, owner: int, offer: dict[str, Any]) -> None:
        state, baton = desk.state, self._baton(desk, owner)
        name, holder = state.specs[owner].id, state.index[baton.holder]
        submission = state.submitted[holder]
        count = desk.get(COUNT_KEY, 0) + 1
        desk.post(COUNT_KEY, count)
        entry = {
            "agent": submission.agent_id,
            "holder": baton.holder,
            "at_ms": desk.now_ms,
            "order": count,
            "context": offer["context"],
        }
        for later, _ in tuple(hand_overs(state, baton.station)):
            if later > baton.hop:  # of before a roll-back
                desk.post(added_key(baton.station, later), None)
        desk.post(added_key(baton.station, baton.hop), entry)
        desk.post(f"{name}/offer", None)
        desk.say(
            AuditEventType.HANDOFF_ACCEPTED,
            task_id=baton.station,
            agent_id=submission.agent_id,
            hop=baton.hop,
            added=sorted(offer["context"])[:100],
            **({} if offer["to"] is None else {"handed_to": offer["to"]}),
        )
        if baton.station != name:  # done again: now the task that was rolled back begins anew
            desk.accept(holder)
            self._begin_again(desk, owner, Baton(station=name, hop=1, holder=name, rolled=baton.rolled))
        elif offer["to"] is None:
            desk.post(note_key(name), None)
            if holder != owner:
                desk.accept(holder)
                desk.resolve(owner, submission.result, submission.result_ref)
            else:
                desk.accept(owner)
        else:
            if holder != owner:
                desk.accept(holder)
            self._hand_to(desk, owner, replace(baton, hop=baton.hop + 1, rejected=0, feedback=()), offer["to"])

    def _hand_to(self, desk: Desk, owner: int, baton: Baton, to: str) -> None:
        """Another agent takes the task over: a task of the pattern's own, with the same input."""
        state = desk.state
        spec = state.specs[owner]
        task_id = free_task_id(state, spec.id, "hand", baton.hop)
        agent = to if to in state.agents else None
        baton = replace(baton, holder=task_id)
        note = self._note(desk, owner, baton)
        if note is None:
            return
        try:
            desk.ask(owner, task_id, agent=agent, role=to, action=spec.id, note=note, alike=True)
        except NoRoomError as error:
            self._fail(desk, owner, NO_ROOM, str(error))
            return
        desk.post(f"{task_id}/holds", spec.id)
        self._post(desk, owner, baton)

    # Rejected ------------------------------------------------------------------------------------------------

    def _reject(self, desk: Desk, owner: int, why: str) -> None:
        state, baton = desk.state, self._baton(desk, owner)
        holder = state.index[baton.holder]
        submission = state.submitted[holder]
        why = cut(why, REASONS_BYTES_MAX)
        baton = replace(baton, rejected=baton.rejected + 1)
        desk.post(f"{state.specs[owner].id}/offer", None)
        desk.say(
            AuditEventType.HANDOFF_REJECTED,
            task_id=baton.station,
            agent_id=submission.agent_id,
            hop=baton.hop,
            rejections=baton.rejected,
            reason=why[:1000],
        )
        baton = baton.with_feedback({"agent": submission.agent_id, "feedback": why})
        if baton.rejected > self.travel.station(baton.station).rejections_max:
            self._roll_back(desk, owner, baton, why)
            return
        note = self._note(desk, owner, baton)
        if note is None:
            return
        self._post(desk, owner, baton)
        desk.post(agent_key(baton.holder), submission.agent_id)
        desk.again(holder, note, why)

    def _roll_back(self, desk: Desk, owner: int, baton: Baton, why: str) -> None:
        """To the last accepted state: whoever handed over last has it again, with the context as that one had it."""
        state = desk.state
        name = state.specs[owner].id
        before = self._last_accepted(state, owner, baton)
        done_again = baton.station != name
        if before is None or done_again or baton.rolled >= self.travel.station(name).rollbacks_max:
            self._fail(desk, owner, HANDOFF_REJECTED, f"rejected {baton.rejected} times, at last: {why}")
            return
        station, hop, entry = before
        desk.say(AuditEventType.HANDOFF_ROLLED_BACK, task_id=name, back_to=station, agent_id=entry["agent"], hop=hop)
        if baton.holder != name:
            desk.drop(state.index[baton.holder])
        back = Baton(station, hop, entry["holder"], rolled=baton.rolled + 1, feedback=baton.feedback[-1:])
        if entry["holder"] == name:
            desk.post(agent_key(name), entry["agent"])
            self._begin_again(desk, owner, back)
        else:
            self._do_again(desk, owner, back, entry["agent"])

    def _last_accepted(self, state: RunState, owner: int, baton: Baton) -> tuple[str, int, dict[str, Any]] | None:
        """(task, hop, what was added): the hand-over by which the present holder got it."""
        if baton.hop > 1:
            entry = state.board.get(added_key(baton.station, baton.hop - 1))
            return None if entry is None else (baton.station, baton.hop - 1, entry)
        found = [(entry["order"], state.specs[d].id, hop, entry)
                 for d in state.specs[owner].deps for hop, entry in hand_overs(state, state.specs[d].id)]  # fmt: skip
        if not found:
            return None
        _, station, hop, entry = max(found, key=lambda item: item[0])
        return station, hop, entry

    def _do_again(self, desk: Desk, owner: int, baton: Baton, agent_id: str) -> None:
        """A holder whose own task is over does it again as a task of the pattern's own."""
        state = desk.state
        spec = state.specs[state.index[baton.station]]
        task_id = free_task_id(state, baton.station, "again", baton.rolled)
        baton = replace(baton, holder=task_id)
        note = self._note(desk, owner, baton)
        if note is None:
            return
        try:
            desk.ask(
                owner,
                task_id,
                agent=agent_id,
                action=baton.station,
                note=note,
                timeout_ms=spec.timeout_ms,
                retry=spec.retry,
                alike=baton.station,
            )
        except NoRoomError as error:
            self._fail(desk, owner, NO_ROOM, str(error))
            return
        desk.post(f"{task_id}/holds", state.specs[owner].id)
        self._post(desk, owner, baton)

    def _begin_again(self, desk: Desk, owner: int, baton: Baton) -> None:
        note = self._note(desk, owner, baton)
        if note is not None:
            self._post(desk, owner, baton)
            desk.again(owner, note)

    # Parts ---------------------------------------------------------------------------------------------------

    def _baton(self, desk: Desk, owner: int) -> Baton:
        return baton_of(desk.state, desk.state.specs[owner].id)

    def _post(self, desk: Desk, owner: int, baton: Baton) -> None:
        desk.post(f"{desk.state.specs[owner].id}/baton", baton.stored())

    def _context(self, desk: Desk, baton: Baton) -> dict[str, Any]:
        return self.travel.context(desk.state, desk.state.index[baton.station], baton.hop)

    def _note(self, desk: Desk, owner: int, baton: Baton) -> dict[str, Any] | None:
        """What goes with the next attempt. The context may have grown since the last one, when what it comes from was
        done again, here or for another branch; above its limit the task is given up, and there is none."""
        note = self.travel.note(desk.state, desk.state.index[baton.station], baton)
        if self._fits(note):
            return note
        self._fail(desk, owner, CONTEXT_TOO_LARGE, self._too_large())
        return None

    def _fits(self, note: dict[str, Any]) -> bool:
        return size_bytes(note["context"]) <= self.config.context_bytes_max

    def _too_large(self) -> str:
        return f"the context is too large where branches meet; at most {self.config.context_bytes_max} bytes"

    def _fail(self, desk: Desk, owner: int, code: str, why: str) -> None:
        """The task is given up; the definition says what follows."""
        holder = desk.state.index[self._baton(desk, owner).holder]
        if holder != owner and desk.is_open(holder):
            desk.drop(holder)
        desk.fail(owner, code, why)


def _taken(state: RunState) -> list[int]:
    """Tasks that were never handed to anyone."""
    return [i for i, submission in state.submitted.items() if not submission.attempt]


def _directed(state: RunState, i: int) -> bool:
    spec = state.specs[i]
    return spec.agent is not None or agent_key(spec.id) in state.board
