"""Tasks on their way down: a lead is asked who of its team does one, and with what input."""

from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.kernel import Submission
from engine.contracts.patterns.hierarchical import DELEGATION_ACTION, DelegationAnswer
from engine.hierarchy import Hierarchy
from workflows.kernel.desk import Desk, NoRoomError
from workflows.kernel.state import RunState
from workflows.policies.hierarchy import answers, cases, rights
from workflows.policies.hierarchy.cases import Case, level_name
from workflows.policies.hierarchy.escalation import Escalations
from workflows.policies.hierarchy.rights import RefusedError, to_key

ASKED_PER_TICK_MAX: Final = 200
MEMBERS_SHOWN_MAX: Final = 100


class Delegations:
    """Holds nothing but the hierarchy; everything else is on the board."""

    def __init__(self, hierarchy: Hierarchy, escalations: Escalations) -> None:
        self._hierarchy = hierarchy
        self._escalations = escalations

    def awaited(self, state: RunState, i: int) -> bool:
        """The task waits for its lead's word, and nobody has been asked yet."""
        spec = state.specs[i]
        return (
            spec.role in self._hierarchy.delegated_roles
            and not spec.asked
            and delegated_key(spec.id) not in state.board
        )

    def begin(self, desk: Desk) -> None:
        """Ask about tasks that have become ready."""
        if not self._hierarchy.delegated_roles:
            return
        new = [i for i in desk.ready() if self.awaited(desk.state, i)]
        for i in new[:ASKED_PER_TICK_MAX]:
            team = self._hierarchy.superiors(desk.state.specs[i].role)[0].team
            self._ask(desk, i, Case(kind="delegation", team=team))

    def _ask(self, desk: Desk, i: int, case: Case) -> None:
        """The task goes as it is defined where the execution has no room for another question."""
        spec = desk.state.specs[i]
        asked_id = cases.own_id(desk.state, spec.id, "delegation")
        case = case.model_copy(update={"asked": asked_id, "answers": 0})
        desk.post(delegated_key(spec.id), True)
        try:
            desk.ask(
                i,
                asked_id,
                role=self._hierarchy.teams[case.team].lead,
                action=DELEGATION_ACTION,
                concerning=True,
                note={"delegation": self._told(desk, i, case)},
                timeout_ms=self._hierarchy.config.escalation.decision_timeout_seconds * 1000,
            )
        except NoRoomError:
            if desk.is_submitted(i):
                desk.again(i)
            return
        if not desk.is_submitted(i):
            desk.take(i)
        desk.post(cases.about_key(asked_id), spec.id)
        cases.keep_case(desk, i, case)

    def _told(self, desk: Desk, i: int, case: Case) -> dict[str, Any]:
        state, lead = desk.state, self._hierarchy.teams[case.team].lead
        action, resources = rights.action_of(state, i), state.specs[i].resources
        members = [
            {"agent_id": agent.agent_id, "role": role, "slots": agent.slots, "in_flight": agent.load}
            for role in self._hierarchy.reports(case.team)
            if role in state.by_role and self._hierarchy.refusal(role, action, resources) is None
            for agent in state.agents_of(role)[:MEMBERS_SHOWN_MAX]
        ]
        return {
            "id": case.asked,
            "task_id": state.specs[i].id,
            "role": state.specs[i].role,
            "team": case.team,
            "level": level_name(self._hierarchy.levels.get(lead, 1)),
            "members": members[:MEMBERS_SHOWN_MAX],
            "teams": [m for m in self._hierarchy.teams[case.team].members if m in self._hierarchy.teams],
        }

    # Answers -------------------------------------------------------------------------------------------------

    def unanswered(self, desk: Desk, asked: int, i: int, case: Case) -> None:
        """The lead's own attempts have failed."""
        submission = desk.state.submitted[asked]
        why = f"{submission.code}: {submission.message}"
        self._decided(desk, i, case, submission, None, "unsolved", why)
        cases.forget_asked(desk, submission.task_id)
        desk.drop(asked)
        self._escalations.raise_undelegated(desk, i, case, why)

    def answer(self, desk: Desk, asked: int, i: int, case: Case, document: Any) -> None:
        """Give the task to whom the lead has named. Raises RefusedError when that may not be."""
        given = answers.read(DelegationAnswer, document)
        state, submission = desk.state, desk.state.submitted[asked]
        if given.to in self._hierarchy.teams:
            self._check_team(case.team, given.to)
            order = rights.order(self._hierarchy, state, i, rights.doer(state, i), None, given.input)
        else:
            role = rights.receiver(self._hierarchy, state, case.team, given.to)
            order = rights.order(self._hierarchy, state, i, role, given.to, given.input)
        self._decided(desk, i, case, submission, given.to, "carried_out", None)
        cases.forget_asked(desk, submission.task_id)
        desk.accept(asked)
        if order.overlay is not None:
            desk.lay_over(i, order.overlay)
        if order.to is None:
            self._ask(desk, i, Case(kind="delegation", team=given.to))
            return
        desk.post(to_key(state.specs[i].id), order.to)
        desk.post(cases.case_key(state.specs[i].id), None)
        note = (
            None if given.feedback is None else {"delegation": {"by": submission.agent_id, "feedback": given.feedback}}
        )
        desk.again(i, note)

    def _check_team(self, team: str, to: str) -> None:
        if self._hierarchy.parent.get(to) != team:
            raise RefusedError(f"{to} is no member of {team}")
        if self._hierarchy.teams[to].delegation != "lead":
            raise RefusedError(f"the lead of {to} is not asked: name one of its roles or agents")

    def refuse(self, desk: Desk, asked: int, i: int, case: Case, document: Any, why: str) -> None:
        """Ask again; or have the lead's superior decide."""
        submission = desk.state.submitted[asked]
        named = document.get("to") if isinstance(document, dict) else None
        self._decided(desk, i, case, submission, named[:100] if isinstance(named, str) else None, "refused", why)
        case = case.model_copy(update={"answers": case.answers + 1})
        if case.answers < self._hierarchy.config.escalation.answers_max:
            cases.keep_case(desk, i, case)
            desk.again(asked, {"delegation": self._told(desk, i, case), "refused": why}, why)
            return
        cases.forget_asked(desk, submission.task_id)
        desk.accept(asked)
        self._escalations.raise_undelegated(desk, i, case, why)

    def _decided(
        self, desk: Desk, i: int, case: Case, submission: Submission, to: str | None, outcome: str, reason: str | None
    ) -> None:
        lead = self._hierarchy.teams[case.team].lead
        said: dict[str, Any] = {
            "level": level_name(self._hierarchy.levels.get(lead, 1)),
            "by": submission.agent_id or lead,
            "to": to,
            "outcome": outcome,
            "reason": reason,
        }
        desk.say(
            AuditEventType.DELEGATION_DECIDED,
            task_id=desk.state.specs[i].id,
            delegation_id=submission.task_id,
            team=case.team,
            **{name: value for name, value in said.items() if value is not None},
        )


def delegated_key(task_id: str) -> str:
    """On the board: its lead has been asked about this task."""
    return f"{task_id}/delegated"
