"""Swarm: every task is a question, which all agents of its role answer in rounds until their votes make a decision.

What is remembered of a question, all on the board: `swarm` (round, phase, how many were called and heard),
`v/<round>/<n>` (the vote of member n), `p/<round>/<n>` (its proposal), `candidates`. Votes of the last two rounds are
kept there; all of them are in the audit log, from where they can be counted again.
"""

from collections.abc import Mapping
from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.kernel import Submission
from engine.contracts.patterns.swarm import Question, SwarmConfig
from engine.contracts.voting import fraction_of
from engine.topology import Topology
from engine.voting import (
    InvalidBallotError,
    Outcome,
    Poll,
    Refusal,
    count,
    key_of,
    read_answer,
    refusal,
    settled,
    spread,
    stable_share,
    value_of,
)
from engine.voting.recounting import lot_seed
from engine.voting.rules import plain
from workflows.kernel.desk import Desk, NoRoomError
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState
from workflows.policies.assembly import (
    ERROR,
    Assembly,
    Budget,
    due_ms,
    heard_by_task,
    is_failing,
    take_ready,
    taken_over,
)

NO_DECISION: Final = "NO_DECISION"
NO_ROOM: Final = "TOO_MANY_MEMBERS"
TALLY_TOLD_MAX: Final = 10
DISSENT_SHOWN_MAX: Final = 100

PROPOSE: Final = "propose"
VOTE: Final = "vote"


class SwarmPolicy(Policy):
    """Decides when rounds begin and end; `engine.voting` decides what votes come to."""

    coordinates = True

    def __init__(self) -> None:
        self._config: SwarmConfig | None = None
        self._questions: dict[str, Question] = {}
        self._members: dict[str, tuple[str, ...]] = {}

    def react(self, desk: Desk) -> None:
        take_ready(desk)
        heard = heard_by_task(desk)
        budget = Budget()
        for i in taken_over(desk.state):
            question = self._question(desk.state, i)
            assembly = Assembly(desk, i, self._members_of(desk.state, i), budget)
            if assembly.is_given_up():
                continue
            try:
                Deliberation(assembly, question).proceed(heard.get(i, ()))
            except NoRoomError as error:
                assembly.give_up(NO_ROOM, str(error))
        take_ready(desk)  # what waited for a task that is over now

    def next_due_ms(self, state: RunState) -> int | None:
        found: list[int] = []
        for i in taken_over(state):
            head = state.board.get(f"{state.specs[i].id}/swarm")
            if head is None or is_failing(state, i) or head["called"] < len(state.agents_of(state.specs[i].role)):
                return 0
            seconds = self._question(state, i).round_seconds
            if seconds is not None:
                found.append(due_ms(state, head["at_ms"], head["paused_ms"], int(seconds * 1000)))
        return min(found, default=None)

    def _question(self, state: RunState, i: int) -> Question:
        name = state.specs[i].id
        if self._config is None:
            self._config = SwarmConfig.model_validate(state.launch.pattern_config)
        if name not in self._questions:
            own = name in self._config.questions
            self._questions[name] = self._config.question(name) if own else self._config
        return self._questions[name]

    def _members_of(self, state: RunState, i: int) -> tuple[str, ...]:
        role = state.specs[i].role
        if role not in self._members:
            self._members[role] = tuple(agent.agent_id for agent in state.agents_of(role))
        return self._members[role]


