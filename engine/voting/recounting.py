"""Votes that were kept, counted again under another rule. Pure."""

from collections.abc import Iterable, Mapping
from typing import Any

from engine.contracts.voting import CountedRound, Recount, VotingRule
from engine.voting.choices import key_of, value_of
from engine.voting.rules import Poll, count

Count = tuple[int, Mapping[str, Any]]
"""(epoch, payload of its audit event)"""


def lot_seed(execution_id: str, task_id: str, round_number: int) -> str:
    """What lots are drawn by: the same whenever the votes are counted."""
    return f"{execution_id}/{task_id}/{round_number}"


def rounds_of(counts: Iterable[Count], votes: Iterable[Mapping[str, Any]]) -> list[CountedRound]:
    """Rounds from the payloads of their audit events: of each task one count, and the votes of that round."""
    cast: dict[str, dict[str, tuple[Any, ...]]] = {}
    for vote in votes:
        cast.setdefault(vote["task_id"], {}).setdefault(vote["agent_id"], tuple(vote["choices"]))
    apart = ("task_id", "role", "round", "candidates", "final")
    return [
        CountedRound(
            task_id=counted["task_id"],
            role=counted["role"],
            round=counted["round"],
            epoch=epoch,
            recorded={name: value for name, value in counted.items() if name not in apart},
            candidates=tuple(counted["candidates"]),
            votes=cast.get(counted["task_id"], {}),
        )
        for epoch, counted in counts
    ]


def recount(kept: CountedRound, rule: VotingRule, execution_id: str) -> Recount:
    """The same members, candidates, votes and lots; another rule."""
    members = [f"{kept.role}-{n}" for n in range(1, kept.recorded["members"] + 1)]
    candidates = [key_of(value) for value in kept.candidates]
    ballots = {name: [key_of(value) for value in choices] for name, choices in kept.votes.items()}
    outcome = count(rule, Poll(members, candidates, lot_seed(execution_id, kept.task_id, kept.round)), ballots)
    against = [
        name for name in members if (cast := ballots.get(name)) and outcome.stands_for(cast[0]) != outcome.choice
    ]
    decision = None if outcome.choice is None else value_of(outcome.choice)
    return Recount(
        task_id=kept.task_id,
        round=kept.round,
        recorded=kept.recorded,
        recounted={"rule": rule.model_dump(mode="json", exclude_defaults=True), **outcome.to_json()},
        changed=decision != kept.recorded["decision"],
        dissent=tuple(against),
    )
