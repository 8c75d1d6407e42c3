"""Whatever is voted, under whatever rule: no decision below what is asked, never two, and the order does not matter."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.voting import VotingRule
from engine.voting import Poll, Verdict, count, key_of, settled

CANDIDATES = [key_of(value) for value in ("a", "b", "c", 1, 2, 2.5)]
NAMES = [f"m-{n}" for n in range(9)]


@st.composite
def rules(draw: st.DrawFn) -> VotingRule:
    name = draw(st.sampled_from(["majority", "supermajority", "unanimous", "weighted", "ranked_choice", "quorum"]))
    fields: dict[str, object] = {
        "rule": name,
        "of": draw(st.sampled_from(["members", "votes"])),
        "tie_break": draw(st.sampled_from(["earliest", "lowest", "seeded", "none"])),
        "quorum": draw(st.sampled_from([None, 0, 0.25, "1/2", 1])),
    }
    if name in ("supermajority", "weighted"):
        fields["threshold"] = draw(st.sampled_from([None, 0.51, "2/3", "3/4", 1]))
    if name == "weighted":
        fields["weights"] = draw(st.dictionaries(st.sampled_from(NAMES), st.sampled_from([0, 0.1, 0.5, 1, 2, 7])))
    if name != "ranked_choice":
        fields["tolerance"] = draw(st.sampled_from([None, None, 0, 1]))
    return VotingRule.model_validate(fields)


@st.composite
def polls(draw: st.DrawFn) -> tuple[Poll, dict[str, tuple[str, ...]]]:
    members = NAMES[: draw(st.integers(1, len(NAMES)))]
    voters = draw(st.lists(st.sampled_from([*members, "stranger-1"]), unique=True))
    ranking = st.lists(st.sampled_from(CANDIDATES), unique=True, max_size=4)
    votes = {name: tuple(draw(ranking)) for name in voters}
    return Poll(members, CANDIDATES, draw(st.text(max_size=3))), votes


@settings(max_examples=500, deadline=None)
@given(rule=rules(), given_poll=polls(), data=st.data())
def test_a_decision_reached_what_its_rule_asks_and_the_order_of_the_votes_does_not_matter(
    rule: VotingRule, given_poll: tuple[Poll, dict[str, tuple[str, ...]]], data: st.DataObject
) -> None:
    poll, votes = given_poll
    outcome = count(rule, poll, votes)
    shuffled = dict(data.draw(st.permutations(list(votes.items()))))
    assert count(rule, poll, shuffled) == outcome
    cast = {name: ranking for name, ranking in votes.items() if ranking and name in poll.members}
    assert outcome.voted == len(cast)
    if not outcome.decided:
        assert outcome.choice is None
        return
    assert outcome.choice in CANDIDATES
    assert cast, "somebody voted"
    assert Fraction(len(cast), len(poll.members)) >= rule.quorum_share
    tally = dict(outcome.tally)
    reached = tally[outcome.choice]
    assert reached == max(tally.values())
    if rule.rule == "quorum":
        return
    assert all(weight < reached for key, weight in tally.items() if key != outcome.choice), "no other reached it"
    assert outcome.needed is not None
    assert reached >= outcome.needed
    whole = sum(tally.values(), Fraction(0))
    assert 2 * reached > whole, "a decision has more than half of what was cast"


@settings(max_examples=300, deadline=None)
@given(rule=rules(), given_poll=polls(), data=st.data())
def test_a_settled_vote_comes_out_the_same_whatever_the_others_vote(
    rule: VotingRule, given_poll: tuple[Poll, dict[str, tuple[str, ...]]], data: st.DataObject
) -> None:
    poll, votes = given_poll
    early = settled(rule, poll, votes)
    if early is None:
        return
    missing = [name for name in poll.members if name not in votes]
    for name in missing:
        votes[name] = tuple(data.draw(st.lists(st.sampled_from(CANDIDATES), max_size=1)))
    assert count(rule, poll, votes).choice == early.choice


@settings(max_examples=300, deadline=None)
@given(given_poll=polls())
def test_a_run_off_is_what_a_plain_one_finds(given_poll: tuple[Poll, dict[str, tuple[str, ...]]]) -> None:
    poll, votes = given_poll
    outcome = count(VotingRule(rule="ranked_choice"), poll, votes)
    expected = _plain_run_off([r for name, r in sorted(votes.items()) if r and name in poll.members])
    assert outcome.choice == expected
    assert (outcome.verdict is Verdict.NO_VOTES) is (expected is None)


def _plain_run_off(rankings: list[tuple[str, ...]]) -> str | None:
    """From the definition: count first choices among those left; strike the last of the weakest; again."""
    left = {key for ranking in rankings for key in ranking}
    if not rankings:
        return None
    while True:
        firsts = dict.fromkeys(left, 0)
        for ranking in rankings:
            top = next((key for key in ranking if key in left), None)
            if top is not None:
                firsts[top] += 1
        for key, n in firsts.items():
            if 2 * n > sum(firsts.values()):
                return key
        least = min(firsts.values())
        left.remove(max((key for key, n in firsts.items() if n == least), key=CANDIDATES.index))
