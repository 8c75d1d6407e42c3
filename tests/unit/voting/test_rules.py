"""What each rule decides, and what it does not."""

from fractions import Fraction

import pytest
from pydantic import ValidationError

from engine.contracts.voting import VotingRule
from engine.voting import Outcome, Poll, Verdict, count, key_of, settled, value_of

LETTERS = {letter: key_of(letter) for letter in "abcdef"}


def rule(name: str = "majority", **fields: object) -> VotingRule:
    return VotingRule.model_validate({"rule": name, **fields})


def members(n: int) -> Poll:
    return Poll([f"m-{i}" for i in range(n)], [LETTERS[c] for c in "abcdef"], "seed")


def ballots(*rankings: str) -> dict[str, tuple[str, ...]]:
    """One a member: "a" votes for a, "ba" ranks b before a, "" abstains."""
    return {f"m-{i}": tuple(LETTERS[c] for c in ranking) for i, ranking in enumerate(rankings)}


def chosen(outcome: Outcome) -> object:
    return None if outcome.choice is None else value_of(outcome.choice)


def test_a_majority_is_more_than_half_of_all_members() -> None:
    assert chosen(count(rule(), members(4), ballots("a", "a", "a", "b"))) == "a"
    half = count(rule(), members(4), ballots("a", "a", "b", "b"))
    assert half.verdict is Verdict.BELOW_THRESHOLD
    assert half.choice is None
    assert half.needed == 2
    absent = count(rule(), members(5), ballots("a", "a"))
    assert absent.verdict is Verdict.BELOW_THRESHOLD, "two of five, although nobody voted otherwise"


def test_a_majority_of_the_votes_needs_fewer() -> None:
    outcome = count(rule(of="votes"), members(5), ballots("a", "a", "b"))
    assert chosen(outcome) == "a"
    assert (outcome.voted, outcome.members) == (3, 5)


def test_a_supermajority_is_at_least_two_thirds_exactly() -> None:
    assert chosen(count(rule("supermajority"), members(3), ballots("a", "a", "b"))) == "a"
    assert count(rule("supermajority"), members(5), ballots("a", "a", "a", "b", "b")).choice is None
    wanted = rule("supermajority", threshold=0.7)
    assert chosen(count(wanted, members(10), ballots(*"aaaaaaa", *"bbb"))) == "a", "0.7 of 10 is exactly 7"


def test_unanimous_is_all_members_or_all_that_voted() -> None:
    assert chosen(count(rule("unanimous"), members(3), ballots("a", "a", "a"))) == "a"
    assert count(rule("unanimous"), members(3), ballots("a", "a", "")).choice is None
    assert chosen(count(rule("unanimous", of="votes"), members(3), ballots("a", "a", ""))) == "a"
    assert count(rule("unanimous", of="votes"), members(3), ballots("a", "a", "b")).choice is None


def test_weights_decide_and_whoever_has_none_counts_one() -> None:
    weighted = rule("weighted", weights={"m-0": 3, "m-1": 0.5})
    outcome = count(weighted, members(3), ballots("a", "b", "b"))
    assert chosen(outcome) == "a"
    assert dict(outcome.tally) == {LETTERS["a"]: 3, LETTERS["b"]: Fraction(3, 2)}
    assert count(weighted.model_copy(update={"threshold": "3/4"}), members(3), ballots("a", "b", "b")).choice is None


def test_nobody_decides_with_no_weight_at_all() -> None:
    weighted = rule("weighted", weights={"m-0": 0, "m-1": 0})
    assert not count(weighted, members(2), ballots("a", "a")).decided
    assert not count(weighted.model_copy(update={"threshold": "2/3"}), members(2), ballots("a", "a")).decided


def test_a_quorum_must_have_voted_and_then_most_votes_win() -> None:
    few = count(rule("quorum"), members(4), ballots("a"))
    assert few.verdict is Verdict.NO_QUORUM
    assert chosen(count(rule("quorum"), members(4), ballots("b", "b", "a"))) == "b"
    assert chosen(count(rule("quorum", quorum="1/4"), members(4), ballots("b"))) == "b"


def test_a_quorum_can_be_asked_for_with_every_rule() -> None:
    wanted = rule(of="votes", quorum=0.5)
    assert count(wanted, members(5), ballots("a", "a")).verdict is Verdict.NO_QUORUM
    assert chosen(count(wanted, members(4), ballots("a", "a"))) == "a"


def test_nothing_is_decided_without_votes() -> None:
    for name in ("majority", "supermajority", "unanimous", "weighted"):
        assert count(rule(name, of="votes"), members(3), {}).verdict is Verdict.NO_VOTES
    assert count(rule("ranked_choice"), members(3), ballots("", "")).verdict is Verdict.NO_VOTES
    assert count(rule("quorum", quorum=0), members(3), {}).verdict is Verdict.NO_VOTES


def test_strangers_do_not_count() -> None:
    votes = {**ballots("a", "a", "b"), "stranger-1": (LETTERS["b"],), "stranger-2": (LETTERS["b"],)}
    outcome = count(rule(), members(3), votes)
    assert (chosen(outcome), outcome.voted) == ("a", 3)


@pytest.mark.parametrize(
    ("tie_break", "winner"), [("earliest", "c"), ("lowest", "b"), ("none", None)], ids=lambda value: str(value)
)
def test_ties_are_broken_as_asked(tie_break: str, winner: object) -> None:
    poll = Poll(["m-0", "m-1"], [LETTERS["c"], LETTERS["b"]])
    outcome = count(rule("quorum", tie_break=tie_break), poll, ballots("b", "c"))
    assert chosen(outcome) == winner
    assert outcome.verdict is (Verdict.TIE if winner is None else Verdict.DECIDED)
    assert outcome.tie_broken is (winner is not None)


