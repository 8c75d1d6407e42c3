"""Carries a program out for one task, as far as one tick goes: from state to state until it must wait.

A state is entered, which begins what it does, and then looked at until it says where to go on. What it waits for
stands in the task's memory, so that a tick in another process goes on where this one stopped.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.patterns.language import (
    Assign,
    Compensate,
    Escalate,
    Finish,
    Gather,
    Loop,
    Route,
    SetVariables,
    Spawn,
    Vote,
    Wait,
)
from engine.voting import InvalidBallotError, Poll, count, key_of, value_of
from workflows.kernel.desk import NoRoomError
from workflows.policies.program import ProgramError
from workflows.policies.program_memory import Memory, Turn
from workflows.policies.program_work import Works

STEPS_EXCEEDED: Final = "PATTERN_STEPS_EXCEEDED"
PATTERN_FAILED: Final = "PATTERN_FAILED"
EVENT_TIMEOUT: Final = "EVENT_TIMEOUT"
TOO_FEW: Final = "TOO_FEW_SUCCEEDED"

CONTEXT_ERRAND: Final = "program_context"
EVENT_ERRAND: Final = "program_event"


class Run:
    """One task's program, in one tick."""

    def __init__(self, turn: Turn, i: int) -> None:
        self.desk = turn.desk
        self.program = turn.program
        self.i = i
        self.allowance = turn.allowance
        self.memory = Memory(turn, i)
        self.works = Works(self.memory)

    def begin(self) -> None:
        """The task is ready: it becomes the program's."""
        self.desk.take(self.i)
        self.memory.begin()
        wanted = self.memory.lacks()
        if wanted:
            self.desk.send(self._errand_key("context"), CONTEXT_ERRAND, about=self.i, input={"read": wanted})
            self.memory.change(w="context")
        self.memory.keep()

    def _errand_key(self, name: str) -> str:
        """Another one after going back: the errand may be sent again in the very tick that takes its outcome in."""
        epoch = self.desk.state.epoch
        return f"{self.memory.task_id}/{name}" + (f"/{epoch}" if epoch > 1 else "")

    def hear(self, key: str, *, ok: bool, value: Any, code: str, message: str) -> None:
        """What came of an errand."""
        waits_for = self.memory.pc.get("w")
        if key == self._errand_key("context") and waits_for == "context":
            if ok:
                self.memory.learn(value)
                self.memory.change(w=None)
            else:
                self._end("fail", code, f"input and results: {message}")
        elif isinstance(waits_for, dict) and waits_for.get("errand") == key:
            heard = {"ok": ok, "value": value, "code": code, "message": message}
            self.memory.change(w={**waits_for, "errand": None, "heard": heard})
        self.memory.keep()

    def advance(self) -> None:
        """Until it waits, it is over, or the tick's steps are used up."""
        memory = self.memory
        try:
            while not self._is_ending() and memory.pc.get("w") != "context":
                if self.allowance.spent:
                    memory.wake_in(0)
                    break
                following = self._step()
                if following is None:
                    break
                memory.go(following)
        except (ProgramError, NoRoomError) as error:
            code = error.code if isinstance(error, ProgramError) else "NO_ROOM"
            self._end("fail", code, f"state {memory.pc['s']} of the pattern: {error}")
        self._finish()

    def _is_ending(self) -> bool:
        return self.memory.pc.get("end") is not None

    def _step(self) -> str | None:
        memory = self.memory
        state = self.program.state(memory.pc["s"])
        if not memory.pc["in"]:
            steps = memory.pc["n"] + 1
            if steps > self.program.logic.steps_max:
                limit = self.program.logic.steps_max
                raise ProgramError(STEPS_EXCEEDED, f"the program has entered {limit} states, its steps_max")
            memory.change(n=steps, t=[self.desk.now_ms, memory.paused_ms], w=None)
            memory.change(**{"in": True})
        memory.sleep()  # a state that waits for a time, or for the next tick, says so each time it is looked at
        self.allowance.enter_state()
        return _STATES[type(state)](self, state)

    # The end -------------------------------------------------------------------------------------------------

    def _end(self, outcome: str, code: Any = None, message: Any = None) -> None:
        self.memory.change(end=[outcome, code, message])

    def _finish(self) -> None:
        """Carry out how it is to end, or keep where it stands."""
        memory, desk = self.memory, self.desk
        end = memory.pc.get("end")
        if end is None:
            memory.keep()
            return
        submission = desk.state.submitted.get(self.i)
        if submission is None:
            memory.sleep()
            memory.keep()  # its agent still has it
            return
        if end[0] == "fail" and not submission.attempt and submission.at_ms >= desk.now_ms:
            # Stored ticks are applied kind by kind, failures first: a task taken over just now fails a tick later.
            memory.wake_in(0)
            memory.keep()
            return
        for group in tuple(memory.pc["gs"]):
            self.works.close_group(group)
        if end[0] == "fail":
            desk.fail(self.i, end[1], end[2])
        elif end[0] == "accept":
            desk.accept(self.i)
        else:
            desk.resolve(self.i, end[1])
        memory.forget()

    def finish(self, state: Finish) -> None:
        memory = self.memory
        if state.outcome == "fail":
            message = "the pattern's program ended in failure"
            if state.error is not None:
                said = self._value(state.error)
                message = said if isinstance(said, str) else message
            self._end("fail", PATTERN_FAILED, message)
            return
        submission = self.desk.state.submitted[self.i]
        if state.result is None and submission.attempt and not submission.failed:
            self._end("accept")
            return
        result = None if state.result is None else self._value(state.result)
        memory.fitting_bytes("the result", result)
        self._end("resolve", result)

    # Work ----------------------------------------------------------------------------------------------------

    def assign(self, state: Assign) -> str | None:
        return self._own(state) if state.own else self._one(state, {})

    def _own(self, state: Assign) -> str | None:
        """The task itself goes to its agent, and comes back with what that says."""
        memory, desk = self.memory, self.desk
        if memory.pc["w"] is None:
            note = None if state.note is None else self._value(state.note)
            desk.again(self.i, note)
            memory.change(w={"attempt": desk.state.tasks[self.i].attempt})
            return None
        submission = desk.state.submitted.get(self.i)
        if submission is None or submission.attempt <= memory.pc["w"]["attempt"]:
            return None
        if submission.failed:
            return self._failed(state, submission.code, submission.message, submission.agent_id)
        memory.save(state.save, submission.result)
        return state.next

    def escalate(self, state: Escalate) -> str | None:
        if self.memory.pc["w"] is None:
            error = self.memory.get("error")
            role = self._value(state.role)
            self.desk.say(
                AuditEventType.ESCALATION_RAISED, task_id=self.memory.task_id, to_role=role, error=error
            )  # fmt: skip
        names = self.memory.names()
        piece = {} if state.input is not None else {"input": {"task": names["task"], "error": names["error"]}}
        return self._one(state, piece)

    def _one(self, state: Assign | Escalate, piece: Mapping[str, Any]) -> str | None:
        memory = self.memory
        group = self._group_of(1)
        if not self.works.begin(group, state, [piece], memory.names()):
            memory.wake_in(0)
            return None
        if self.works.group(group)["left"]:
            return None
        (found,) = self.works.results(group)
        self.works.close_group(group)
        if not found["ok"]:
            return self._failed(state, found["error"]["code"], found["error"]["message"], found["agent"])
        memory.save(state.save, found["result"])
        return state.next

    def _group_of(self, size: int) -> str:
        """The group of work of the present state, opened when it is entered."""
        waits_for = self.memory.pc["w"]
        if waits_for is None:
            group = self.works.open_group(size)
            self.memory.change(w={"group": group})
            return group
        name: str = waits_for["group"]
        return name

    def _failed(self, state: Any, code: str, message: str, agent: str | None) -> str:
        error = {"state": self.memory.pc["s"], "code": code, "message": message, "agent": agent or ""}
        self.memory.post("error", error)
        if state.on_failure is None:
            raise ProgramError(code, message)
        following: str = state.on_failure
        return following

    def spawn(self, state: Spawn) -> str | None:
        pieces = self._pieces(state.each)
        group = self._group_of(len(pieces))
        if not self.works.begin(group, state, pieces, self.memory.names()):
            self.memory.wake_in(0)
            return None
        former = self.memory.pc["named"].get(state.group)
        if former is not None:
            self.works.close_group(former)
        self.memory.change(named={**self.memory.pc["named"], state.group: group})
        return state.next

    def _pieces(self, text: str) -> list[dict[str, Any]]:
        elements = self._value(text)
        if not isinstance(elements, list):
            raise ProgramError("EXPRESSION_TYPE", "each: must give a list")
        return [{"item": item, "index": index} for index, item in enumerate(elements)]

    def gather(self, state: Gather) -> str | None:
        memory, works = self.memory, self.works
        group, begun = self._work_of(state)
        counts = works.group(group)
        need = counts["size"] if state.need is None else self._whole_number(state.need)
        late = memory.is_over(state.wait_seconds)
        enough = counts["ok"] >= need
        if not (late or enough or counts["ok"] + counts["left"] < need):
            self._wait_for(state.wait_seconds, now=not begun)
            return None
        if state.need is None and counts["left"] and not late:
            self._wait_for(state.wait_seconds, now=not begun)
            return None
        memory.save(state.save, works.results(group))
        failed = next((found for found in works.results(group) if not found["ok"]), None)
        if group:
            works.close_group(group)
        if enough:
            return state.next
        error = failed["error"] if failed is not None else {"message": "there was no work"}
        message = f"{counts['ok']} of {counts['size']} succeeded, {need} are needed; {error['message']}"
        return self._failed(state, TOO_FEW, message, failed["agent"] if failed is not None else None)

    def _work_of(self, state: Gather) -> tuple[str, bool]:
        """The group that is waited for, and whether all of it has begun."""
        memory, waits_for = self.memory, self.memory.pc["w"]
        if state.each is None:
            return memory.pc["named"].get(state.group) or "", True
        if waits_for is not None:
            counts = self.works.group(waits_for["group"])
            if counts["begun"] == counts["size"]:
                return waits_for["group"], True
        pieces = self._pieces(state.each)
        group = self._group_of(len(pieces))
        return group, self.works.begin(group, state, pieces, memory.names())

    def _wait_for(self, seconds: int | None, *, now: bool = False) -> None:
        if now:
            self.memory.wake_in(0)
        elif seconds is not None:
            self._wake_at_limit(seconds)

    def _wake_at_limit(self, seconds: int) -> None:
        began_ms, paused_before_ms = self.memory.pc["t"]
        self.memory.wake_at(began_ms, seconds * 1000, paused_before_ms)

    def _whole_number(self, text: str) -> int:
        value = self._value(text)
        if isinstance(value, bool) or not isinstance(value, int):
            raise ProgramError("EXPRESSION_TYPE", f"{text[:100]}: must give a whole number")
        return value

    def compensate(self, state: Compensate) -> str | None:
        """One after the other, the last first. What cannot be undone is named, and the rest is undone all the same."""
        memory, works = self.memory, self.works
        waits_for = memory.pc["w"] or {"n": memory.pc["u"], "undone": [], "left": [], "group": None}
        while True:
            if waits_for["group"] is not None:
                if works.group(waits_for["group"])["left"]:
                    return None
                (found,) = works.results(waits_for["group"])
                works.close_group(waits_for["group"])
                outcome = "undone" if found["ok"] else "left"
                done = memory.get(f"u.{waits_for['n']}")["work"]
                waits_for = {**waits_for, "group": None, outcome: [*waits_for[outcome], done]}
                memory.post(f"u.{waits_for['n']}", None)
            if waits_for["n"] == 0:
                break
            waits_for = {**waits_for, "n": waits_for["n"] - 1}
            waits_for = {**waits_for, "group": self._begin_undoing(waits_for["n"])}
            memory.change(w=waits_for)
        memory.change(u=0, w=None)
        memory.save(state.save, {"undone": waits_for["undone"], "left": waits_for["left"]})
        return state.next if not waits_for["left"] else state.on_failure or state.next

    def _begin_undoing(self, n: int) -> str:
        undo = self.memory.get(f"u.{n}")
        group = self.works.open_group(1, f"-{n}")
        given = {"work": undo["work"], "input": undo["input"], "result": undo["result"]}
        self.works.begin_one(group, undo["agent"], undo["role"], undo["action"], given)
        return group

    # Votes ---------------------------------------------------------------------------------------------------

    def vote(self, state: Vote) -> str | None:
        memory, works = self.memory, self.works
        names = memory.names()
        voters = self._voters(state, names)
        group = self._group_of(len(voters))
        pieces = [{"voter": voter, "agent": voter} for voter in voters]
        if not works.begin(group, state, pieces, names):
            memory.wake_in(0)
            return None
        if works.group(group)["left"] and not memory.is_over(state.wait_seconds):
            self._wait_for(state.wait_seconds)
            return None
        ballots = self._ballots(state, voters, works.results(group), names)
        works.close_group(group)
        outcome = count(state.count, Poll(voters, seed=f"{self.desk.state.launch.execution_id}/{group}"), ballots)
        votes = {voter: value_of(ballots[voter][0]) if ballots.get(voter) else None for voter in voters}
        self.desk.say(
            AuditEventType.VOTE_COUNTED, task_id=memory.task_id, state=memory.pc["s"], votes=votes, **outcome.to_json()
        )
        memory.save(state.save, {"decided": outcome.decided, "votes": votes, **outcome.to_json()})
        return state.decided if outcome.decided else state.undecided

    def _voters(self, state: Vote, names: Mapping[str, Any]) -> list[str]:
        if state.voters is not None:
            voters = self._value(state.voters)
            if not isinstance(voters, list) or not all(isinstance(voter, str) for voter in voters):
                raise ProgramError("EXPRESSION_TYPE", "voters: must give a list of agents' ids")
            if len(set(voters)) < len(voters):
                raise ProgramError("VOTER_TWICE", "voters: an agent has one vote; name each once")
            return voters
        role = self.desk.state.specs[self.i].role if state.role is None else self._value(state.role)
        found: list[str] = names["agents"].get(role, [])
        if not found:
            raise ProgramError("UNKNOWN_AGENT_ROLE", f"there is nobody in the role {role!r} to vote")
        return found

    def _ballots(
        self, state: Vote, voters: list[str], results: list[dict[str, Any]], names: Mapping[str, Any]
    ) -> dict[str, tuple[str, ...]]:
        """By voter; empty for who abstains, does not answer, or says what is no vote."""
        found: dict[str, tuple[str, ...]] = {}
        for voter, result in zip(voters, results, strict=True):
            choice = None
            if result["ok"]:
                seen = {**names, "ballot": result["result"], "voter": voter}
                choice = self.program.value(state.choice, seen, self.allowance)
            try:
                found[voter] = (
                    () if choice is None else tuple(map(key_of, choice if isinstance(choice, list) else [choice]))
                )
            except InvalidBallotError as error:
                found[voter] = ()
                self.desk.say(
                    AuditEventType.VOTE_REFUSED, task_id=self.memory.task_id, agent_id=voter, reason=str(error)
                )
        return found

    # Control -------------------------------------------------------------------------------------------------

    def route(self, state: Route) -> str:
        names = self.memory.names()
        for case in state.cases:
            if self.program.holds(case.when, names, self.allowance):
                return case.next
        return state.otherwise

    def set_variables(self, state: SetVariables) -> str:
        names = self.memory.names()
        values = {name: self.program.value(text, names, self.allowance) for name, text in state.values.items()}
        for name, value in values.items():
            self.memory.save(name, value)
        return state.next

    def loop(self, state: Loop) -> str:
        memory = self.memory
        name, passes = memory.pc["s"], memory.pc["l"].get(memory.pc["s"], 0)
        if state.condition is not None and not self.program.holds(state.condition, memory.names(), self.allowance):
            following = state.next
        elif passes >= state.max:
            following = state.at_bound
        else:
            memory.change(l={**memory.pc["l"], name: passes + 1})
            return state.body
        memory.change(l={loop: n for loop, n in memory.pc["l"].items() if loop != name})
        return following

    # Waiting -------------------------------------------------------------------------------------------------

    def wait(self, state: Wait) -> str | None:
        memory = self.memory
        if state.event is not None:
            memory.await_event(state.event)
            following = self._take_event(state)
            if following is not None:
                return following
        if not memory.is_over(state.seconds):
            self._wake_at_limit(state.seconds)
            return None
        if state.event is None:
            return state.next
        message = f"no event {state.event} came in {state.seconds} s"
        error = {"state": memory.pc["s"], "code": EVENT_TIMEOUT, "message": message, "agent": ""}
        memory.post("error", error)
        if state.on_timeout is None:
            raise ProgramError(EVENT_TIMEOUT, message)
        return state.on_timeout

    def _take_event(self, state: Wait) -> str | None:
        """The next state if an event was taken; None while none is, or its payload is being looked up."""
        memory, desk = self.memory, self.desk
        waits_for = memory.pc["w"] or {"seen": 0, "errand": None, "heard": None}
        if waits_for["heard"] is not None:
            event_id, heard = waits_for["event"], waits_for["heard"]
            if not heard["ok"]:
                raise ProgramError(heard["code"], f"event {state.event}: {heard['message']}")
            seen = {**memory.names(), "event": heard["value"]}
            free = event_id in desk.state.kept
            if free and (state.when is None or self.program.holds(state.when, seen, self.allowance)):
                self._takes(event_id)
                memory.save(state.save, heard["value"])
                return state.next
            waits_for = {**waits_for, "heard": None}
        while waits_for["errand"] is None:
            arrival = min(
                (kept for kept in desk.state.kept.values()
                 if kept.type == state.event and kept.number > waits_for["seen"]),
                key=lambda kept: kept.number, default=None,
            )  # fmt: skip
            if arrival is None:
                break
            if state.when is None and state.save is None:
                self._takes(arrival.event_id)
                return state.next
            key = self._errand_key(f"event/{memory.pc['n']}/{arrival.number}")
            desk.send(key, EVENT_ERRAND, about=self.i, input={"event_id": arrival.event_id})
            waits_for = {"seen": arrival.number, "errand": key, "heard": None, "event": arrival.event_id}
        memory.change(w=waits_for)
        return None

    def _takes(self, event_id: str) -> None:
        self.desk.say(AuditEventType.TASK_TRIGGERED, task_id=self.memory.task_id, event_id=event_id)
        self.desk.take_event(event_id)

    def _value(self, text: str) -> Any:
        return self.program.value(text, self.memory.names(), self.allowance)


_STATES: Final[Mapping[type, Callable[[Run, Any], str | None]]] = {
    Assign: Run.assign,
    Escalate: Run.escalate,
    Spawn: Run.spawn,
    Gather: Run.gather,
    Vote: Run.vote,
    Route: Run.route,
    SetVariables: Run.set_variables,
    Loop: Run.loop,
    Compensate: Run.compensate,
    Wait: Run.wait,
    Finish: Run.finish,
}
