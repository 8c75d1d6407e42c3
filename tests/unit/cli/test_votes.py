"""`recount`: what it asks, and what it shows."""

import pytest

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID, FakeEngine

COUNTS = {
    "execution_id": EXECUTION_ID,
    "voting": {"rule": "quorum"},
    "items": [
        {
            "task_id": "ask",
            "round": 2,
            "recorded": {"rule": {}, "verdict": "below_threshold", "decision": None},
            "recounted": {
                "rule": {"rule": "quorum"}, "verdict": "decided", "decision": "b", "voted": 3, "members": 14,
            },
            "changed": True,
            "dissent": [f"worker-{n}" for n in range(12)],
        }
    ],
}  # fmt: skip


def test_votes_are_counted_again(orchestrator: Orchestrator, engine: FakeEngine, at: tuple[str, ...]) -> None:
    engine.methods["swarm.recount"] = lambda _: COUNTS
    outcome = orchestrator("recount", EXECUTION_ID, "--rule", "quorum", *at)
    assert outcome.code == 0
    assert "ask, round 2: 3 of 14 voted" in outcome.stdout
    assert "below_threshold" in outcome.stdout
    assert "and 2 more" in outcome.stdout
    assert engine.calls[-1] == ("swarm.recount", {"execution_id": EXECUTION_ID, "voting": {"rule": "quorum"}})
    assert orchestrator("recount", EXECUTION_ID, "--rule", "quorum", *at, "--json").document == COUNTS


def test_a_rule_may_be_told_in_all_its_parts(
    orchestrator: Orchestrator, engine: FakeEngine, at: tuple[str, ...]
) -> None:
    engine.methods["swarm.recount"] = lambda _: {**COUNTS, "items": []}
    options = ("--rule", "weighted", "--threshold", "3/4", "--quorum", "0.5", "--of", "votes", "--tie-break", "none",
               "--tolerance", "0.1", "--weight", "worker-1=2", "--task", "ask", "--round", "3")  # fmt: skip
    orchestrator("recount", EXECUTION_ID, *options, *at)
    assert engine.calls[-1][1] == {
        "execution_id": EXECUTION_ID,
        "voting": {
            "rule": "weighted", "threshold": "3/4", "quorum": 0.5, "of": "votes", "tie_break": "none",
            "tolerance": 0.1, "weights": {"worker-1": 2.0},
        },
        "task_id": "ask",
        "round": 3,
    }  # fmt: skip


@pytest.mark.parametrize("options", [("--weight", "worker-1"), ("--weight", "a=b"), ("--threshold", "most")], ids=str)
def test_what_is_no_number_is_refused(
    orchestrator: Orchestrator, engine: FakeEngine, at: tuple[str, ...], options: tuple[str, ...]
) -> None:
    outcome = orchestrator("recount", EXECUTION_ID, "--rule", "weighted", *options, *at)
    assert outcome.code != 0
    assert engine.calls == []
