"""Failures on their way up: level by level, until one solves them or there is none above.

A failure goes to the direct superior of the role that failed. What the superior cannot or may not solve goes to the
next one, never past one. Each level decides a limited number of times about a task; so everything ends.
"""

from typing import Any, Final

from engine.contracts.events import AuditEventType
from engine.contracts.kernel import Submission
from engine.contracts.patterns.hierarchical import ESCALATION_ACTION, EscalationAnswer
from engine.hierarchy import NOT_AUTHORISED, Hierarchy, Superior
from workflows.kernel.desk import Desk, NoRoomError
from workflows.policies.hierarchy import answers, cases, rights
from workflows.policies.hierarchy.cases import Case, level_name
from workflows.policies.hierarchy.rights import RefusedError, to_key

SHOWN_MAX: Final = 50
"""Roles that a superior is told of, to give the task to."""

DELEGATION_FAILED: Final = "DELEGATION_FAILED"


class Escalations:
    """Holds nothing but the hierarchy; everything else is on the board."""

    def __init__(self, hierarchy: Hierarchy) -> None:
        self._hierarchy = hierarchy

    def reaches(self, role: str) -> bool:
        """Somebody is above this role."""
        return bool(self._hierarchy.superiors(role))

    # Up ------------------------------------------------------------------------------------------------------

    def raise_failure(self, desk: Desk, i: int) -> None:
        """An attempt has failed for good."""
        submission = desk.state.submitted[i]
        case = cases.find_case(desk.state, i) or Case()
        if case.used >= self._hierarchy.config.escalation.interventions_max:
            case = case.model_copy(update={"rung": case.rung + 1, "used": 0})
        case = case.model_copy(
            update={
                "kind": "escalation",
                "code": submission.code,
                "message": submission.message[: cases.TEXT_LENGTH_MAX],
            }
        )
        self._ask(desk, i, case)

    def raise_undelegated(self, desk: Desk, i: int, case: Case, why: str) -> None:
        """The lead could not say who is to do it: its superior decides."""
        failed = {"kind": "escalation", "code": DELEGATION_FAILED, "message": why[: cases.TEXT_LENGTH_MAX]}
        # A team that the task was handed down to is not in the chain of its role: then the nearest superior of that is.
        rung = next((n + 1 for n, s in enumerate(self._chain(desk, i)) if s.team == case.team), 0)
        self._ask(desk, i, case.model_copy(update={**failed, "rung": rung, "used": 0}))

    def _chain(self, desk: Desk, i: int) -> tuple[Superior, ...]:
        return self._hierarchy.superiors(desk.state.specs[i].role)

    def _ask(self, desk: Desk, i: int, case: Case) -> None:
        """Ask the superior on the case's rung; without one the failure is final."""
        chain, spec = self._chain(desk, i), desk.state.specs[i]
        if case.rung >= len(chain):
            cases.keep_case(desk, i, case.model_copy(update={"asked": None}))
            desk.fail(i, case.code, desk.state.submitted[i].message or case.message)
            return
        superior, below = chain[case.rung], self._below(desk, i, case.rung)
        asked_id = cases.own_id(desk.state, spec.id, "escalation")
        case = case.model_copy(update={"asked": asked_id, "team": superior.team, "answers": 0})
        try:
            desk.ask(
                i,
                asked_id,
                role=superior.role,
                action=ESCALATION_ACTION,
                concerning=True,
                note={"escalation": self._told(desk, i, case, superior, below)},
                timeout_ms=self._hierarchy.config.escalation.decision_timeout_seconds * 1000,
            )
        except NoRoomError as error:
            desk.fail(i, case.code, f"{case.message} (not escalated: {error})")
            return
        desk.post(cases.about_key(asked_id), spec.id)
        cases.keep_case(desk, i, case)
        desk.say(
            AuditEventType.ESCALATION_RAISED,
            task_id=spec.id,
            escalation_id=asked_id,
            attempt=desk.state.submitted[i].attempt,
            from_level=level_name(below),
            to_level=level_name(superior.level),
            team=superior.team,
            lead=superior.role,
            error={"code": case.code, "message": case.message},
        )

    def _below(self, desk: Desk, i: int, rung: int) -> int:
        """The level that could not solve it."""
        if rung:
            return self._chain(desk, i)[rung - 1].level
        return self._hierarchy.levels.get(desk.state.specs[i].role, 1)

    def _told(self, desk: Desk, i: int, case: Case, superior: Superior, below: int) -> dict[str, Any]:
        state, submission = desk.state, desk.state.submitted[i]
        decisions = ("retry", "reassign", "resolve", "fail")
        receivers = [
            r for r in sorted(state.plan.roles) if r == superior.role or self._hierarchy.is_below(r, case.team)
        ]
        action = rights.action_of(state, i)
        able = [r for r in receivers if self._hierarchy.refusal(r, action, state.specs[i].resources) is None]
        may = [d for d in decisions if self._hierarchy.decision_refusal(superior.role, d) is None]
        return {
            "id": case.asked,
            "task_id": state.specs[i].id,
            "role": state.specs[i].role,
            "agent_id": submission.agent_id or None,
            "team": case.team,
            "from_level": level_name(below),
            "level": level_name(superior.level),
            "error": {"code": case.code, "message": submission.message or case.message},
            "attempts": submission.attempt,
            "history": list(case.history),
            "decisions": [*may, "escalate"],
            "reassign_to": able[:SHOWN_MAX],
        }

    # Down ----------------------------------------------------------------------------------------------------

    def unanswered(self, desk: Desk, asked: int, i: int, case: Case) -> None:
        """The superior's own attempts have failed: its level cannot solve it."""
        submission = desk.state.submitted[asked]
        why = f"{submission.code}: {submission.message}"
        case = self._decided(desk, i, case, submission, None, "unsolved", why)
        cases.forget_asked(desk, submission.task_id)
        desk.drop(asked)
        self._go_up(desk, i, case)

    def answer(self, desk: Desk, asked: int, i: int, case: Case, document: Any) -> None:
        """Carry out what the superior has decided. Raises RefusedError when that may not be."""
        given = answers.read(EscalationAnswer, document)
        submission, superior = desk.state.submitted[asked], self._chain(desk, i)[case.rung]
        if given.decision == "escalate":
            case = self._decided(desk, i, case, submission, "escalate", "unsolved", given.reason)
            self._settle(desk, asked)
            self._go_up(desk, i, case)
            return
        refusal = self._hierarchy.decision_refusal(superior.role, given.decision)
        if refusal is not None:
            raise RefusedError(f"{NOT_AUTHORISED}: {refusal}")
        order = self._order(desk, i, case, given)
        case = self._decided(desk, i, case, submission, given.decision, "carried_out", given.reason, given.to)
        self._settle(desk, asked)
        cases.keep_case(desk, i, case.model_copy(update={"asked": None, "used": case.used + 1}))
        self._carry_out(desk, i, case, given, order, superior)

    def refuse(self, desk: Desk, asked: int, i: int, case: Case, document: Any, why: str) -> None:
        """The answer makes no sense, or asks for what may not be: ask again, or go on to the next level."""
        submission = desk.state.submitted[asked]
        decision = document.get("decision") if isinstance(document, dict) else None
        to = document.get("to") if isinstance(document, dict) else None
        case = self._decided(desk, i, case, submission, _text(decision), "refused", why, _text(to))
        case = case.model_copy(update={"answers": case.answers + 1})
        if case.answers < self._hierarchy.config.escalation.answers_max:
            told = self._told(desk, i, case, self._chain(desk, i)[case.rung], self._below(desk, i, case.rung))
            cases.keep_case(desk, i, case)
            desk.again(asked, {"escalation": told, "refused": why}, why)
            return
        self._settle(desk, asked)
        self._go_up(desk, i, case)

    def _settle(self, desk: Desk, asked: int) -> None:
        cases.forget_asked(desk, desk.state.specs[asked].id)
        desk.accept(asked)

    def _go_up(self, desk: Desk, i: int, case: Case) -> None:
        self._ask(desk, i, case.model_copy(update={"rung": case.rung + 1, "used": 0}))

    def _order(self, desk: Desk, i: int, case: Case, given: EscalationAnswer) -> rights.Order | None:
        if given.decision == "retry":
            role = rights.doer(desk.state, i)
        elif given.decision == "reassign":
            role = rights.receiver(self._hierarchy, desk.state, case.team, given.to or "")
        else:
            return None
        return rights.order(self._hierarchy, desk.state, i, role, given.to, given.input)

    def _carry_out(
        self, desk: Desk, i: int, case: Case, given: EscalationAnswer, order: rights.Order | None, superior: Superior
    ) -> None:
        if order is not None:
            if order.to is not None:
                desk.post(to_key(desk.state.specs[i].id), order.to)
            if order.overlay is not None:
                desk.lay_over(i, order.overlay)
            told = {"level": level_name(superior.level), "decision": given.decision, "feedback": given.feedback,
                    "error": {"code": case.code, "message": case.message}}  # fmt: skip
            desk.again(i, {"escalation": told})
        elif given.decision == "resolve":
            desk.resolve(i, given.result)
        else:
            why = given.reason or f"given up by {superior.role} (level {level_name(superior.level)})"
            desk.fail_branch(i, case.code, f"{why}; {case.message}")

    def _decided(
        self,
        desk: Desk,
        i: int,
        case: Case,
        submission: Submission,
        decision: str | None,
        outcome: str,
        reason: str | None,
        to: str | None = None,
    ) -> Case:
        """Into the audit log, and into the case's history."""
        superior = self._chain(desk, i)[case.rung]
        said: dict[str, Any] = {
            "level": level_name(superior.level),
            "by": submission.agent_id or superior.role,
            "decision": decision,
            "outcome": outcome,
            "reason": reason,
            "to": to,
        }
        desk.say(
            AuditEventType.ESCALATION_DECIDED,
            task_id=desk.state.specs[i].id,
            escalation_id=submission.task_id,
            team=case.team,
            **{name: value for name, value in said.items() if value is not None},
        )
        error = {"code": case.code, "message": case.message}
        attempt = desk.state.submitted[i].attempt
        return case.model_copy(update={"history": case.with_entry(**said, error=error, attempt=attempt)})


def _text(value: Any) -> str | None:
    """A name that an answer gives, if it is one."""
    return value[:100] if isinstance(value, str) else None
