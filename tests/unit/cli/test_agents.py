"""What the command shows of hosts."""

from tests.fakes.agents import agent_detail
from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import FakeEngine

At = tuple[str, ...]

LIST = "/api/v1/agents"


def test_hosts_are_listed_with_state_load_and_speed(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    hosts = [agent_detail("h1", speed=0.5, measured_speed=0.47), agent_detail("h2", "suspect")]
    page = {"items": [host.model_dump(mode="json") for host in hosts], "next_page_token": "t"}
    engine.documents[LIST] = page
    outcome = orchestrator("agents", "list", *at)
    assert outcome.code == 0
    rows = [line.split() for line in outcome.stdout.splitlines()]
    assert rows[1][:9] == ["h1", "synthetic", "healthy", "2", "3", "8", "0.5", "(measured", "0.47)"]
    assert rows[2][:7] == ["h2", "synthetic", "suspect", "2", "3", "8", "1"]
    assert "t" in outcome.stderr
    assert orchestrator("agents", "list", *at, "--json", "--state", "suspect", "--type", "x").document == page


def test_a_host_is_shown_with_its_history(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    host = agent_detail("h2", "suspect", state_reason="silent for 5.1 s", capabilities=()).model_dump(mode="json")
    engine.methods["agent.get"] = lambda _: host
    outcome = orchestrator("agents", "show", "h2", *at)
    assert outcome.code == 0
    assert "h2: suspect (silent for 5.1 s)" in outcome.stdout
    assert "3 tasks of 8 slots, 2 agents of 1 executions" in outcome.stdout
    assert "capabilities: none" in outcome.stdout
    assert outcome.stdout.splitlines()[-1].split()[-2:] == ["suspect", "1"]
    assert orchestrator("agents", "show", "h2", *at, "--json").document == host
