"""What is a vote, and whose counts."""

import math

import pytest

from engine.contracts.voting import CHOICE_LENGTH_MAX
from engine.voting import Answer, InvalidBallotError, Refusal, key_of, ranking_of, read_answer, refusal, value_of
from engine.voting.ballots import REASON_LENGTH_MAX
from engine.voting.choices import CHOICE_BYTES_MAX, RANKS_MAX
from engine.voting.convergence import spread, stable_share

A, B = key_of("a"), key_of("b")


def test_equal_values_are_one_choice_and_different_kinds_are_not() -> None:
    assert key_of(1) == key_of(1.0)
    assert len({key_of(1), key_of("1"), key_of(True), key_of(1.5)}) == 4
    assert [value_of(key_of(value)) for value in (1, 1.5, "é", False)] == [1, 1.5, "é", False]


@pytest.mark.parametrize(
    "value",
    [None, [], {}, "", "x" * (CHOICE_LENGTH_MAX + 1), math.nan, math.inf, 2**63, 1e300, "\ud800", object()],
    ids=lambda value: repr(value)[:20],
)
def test_what_is_no_choice_is_refused(value: object) -> None:
    with pytest.raises(InvalidBallotError):
        key_of(value)


def test_a_choice_has_a_bounded_size() -> None:
    assert len(key_of("\U0001f600" * CHOICE_LENGTH_MAX).encode()) <= CHOICE_BYTES_MAX


@pytest.mark.parametrize("value", ["a", 1, [1, 1.0], list(range(RANKS_MAX + 1)), [["a"]]], ids=lambda v: repr(v)[:20])
def test_what_is_no_ranking_is_refused(value: object) -> None:
    with pytest.raises(InvalidBallotError):
        ranking_of(value)


def test_a_vote_may_be_bare_or_have_a_reason() -> None:
    assert read_answer("a", proposing=False) == Answer((A,))
    assert read_answer({"vote": "a", "reason": "why"}, proposing=False) == Answer((A,), reason="why")
    assert read_answer({"vote": None}, proposing=False) == Answer()
    assert read_answer(None, proposing=False) == Answer()
    assert read_answer({}, proposing=False) == Answer()


def test_a_long_reason_is_cut() -> None:
    answer = read_answer({"vote": "a", "reason": "r" * 10_000}, proposing=False)
    assert len(answer.reason or "") == REASON_LENGTH_MAX


def test_a_ranking_is_taken_where_the_rule_ranks() -> None:
    assert read_answer({"ranking": ["b", "a"]}, proposing=False, ranked=True).choices == (B, A)
    assert read_answer({"ranking": ["b"]}, proposing=False).choices == (B,)
    with pytest.raises(InvalidBallotError):
        read_answer({"ranking": ["b", "a"]}, proposing=False)


def test_a_proposal_is_taken_where_proposals_are_asked_for() -> None:
    assert read_answer({"proposal": "a", "reason": "r"}, proposing=True) == Answer(proposal=A, reason="r")
    assert read_answer("a", proposing=True) == Answer(proposal=A)
    assert read_answer(None, proposing=True) == Answer()


@pytest.mark.parametrize(
    ("value", "proposing"),
    [
        ({"vote": "a"}, True),
        ({"ranking": ["a"]}, True),
        ({"proposal": "a"}, False),
        ({"vote": "a", "ranking": ["a"]}, False),
        ({"vote": ["a", "b"]}, False),
        ({"vote": "a", "member": "worker-7"}, False),
        ({"vote": "a", "reason": 5}, False),
        ([1, 2], False),
    ],
    ids=str,
)
def test_an_answer_that_is_no_vote_is_refused(value: object, proposing: bool) -> None:
    with pytest.raises(InvalidBallotError):
        read_answer(value, proposing=proposing)


def test_only_candidates_may_be_voted_for() -> None:
    assert read_answer("a", proposing=False, candidates=[A]).choices == (A,)
    with pytest.raises(InvalidBallotError, match="not among the choices"):
        read_answer("b", proposing=False, candidates=[A])
    with pytest.raises(InvalidBallotError, match="not among the choices"):
        read_answer({"ranking": ["a", "b"]}, proposing=False, candidates=[A], ranked=True)


@pytest.mark.parametrize(
    ("member", "number", "present", "wanted"),
    [
        ("m-1", 2, 2, None),
        ("m-2", 2, 2, Refusal.TWICE),
        ("x-1", 2, 2, Refusal.STRANGER),
        ("m-1", 1, 2, Refusal.LATE),
        ("m-1", 3, 2, Refusal.EARLY),
        ("m-1", 2, None, Refusal.LATE),
    ],
    ids=str,
)
def test_one_vote_a_member_a_round_and_none_from_strangers(
    member: str, number: int, present: int | None, wanted: Refusal | None
) -> None:
    assert refusal(member, number, members={"m-1", "m-2"}, present=present, voted={"m-2"}) is wanted


def test_stability_is_the_share_of_unchanged_votes() -> None:
    before, now = {"m-1": (A,), "m-2": (A,), "m-3": (B,)}, {"m-1": (A,), "m-2": (B,), "m-4": (B,)}
    assert stable_share(before, now) == 0.25
    assert stable_share(now, now) == 1
    assert stable_share({}, {}) == 1


def test_the_spread_is_that_of_the_numbers() -> None:
    assert spread([key_of(3), key_of(7.5), A]) == 4.5
    assert spread([A]) is None
