"""Votes that were kept come to the same under the same rule, and may come to something else under another."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.voting import VotingRule
from engine.voting import Poll, count, key_of
from engine.voting.recounting import lot_seed, recount, rounds_of


def counted(rule: VotingRule, votes: dict[str, list[Any]], members: int) -> dict[str, Any]:
    """The payload of the audit event, as the swarm writes it."""
    poll = Poll([f"m-{n}" for n in range(1, members + 1)], [key_of(c) for c in "abc"], lot_seed("x", "ask", 2))
    outcome = count(rule, poll, {name: [key_of(c) for c in choices] for name, choices in votes.items()})
    where = {"task_id": "ask", "role": "m", "round": 2, "candidates": ["a", "b", "c"], "final": True}
    return {**where, "rule": rule.model_dump(mode="json", exclude_defaults=True), **outcome.to_json()}


@given(
    votes=st.dictionaries(st.sampled_from(["m-1", "m-2", "m-3", "m-4"]), st.lists(st.sampled_from("abc"), max_size=1)),
    rule=st.sampled_from(["majority", "supermajority", "unanimous", "ranked_choice", "quorum"]),
)
def test_under_the_same_rule_nothing_changes(votes: dict[str, list[Any]], rule: Any) -> None:
    voting = VotingRule(rule=rule, tie_break="seeded")
    payload = counted(voting, votes, 4)
    cast = [{"task_id": "ask", "agent_id": name, "choices": choices} for name, choices in votes.items()]
    (kept,) = rounds_of([(1, payload)], cast)
    again = recount(kept, voting, "x")
    assert not again.changed
    assert again.recounted == kept.recorded


def test_under_another_rule_the_decision_may_be_another() -> None:
    votes = {"m-1": ["a"], "m-2": ["b", "a"], "m-3": ["b"]}
    cast = [{"task_id": "ask", "agent_id": name, "choices": choices} for name, choices in votes.items()]
    stranger = {"task_id": "ask", "agent_id": "x-1", "choices": ["a"]}
    (kept,) = rounds_of([(1, counted(VotingRule(), votes, 5))], [*cast, stranger])
    assert kept.recorded["decision"] is None
    again = recount(kept, VotingRule(rule="quorum"), "x")
    assert (again.changed, again.recounted["decision"], again.dissent) == (True, "b", ("m-1",))
    assert again.recounted["voted"] == 3, "strangers do not count"