def test_a_drawn_lot_is_the_same_on_every_count_and_depends_on_the_seed() -> None:
    lots = set()
    for seed in map(str, range(20)):
        poll = Poll(["m-0", "m-1"], (), seed)
        first = count(rule("quorum", tie_break="seeded"), poll, ballots("a", "b"))
        again = count(rule("quorum", tie_break="seeded"), poll, dict(reversed(ballots("a", "b").items())))
        assert first.choice == again.choice
        lots.add(chosen(first))
    assert lots == {"a", "b"}


def test_lowest_goes_by_number_not_by_digits() -> None:
    votes = {"m-0": (key_of(10),), "m-1": (key_of(9),)}
    assert chosen(count(rule("quorum", tie_break="lowest"), members(2), votes)) == 9


def test_a_run_off_strikes_the_weakest_until_one_has_more_than_half() -> None:
    outcome = count(rule("ranked_choice"), members(5), ballots("ab", "ab", "ba", "ba", "cba"))
    assert chosen(outcome) == "b"
    assert [value_of(key) for key in outcome.eliminated] == ["c"]
    assert dict(outcome.tally)[LETTERS["b"]] == 3


def test_a_run_off_strikes_those_that_nobody_put_first_together() -> None:
    outcome = count(rule("ranked_choice"), members(4), ballots("ac", "ad", "bc", "ca"))
    assert [value_of(key) for key in outcome.eliminated] == ["d", "c"]
    assert chosen(outcome) == "a"


def test_a_ballot_whose_choices_are_all_struck_counts_no_more() -> None:
    outcome = count(rule("ranked_choice"), members(5), ballots("a", "a", "b", "b", "c"))
    assert outcome.tie_broken
    assert chosen(outcome) == "a", "c is struck, then of two equals the later option"


def test_a_run_off_without_tie_break_ends_in_a_tie() -> None:
    assert (
        count(rule("ranked_choice", tie_break="none"), members(4), ballots("a", "a", "b", "b")).verdict is Verdict.TIE
    )
    both = count(rule("ranked_choice", tie_break="none"), members(4), ballots("c", "c", "ac", "bc"))
    assert chosen(both) == "c"
    assert {value_of(key) for key in both.eliminated} == {"a", "b"}


def test_numbers_close_together_count_as_their_median() -> None:
    votes = {f"m-{i}": (key_of(n),) for i, n in enumerate([10.0, 10.2, 10.1, 25])}
    outcome = count(rule(tolerance=0.2), members(4), votes)
    assert chosen(outcome) == 10.1
    assert outcome.stands_for(key_of(10.2)) == key_of(10.1)
    assert outcome.stands_for(key_of(25)) == key_of(25)
    assert count(rule(tolerance=0.1), members(4), votes).choice is None


def test_texts_are_not_merged() -> None:
    votes = {"m-0": (key_of("1"),), "m-1": (key_of(1),), "m-2": (key_of(2),)}
    outcome = count(rule(tolerance=5), members(3), votes)
    assert chosen(outcome) == 1
    assert dict(outcome.tally)[key_of("1")] == 1


def test_what_is_still_out_cannot_change_a_settled_vote() -> None:
    assert settled(rule(), members(5), ballots("a", "a")) is None
    early = settled(rule(of="votes"), members(5), ballots("a", "a", "a"))
    assert early is not None
    assert chosen(early) == "a"
    assert settled(rule("quorum"), members(3), ballots("a", "a")) is None
    assert settled(rule("ranked_choice"), members(3), ballots("a", "a")) is None


def test_an_outcome_shows_what_was_counted() -> None:
    shown = count(rule("weighted", weights={"m-0": 0.25}), members(2), ballots("a", "b")).to_json()
    assert shown == {
        "verdict": "decided",
        "decision": "b",
        "tally": [{"choice": "b", "weight": 1}, {"choice": "a", "weight": 0.25}],
        "voted": 2,
        "members": 2,
        "needed": 0.625,
    }
    run_off = count(rule("ranked_choice"), members(5), ballots("a", "a", "b", "b", "c")).to_json()
    assert run_off["eliminated"] == ["c", "b"]
    assert run_off["tie_broken"] is True


@pytest.mark.parametrize(
    "fields",
    [
        {"rule": "most"},
        {"rule": "majority", "threshold": 0.6},
        {"rule": "supermajority", "threshold": 0.5},
        {"rule": "supermajority", "threshold": "1/2"},
        {"rule": "supermajority", "threshold": "4/3"},
        {"rule": "supermajority", "threshold": "1/0"},
        {"rule": "supermajority", "threshold": "two thirds"},
        {"rule": "supermajority", "threshold": True},
        {"rule": "weighted", "threshold": 1.5},
        {"rule": "majority", "weights": {"a-1": 2}},
        {"rule": "weighted", "weights": {"a-1": -1}},
        {"rule": "weighted", "weights": {"a b": 1}},
        {"rule": "ranked_choice", "tolerance": 1},
        {"rule": "majority", "tolerance": -1},
        {"rule": "majority", "tie_break": "random"},
        {"rule": "majority", "of": "all"},
        {"rule": "majority", "quorum": 2},
        {"rule": "majority", "more": 1},
    ],
    ids=str,
)
def test_a_rule_that_makes_no_sense_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        VotingRule.model_validate(fields)
