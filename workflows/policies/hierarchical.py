"""Hierarchical: teams on levels. Work goes down to the members, failures go up to the leads, each within its authority.

Tasks that nobody leads differently go to the least-loaded agent of their role, critical path first, as with a
supervisor; so does what a lead has given to a role. What the pattern adds stands in `workflows.policies.hierarchy`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from engine.contracts.dynamic import SpawnedBody
from engine.contracts.patterns.hierarchical import HierarchicalConfig
from engine.hierarchy import NOT_AUTHORISED, Hierarchy, resources_of
from workflows.kernel.desk import Desk
from workflows.kernel.policy import Policy, least_loaded, window
from workflows.kernel.state import AgentRun, RunState
from workflows.policies.hierarchy import answers, cases, rights
from workflows.policies.hierarchy.delegation import Delegations
from workflows.policies.hierarchy.escalation import Escalations
from workflows.policies.hierarchy.rights import RefusedError

Waiting = list[tuple[int, int]]


class HierarchicalPolicy(Policy):
    """Judges what the leads answer, and failures that would be for good where somebody is above."""

    coordinates = True

    def __init__(self, config: HierarchicalConfig) -> None:
        self.hierarchy = Hierarchy(config)
        self._escalations = Escalations(self.hierarchy)
        self._delegations = Delegations(self.hierarchy, self._escalations)

    def judges_failure(self, state: RunState, i: int) -> bool:
        spec = state.specs[i]
        return spec.asked or self._escalations.reaches(spec.role)

    def refuses_added(self, state: RunState, i: int, bodies: Sequence[SpawnedBody]) -> str | None:
        """Tasks that a result adds are for roles that may do them, and for nobody above whose result it is."""
        adding = rights.doer(state, i)
        for item in bodies:
            refusal = self._refuses_body(adding, item.body)
            if refusal is not None:
                return f"{NOT_AUTHORISED}: {item.task_id}: {refusal}"
        return None

    def _refuses_body(self, adding: str, body: dict[str, Any]) -> str | None:
        role = body["agent"]
        if any(superior.role == role for superior in self.hierarchy.superiors(adding)):
            return f"{adding} may not give work to {role}, which is above it"
        resources = resources_of(body.get("input") or {})
        if resources is None:
            return "input.resources is not a list of names"
        named = (body.get("action") or body["id"], body.get("compensation_action"))
        refusals = (self.hierarchy.refusal(role, action, resources) for action in named if action is not None)
        return next((refusal for refusal in refusals if refusal is not None), None)

    # What comes in -------------------------------------------------------------------------------------------

    def react(self, desk: Desk) -> None:
        for i in desk.submitted:
            if not desk.is_submitted(i):
                continue
            if desk.state.specs[i].asked:
                self._answered(desk, i)
            else:
                self._escalations.raise_failure(desk, i)
        for key in sorted(desk.outcomes):
            errand, outcome = desk.outcomes[key]
            asked = desk.state.index.get(errand.task_id)
            if asked is not None and desk.is_submitted(asked):
                self._take(desk, asked, lambda outcome=outcome: answers.fetched(outcome))
        self._delegations.begin(desk)

    def _answered(self, desk: Desk, asked: int) -> None:
        """A lead has answered, or given up."""
        submission = desk.state.submitted[asked]
        about = cases.subject_of(desk.state, asked)
        if about is None:
            self._let_go(desk, asked)
        elif submission.failed:
            i, case = about
            self._side(case).unanswered(desk, asked, i, case)
        elif submission.result_ref is not None:
            key = f"{submission.task_id}/answer"
            desk.send(key, answers.JUDGE, about=asked, input=answers.fetching(submission.result_ref))
        else:
            self._take(desk, asked, lambda: submission.result)

    def _take(self, desk: Desk, asked: int, document_of: Any) -> None:
        about = cases.subject_of(desk.state, asked)
        if about is None:
            self._let_go(desk, asked)
            return
        i, case = about
        document = None
        try:
            document = document_of()
            self._side(case).answer(desk, asked, i, case, document)
        except RefusedError as error:
            self._side(case).refuse(desk, asked, i, case, document, str(error))

    def _side(self, case: cases.Case) -> Escalations | Delegations:
        return self._escalations if case.kind == "escalation" else self._delegations

    def _let_go(self, desk: Desk, asked: int) -> None:
        """Nobody waits for it any more: its task runs again from a checkpoint, or is done."""
        submission = desk.state.submitted[asked]
        cases.forget_asked(desk, submission.task_id)
        if submission.failed:
            desk.drop(asked)
        else:
            desk.accept(asked)

    # What goes out -------------------------------------------------------------------------------------------

    def assignments(self, state: RunState) -> Iterator[tuple[int, str]]:
        room = _Room(self.hierarchy, state)
        for i, agent_id in self._wanted(state):
            if state.specs[i].asked or room.take(state.agents[agent_id].role):
                yield i, agent_id

    def _wanted(self, state: RunState) -> Iterator[tuple[int, str]]:
        if state.ready_alone:
            yield from self._alone(state)
            return
        if any(state.specs[i].alone for i in state.in_flight):
            return
        given = _given_to(state)
        for role in sorted(state.ready):
            if state.ready[role]:
                yield from self._share(state, role, given)

    def _share(self, state: RunState, role: str, given: Mapping[str, str]) -> Iterator[tuple[int, str]]:
        """Tasks that were given to somebody go there; the others wait for their lead, or go to any of the role."""
        waiting = state.ready[role]
        if not given and role not in self.hierarchy.delegated_roles:
            yield from self.share_out(state, role, waiting)
            return
        elsewhere: dict[str, Waiting] = {}
        free: Waiting = []
        for item in tuple(waiting):
            to = given.get(state.specs[item[1]].id)
            if to is not None:
                elsewhere.setdefault(to, []).append(item)
            elif not self._delegations.awaited(state, item[1]):
                free.append(item)
        for to in sorted(elsewhere):
            yield from self._to(state, to, elsewhere[to])
        yield from self.share_out(state, role, free)

    def _to(self, state: RunState, to: str, waiting: Waiting) -> Iterator[tuple[int, str]]:
        agent = state.agents.get(to)
        if agent is None:
            yield from least_loaded(state, to, waiting)
        elif agent.takes_work:
            for _, i in waiting[: max(window(state, agent) - agent.load, 0)]:
                yield i, to

    def _alone(self, state: RunState) -> Iterator[tuple[int, str]]:
        """A task that must run alone waits until nothing runs, and nothing new starts before it."""
        if state.in_flight:
            return
        for _, i in state.ready_alone:
            if self._delegations.awaited(state, i):
                continue
            to = state.board.get(rights.to_key(state.specs[i].id)) or state.specs[i].agent or state.specs[i].role
            for agent in self._named(state, to):
                if agent.takes_work:
                    yield i, agent.agent_id
                    return

    def _named(self, state: RunState, name: str) -> Sequence[AgentRun]:
        agent = state.agents.get(name)
        return state.by_role.get(name, ()) if agent is None else (agent,)


def _given_to(state: RunState) -> dict[str, str]:
    """Tasks that somebody was given, and to whom."""
    return {key.removesuffix(rights.TO): to for key, to in state.board.items() if key.endswith(rights.TO)}


class _Room:
    """How much more may be in flight below each lead that has a limit; what leads are asked does not count."""

    def __init__(self, hierarchy: Hierarchy, state: RunState) -> None:
        self._hierarchy = hierarchy
        self._left = dict(hierarchy.in_flight_max)
        if self._left:
            for i in state.in_flight:
                agent = state.agents.get(state.tasks[i].agent_id or "")
                if agent is not None and not state.specs[i].asked:
                    self._count(agent.role)

    def _count(self, role: str) -> None:
        for team in self._hierarchy.above(role):
            if team in self._left:
                self._left[team] -= 1

    def take(self, role: str) -> bool:
        """Whether one of this role may start one more task; if so, it is counted."""
        if not self._left:
            return True
        if any(self._left.get(team, 1) <= 0 for team in self._hierarchy.above(role)):
            return False
        self._count(role)
        return True
