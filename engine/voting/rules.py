"""Whether votes make a decision, under one of six rules. Pure: the same votes give the same, in whatever order.

Shares are exact fractions. A decision is only ever made for a choice that reached what its rule asks; two choices
cannot both reach it, except in a plurality (rule quorum), where the tie-break names one or none.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction
from typing import Any, Final

from engine.contracts.voting import VotingRule
from engine.voting.choices import first_of, natural, preference, value_of
from engine.voting.merging import merge_numbers

TALLY_SHOWN_MAX: Final = 100


class Verdict(StrEnum):
    """What a count comes to."""

    DECIDED = "decided"
    NO_VOTES = "no_votes"
    NO_QUORUM = "no_quorum"
    BELOW_THRESHOLD = "below_threshold"
    TIE = "tie"


@dataclass(frozen=True)
class Outcome:
    """One count. `tally` holds the weight of each choice (in a run-off: of its last stage), heaviest first."""

    verdict: Verdict
    choice: str | None
    tally: tuple[tuple[str, Fraction], ...]
    needed: Fraction | None
    """The weight to reach; None for a plurality. Where more than half is asked, half: it must be exceeded."""
    voted: int
    members: int
    tie_broken: bool = False
    eliminated: tuple[str, ...] = ()
    merged: Mapping[str, str] = field(default_factory=dict)

    @property
    def decided(self) -> bool:
        return self.verdict is Verdict.DECIDED

    def stands_for(self, key: str) -> str:
        return self.merged.get(key, key)

    def to_json(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "verdict": self.verdict.value,
            "decision": None if self.choice is None else value_of(self.choice),
            "tally": [{"choice": value_of(key), "weight": plain(w)} for key, w in self.tally[:TALLY_SHOWN_MAX]],
            "voted": self.voted,
            "members": self.members,
        }
        if self.needed is not None:
            shown["needed"] = plain(self.needed)
        if self.tie_broken:
            shown["tie_broken"] = True
        if self.eliminated:
            shown["eliminated"] = [value_of(key) for key in self.eliminated[:TALLY_SHOWN_MAX]]
        return shown


def plain(weight: Fraction) -> int | float:
    return weight.numerator if weight.denominator == 1 else round(float(weight), 6)


@dataclass(frozen=True)
class Poll:
    """Who may vote, in the members' order, on what, and the seed of drawn lots."""

    members: Sequence[str]
    candidates: Sequence[str] = ()
    seed: str = ""


def count(rule: VotingRule, poll: Poll, ballots: Mapping[str, Sequence[str]]) -> Outcome:
    """Count ballots: by member, the choices, best first; empty ones abstain. Ballots of strangers do not count."""
    known = set(poll.members)
    cast = {name: tuple(ballots[name]) for name in sorted(ballots) if name in known and ballots[name]}
    if rule.rule == "ranked_choice":
        return _run_off(rule, poll, cast)
    weights: dict[str, Fraction] = {}
    for name, ranking in cast.items():
        weights[ranking[0]] = weights.get(ranking[0], Fraction(0)) + weight_of(rule, name)
    merged: dict[str, str] = {}
    if rule.tolerance is not None:
        merged = merge_numbers(weights, rule.tolerance)
        together: dict[str, Fraction] = {}
        for key, weight in weights.items():
            stands = merged.get(key, key)
            together[stands] = together.get(stands, Fraction(0)) + weight
        weights = together
    tally = _sorted_tally(weights)
    base, needed = _needed(rule, poll, cast)

    def outcome(verdict: Verdict, choice: str | None = None, tie_broken: bool = False) -> Outcome:
        return Outcome(
            verdict, choice, tally, needed, len(cast), len(poll.members), tie_broken=tie_broken, merged=merged
        )

    lacking = _lacking(rule, poll, len(cast))
    if lacking is not None:
        return outcome(lacking)
    best = tally[0][1]
    if needed is None:
        equals = [key for key, weight in tally if weight == best]
        if len(equals) > 1 and rule.tie_break == "none":
            return outcome(Verdict.TIE)
        order = preference(rule.tie_break, poll.candidates, poll.seed)
        return outcome(Verdict.DECIDED, first_of(equals, order), len(equals) > 1)
    reached = best > needed if rule.least_share is None else best >= needed
    if reached and base > 0:
        return outcome(Verdict.DECIDED, tally[0][0])
    return outcome(Verdict.BELOW_THRESHOLD)


