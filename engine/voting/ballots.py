"""What a member's answer says, and whether its vote may be cast: one a member a round, none from strangers."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from engine.voting.choices import InvalidBallotError, key_of, ranking_of

REASON_LENGTH_MAX: Final = 500
_FIELDS: Final = frozenset({"vote", "ranking", "proposal", "reason"})


class Refusal(StrEnum):
    """Why a vote is not counted."""

    STRANGER = "stranger"
    TWICE = "twice"
    LATE = "late"
    EARLY = "early"
    INVALID = "invalid"


@dataclass(frozen=True)
class Answer:
    """What a member said: a vote (several choices: a ranking; none: it abstains), or a proposal, and why."""

    choices: tuple[str, ...] = ()
    proposal: str | None = None
    reason: str | None = None


def read_answer(value: Any, *, proposing: bool, candidates: Collection[str] = (), ranked: bool = False) -> Answer:
    """A member's result as a ballot. Raises InvalidBallotError.

    `{"vote": choice}`, `{"ranking": [choices]}` or a bare choice; null abstains. `{"proposal": choice}` or a bare
    choice where proposals are asked for. `reason` may stand beside each.
    """
    said: Mapping[str, Any] = value if isinstance(value, dict) else {"proposal" if proposing else "vote": value}
    unknown = sorted(str(name) for name in said if name not in _FIELDS)
    if unknown:
        raise InvalidBallotError(f"{unknown[0][:50]} is no field of a vote: vote, ranking, proposal, reason")
    reason = said.get("reason")
    if reason is not None and not isinstance(reason, str):
        raise InvalidBallotError("a reason is a text")
    reason = reason[:REASON_LENGTH_MAX] if reason else None
    if proposing:
        if said.keys() & {"vote", "ranking"}:
            raise InvalidBallotError("proposals are asked for, not votes")
        proposal = said.get("proposal")
        return Answer(proposal=None if proposal is None else key_of(proposal), reason=reason)
    if "proposal" in said:
        raise InvalidBallotError("votes are asked for, not proposals")
    return Answer(choices=_choices(said, candidates, ranked), reason=reason)


def _choices(said: Mapping[str, Any], candidates: Collection[str], ranked: bool) -> tuple[str, ...]:
    if "vote" in said and "ranking" in said:
        raise InvalidBallotError("a vote or a ranking, not both")
    if "ranking" in said:
        choices = ranking_of(said["ranking"])
        if not ranked and len(choices) > 1:
            raise InvalidBallotError("this rule takes one choice, not a ranking")
    elif said.get("vote") is None:
        choices = ()
    elif isinstance(said["vote"], list):
        raise InvalidBallotError("a vote is one choice; several, best first, are a ranking")
    else:
        choices = (key_of(said["vote"]),)
    if candidates:
        strange = next((key for key in choices if key not in candidates), None)
        if strange is not None:
            raise InvalidBallotError(f"{strange[:100]} is not among the choices")
    return choices


def refusal(member: str, round_number: int, *, members: Collection[str], present: int | None,
            voted: Collection[str]) -> Refusal | None:  # fmt: skip
    """Whether this member may vote in this round; None: it may. `present` is the open round, None when there is none.

    `voted` are those whose vote of the open round is in.
    """
    if member not in members:
        return Refusal.STRANGER
    if present is None or round_number < present:
        return Refusal.LATE
    if round_number > present:
        return Refusal.EARLY
    return Refusal.TWICE if member in voted else None
