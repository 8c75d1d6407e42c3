"""What the command shows of circuit breakers."""

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import FakeEngine

At = tuple[str, ...]

OPEN = {
    "service": "agent:coder", "state": "open", "failures": 3, "threshold": 3, "retry_in_seconds": 12.5,
    "opened_by": "e-1", "failures_total": 7,
}  # fmt: skip
CLOSED = {**OPEN, "service": "agent:writer", "state": "closed", "failures": 1, "threshold": 0, "opened_by": ""}


def test_breakers_are_listed(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    page = {"items": [OPEN, CLOSED], "next_page_token": None}
    engine.documents["/api/v1/breakers"] = page
    outcome = orchestrator("breakers", "list", *at)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.stdout.splitlines()]
    assert rows[1] == ["agent:coder", "open", "3", "3", "in", "12", "s", "7", "e-1"]
    assert rows[2] == ["agent:writer", "closed", "1", "7"]
    assert orchestrator("breakers", "list", *at, "--json").document == page


def test_a_breaker_is_closed_by_hand(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    engine.methods["breaker.reset"] = lambda parameters: {**parameters, "state": "closed"}
    outcome = orchestrator("breakers", "reset", "agent:coder", *at)
    assert (outcome.code, outcome.stderr.strip()) == (0, "agent:coder is closed")
    answer = {"service": "agent:coder", "state": "closed"}
    assert orchestrator("breakers", "reset", "agent:coder", *at, "--json").document == answer