def settled(rule: VotingRule, poll: Poll, ballots: Mapping[str, Sequence[str]]) -> Outcome | None:
    """The outcome, if votes that are still out cannot change who is chosen; None while they can."""
    if rule.rule in ("quorum", "ranked_choice") or rule.tolerance is not None:
        return None
    found = count(rule.model_copy(update={"of": "members"}), poll, ballots)
    return found if found.decided else None


def weight_of(rule: VotingRule, member: str) -> Fraction:
    if rule.rule != "weighted":
        return Fraction(1)
    return Fraction(str(rule.weights.get(member, 1)))


def _needed(rule: VotingRule, poll: Poll, cast: Mapping[str, tuple[str, ...]]) -> tuple[Fraction, Fraction | None]:
    """(what the share is taken of, what must be reached)."""
    names = poll.members if rule.of == "members" else cast
    base = sum((weight_of(rule, name) for name in names), Fraction(0)) if rule.weights else Fraction(len(names))
    if rule.rule == "quorum":
        return base, None
    return base, base * (rule.least_share or Fraction(1, 2))


def _lacking(rule: VotingRule, poll: Poll, voted: int) -> Verdict | None:
    if voted < rule.quorum_share * len(poll.members):
        return Verdict.NO_QUORUM
    return None if voted else Verdict.NO_VOTES


def _sorted_tally(weights: Mapping[str, Fraction]) -> tuple[tuple[str, Fraction], ...]:
    return tuple(sorted(weights.items(), key=lambda item: (-item[1], natural(item[0]))))


def _run_off(rule: VotingRule, poll: Poll, cast: Mapping[str, tuple[str, ...]]) -> Outcome:
    """Instant run-off: while no choice has more than half of the ballots that still count, the weakest is struck."""
    piles: dict[str, list[tuple[str, ...]]] = {key: [] for ranking in cast.values() for key in ranking}
    for ranking in cast.values():
        piles[ranking[0]].append(ranking)
    order = preference(rule.tie_break, poll.candidates, poll.seed)
    eliminated: list[str] = []
    tie_broken = False

    def outcome(verdict: Verdict, choice: str | None = None) -> Outcome:
        tally = _sorted_tally({key: Fraction(len(pile)) for key, pile in piles.items()})
        half = sum((weight for _, weight in tally), Fraction(0)) / 2
        return Outcome(verdict, choice, tally, half, len(cast), len(poll.members), tie_broken, tuple(eliminated))

    lacking = _lacking(rule, poll, len(cast))
    if lacking is not None:
        return outcome(lacking)
    while True:
        counted = sum(map(len, piles.values()))
        best = max(map(len, piles.values()))
        if best * 2 > counted:
            return outcome(Verdict.DECIDED, max(piles, key=lambda key: len(piles[key])))
        least = min(map(len, piles.values()))
        weakest = [key for key, pile in piles.items() if len(pile) == least]
        if len(weakest) > 1 and least > 0:
            if rule.tie_break == "none" and len(weakest) == len(piles):
                return outcome(Verdict.TIE)
            tie_broken = True
        for key in _struck(rule, weakest, least, order):
            for ranking in piles.pop(key):
                heir = next((other for other in ranking if other in piles), None)
                if heir is not None:
                    piles[heir].append(ranking)
            eliminated.append(key)
        if not piles:
            return outcome(Verdict.TIE)


def _struck(rule: VotingRule, weakest: list[str], least: int, order: Any) -> list[str]:
    """Who goes: all that nobody put first; else the last of the weakest, or without a tie-break all of them."""
    ordered = sorted(weakest, key=natural if rule.tie_break == "none" else order)
    return ordered if least == 0 or rule.tie_break == "none" else ordered[-1:]