class Deliberation:
    """One question, in one tick."""

    def __init__(self, assembly: Assembly, question: Question) -> None:
        self.members = assembly
        self.question = question
        self.desk = assembly.desk
        self.size = len(assembly.members)
        head = assembly.get("swarm")
        if head is None:
            phase = VOTE if question.proposals == "none" else PROPOSE
            head = {"round": 1, "phase": phase, "stable": 0, **self._beginning()}
        self.head: dict[str, Any] = dict(head)
        self._links: Topology | None = None
        self._choices: tuple[str, ...] | None = None

    def proceed(self, heard: Any) -> None:
        for n, j in heard:
            self._hear(n, self.members.state.submitted[j])
        self._call_the_others()
        if self._is_over():
            self._end_phase()
        elif self.question.early and self.head["phase"] == VOTE and heard:
            outcome = settled(self.question.voting, self._poll(), self._ballots(self.head["round"]))
            if outcome is not None:
                self._decide(outcome)
                return
        if self.desk.is_submitted(self.members.i) and not self.members.get(ERROR):
            self.members.post("swarm", self.head)

    # Calling and hearing -------------------------------------------------------------------------------------

    def _beginning(self) -> dict[str, Any]:
        """Of a phase."""
        return {"called": 0, "heard": 0, "at_ms": self.desk.now_ms, "paused_ms": self.members.state.paused_ms}

    def _call_the_others(self) -> None:
        budget = self.members.budget
        while self.head["called"] < self.size and not budget.spent:
            self._call(self.head["called"])
            self.head["called"] += 1

    def _call(self, n: int) -> None:
        """A member that still works on an earlier round is called when it has answered that."""
        self.members.call(n, self._note(n), {"swarm": self._about(n)})

    def _about(self, n: int) -> dict[str, Any]:
        """What stays the same from round to round."""
        about: dict[str, Any] = {"member": self.members.members[n], "members": self.size,
                                 "rule": self.question.voting.rule}  # fmt: skip
        if self.question.options:
            about["options"] = self.question.options
        return about

    def _note(self, n: int) -> dict[str, Any]:
        round_number = self.head["round"]
        note: dict[str, Any] = {"round": round_number, "phase": self.head["phase"]}
        if not self.question.options and self._candidates():
            note["candidates"] = [value_of(key) for key in self._candidates()]
        if round_number > 1:
            own = self._vote(round_number - 1, n)
            if own:
                note["own"] = _shown(own)
            note.update(self._seen(n, round_number - 1))
        return note

    def _seen(self, n: int, round_number: int) -> dict[str, Any]:
        """The neighbours' last votes; where they are too many, how often each choice was voted for."""
        config, shown_max = self.question.topology, self.question.shown_max
        if config.kind == "full" and self.size - 1 > shown_max:
            return {"tally": self.head.get("tally", [])}
        names = self.members.members
        around = self._topology().of(n)
        votes = {other: cast for other in around if (cast := self._vote(round_number, other))}
        if len(around) > shown_max:
            weights: dict[str, int] = {}
            for cast in votes.values():
                weights[cast[0]] = weights.get(cast[0], 0) + 1
            ordered = sorted(weights.items(), key=lambda item: (-item[1], item[0]))
            return {"tally": [[value_of(key), weight] for key, weight in ordered[:TALLY_TOLD_MAX]]}
        return {"seen": {names[other]: _shown(cast) for other, cast in votes.items()}}

    def _topology(self) -> Topology:
        if self._links is None:
            self._links = Topology(self.question.topology, self.members.members)
        return self._links

    def _hear(self, n: int, said: Submission) -> None:
        told, head = self.members.note_of(n), self.head
        member, round_number, phase = self.members.members[n], told.get("round", 0), told.get("phase", VOTE)
        slot = f"{'v' if phase == VOTE else 'p'}/{round_number}/{n}"
        present = head["round"] if phase == head["phase"] or round_number > head["round"] else None
        voted = () if self.members.get(slot) is None else (member,)
        refused = refusal(member, round_number, members=self.members.members, present=present, voted=voted)
        if refused is not None:
            self._refuse(member, round_number, refused, f"round {head['round']} of {phase} is under way")
            if n < head["called"]:
                self._call(n)
            return
        head["heard"] += 1
        self.members.post(slot, self._read(member, said))

    def _read(self, member: str, said: Submission) -> list[str]:
        """What counts of a member's answer: the choices, or its proposal; nothing when it failed or said nothing."""
        if said.failed:
            return []
        proposing, round_number = self.head["phase"] == PROPOSE, self.head["round"]
        try:
            if said.result_ref is not None:
                raise InvalidBallotError("the answer is too large for a vote")
            ranked = self.question.voting.rule == "ranked_choice"
            answer = read_answer(said.result, proposing=proposing, candidates=self._candidates(), ranked=ranked)
        except InvalidBallotError as error:
            self._refuse(member, round_number, Refusal.INVALID, str(error))
            return []
        shown: dict[str, Any] = {"reason": answer.reason} if answer.reason else {}
        where = {"task_id": self.members.name, "round": round_number, "agent_id": member}
        if proposing:
            if answer.proposal is None:
                return []
            self.desk.say(
                AuditEventType.VOTE_PROPOSED, said.at_ms, **where, proposal=value_of(answer.proposal), **shown
            )
            return [answer.proposal]
        votes = [value_of(key) for key in answer.choices]
        self.desk.say(AuditEventType.VOTE_CAST, said.at_ms, **where, choices=votes, **shown)
        return list(answer.choices)

    def _refuse(self, member: str, round_number: int, why: Refusal, message: str) -> None:
        self.desk.say(
            AuditEventType.VOTE_REFUSED,
            task_id=self.members.name,
            round=round_number,
            agent_id=member,
            reason=why.value,
            message=message,
        )

    # Ends ----------------------------------------------------------------------------------------------------

    def _is_over(self) -> bool:
        if self.head["heard"] >= self.size:
            return True
        seconds = self.question.round_seconds
        if seconds is None or self.members.state.paused:
            return False
        due = due_ms(self.members.state, self.head["at_ms"], self.head["paused_ms"], int(seconds * 1000))
        return due <= self.desk.now_ms

    def _end_phase(self) -> None:
        if self.head["phase"] == PROPOSE:
            self._close_proposals()
        else:
            self._count()

    def _close_proposals(self) -> None:
        """Those most often made are voted on; of equals those of the earlier members."""
        made: dict[str, list[int]] = {}
        for n in range(self.size):
            for key in self.members.get(f"p/{self.head['round']}/{n}") or ():
                made.setdefault(key, []).append(n)
            self.members.post(f"p/{self.head['round']}/{n}", None)
        ordered = sorted(made, key=lambda key: (-len(made[key]), made[key][0]))
        if not ordered:
            self.members.give_up(NO_DECISION, f"nobody proposed anything in round {self.head['round']}")
            return
        self.members.post("candidates", ordered[: self.question.candidates_max])
        self._begin(VOTE)

    def _count(self) -> None:
        round_number = self.head["round"]
        ballots = self._ballots(round_number)
        outcome = count(self.question.voting, self._poll(), ballots)
        before = self._ballots(round_number - 1) if round_number > 1 else None
        if outcome.decided:
            self._decide(outcome)
            return
        stable = before is not None and stable_share(before, ballots) >= fraction_of(self.question.convergence.share)
        self.head["stable"] = self.head["stable"] + 1 if stable else 0
        converged = self.head["stable"] >= self.question.convergence.rounds
        last = converged or round_number >= self.question.rounds_max
        self._say_counted(outcome, final=last)
        if last:
            self._leave_undecided(outcome, converged)
            return
        for n in range(self.size):
            self.members.post(f"v/{round_number - 1}/{n}", None)
        self.head["tally"] = [[value_of(key), plain(weight)] for key, weight in outcome.tally[:TALLY_TOLD_MAX]]
        self.head["round"] = round_number + 1
        self._begin(PROPOSE if self.question.proposals == "every" else VOTE)

    def _begin(self, phase: str) -> None:
        self.head.update(self._beginning(), phase=phase)
        self._choices = None
        self._call_the_others()

    def _decide(self, outcome: Outcome) -> None:
        self._say_counted(outcome, final=True)
        result = self._result(outcome, converged=False)
        self.members.dismiss()
        self.desk.resolve(self.members.i, result)

    def _leave_undecided(self, outcome: Outcome, converged: bool) -> None:
        if self.question.on_undecided == "complete":
            result = self._result(outcome, converged)
            self.members.dismiss()
            self.desk.resolve(self.members.i, result)
            return
        why = "nobody changes the vote any more" if converged else "no more rounds"
        message = f"no decision in {self.head['round']} rounds ({outcome.verdict.value}): {why}"
        self.members.give_up(NO_DECISION, message)

    def _result(self, outcome: Outcome, converged: bool) -> dict[str, Any]:
        round_number = self.head["round"]
        ballots = self._ballots(round_number)
        against = [name for name, cast in ballots.items() if cast and outcome.stands_for(cast[0]) != outcome.choice]
        result: dict[str, Any] = {
            **outcome.to_json(),
            "rule": self.question.voting.rule,
            "rounds": round_number,
            "dissent": [{"agent_id": name, "choices": _shown(ballots[name])} for name in against[:DISSENT_SHOWN_MAX]],
            "dissent_total": len(against),
            "converged": converged,
        }
        width = spread(cast[0] for cast in ballots.values() if cast)
        if width is not None:
            result["spread"] = width
        return result

    def _say_counted(self, outcome: Outcome, *, final: bool) -> None:
        self.desk.say(
            AuditEventType.VOTE_COUNTED,
            task_id=self.members.name,
            round=self.head["round"],
            role=self.members.state.specs[self.members.i].role,
            rule=self.question.voting.model_dump(mode="json", exclude_defaults=True),
            candidates=[value_of(key) for key in self._candidates()],
            final=final,
            **outcome.to_json(),
        )

    # Votes ---------------------------------------------------------------------------------------------------

    def _candidates(self) -> tuple[str, ...]:
        """What may be voted for in the present phase; empty: anything."""
        if self._choices is None:
            if self.question.options:
                self._choices = tuple(key_of(option) for option in self.question.options)
            else:
                self._choices = tuple(self.members.get("candidates") or ()) if self.head["phase"] == VOTE else ()
        return self._choices

    def _vote(self, round_number: int, n: int) -> list[str]:
        found: list[str] = self.members.get(f"v/{round_number}/{n}") or []
        return found

    def _ballots(self, round_number: int) -> Mapping[str, list[str]]:
        names = self.members.members
        return {names[n]: cast for n in range(self.size) if (cast := self._vote(round_number, n))}

    def _poll(self) -> Poll:
        seed = lot_seed(self.members.state.launch.execution_id, self.members.name, self.head["round"])
        return Poll(self.members.members, self._candidates(), seed)


def _shown(cast: list[str]) -> Any:
    """One choice as it is, a ranking as a list."""
    values = [value_of(key) for key in cast]
    return values[0] if len(values) == 1 else values
