"""The agents of the swarm's and the network's example, driven by the patterns' policies without an engine."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from examples.estimation import agents as estimation
from examples.estimation import library
from examples.gossip import agents as gossip
from examples.gossip.measuring import measure
from orchestration_agent import Task, TaskFailed
from planner.parse import parse_definition
from planner.pattern_config import complete_settings
from tests.unit.workflows.assembly_drill import AssemblyDrill
from tests.unit.workflows.drill import launch_input
from tests.unit.workflows.drill import task as kernel_task
from workflows.policies.network import NetworkPolicy
from workflows.policies.swarm import SwarmPolicy

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def definition(name: str) -> Any:
    return parse_definition(yaml.safe_load((EXAMPLES / name / "workflow.yaml").read_text()))


def drill(name: str, policy: Any) -> AssemblyDrill:
    """The example's tasks and settings; all of its agents on one host."""
    parsed = definition(name)
    ids = [task.id for task in parsed.tasks]
    specs = [
        kernel_task(task.id, tuple(ids.index(d) for d in task.depends_on), role=task.agent) for task in parsed.tasks
    ]
    (role,) = parsed.agents.values()
    launch = launch_input(*specs, agents=role.count, pattern_config=complete_settings(parsed))
    return AssemblyDrill(launch, policy)


def attempt(action: str, context: Any, **given: Any) -> Task:
    return Task(
        task_id="t", agent_id="a", action=action, execution_id="x", report=lambda _: None, input=given, context=context
    )


@pytest.fixture
def small_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A standard library of 60 files in three packages."""
    for number in range(60):
        folder = tmp_path / ("asyncio", "email", ".")[number % 3]
        folder.mkdir(exist_ok=True)
        (folder / f"m{number}.py").write_text("x\n" * (100 + number * (3 - number % 3)))
    (tmp_path / "site-packages").mkdir()
    (tmp_path / "site-packages" / "other.py").write_text("x\n" * 9_999)
    for module in (library, __import__("examples.gossip.measuring", fromlist=["measure"])):
        monkeypatch.setattr(module.sysconfig, "get_paths", lambda: {"stdlib": str(tmp_path)})
    library.files.cache_clear()
    library.lines_of.cache_clear()
    yield tmp_path
    library.files.cache_clear()
    library.lines_of.cache_clear()


def test_the_swarm_draws_together_and_decides_near_the_truth(small_library: Path) -> None:
    swarm = drill("estimation", SwarmPolicy())

    def member(agent_id: str, told: dict[str, Any]) -> Any:
        ranking = "options" in asked
        action = "which_is_largest" if ranking else "how_many_lines"
        about = {"member": agent_id, **({"options": asked["options"]} if ranking else {})}
        return estimation.estimate(attempt(action, told, swarm=about))

    asked: dict[str, Any] = {}
    swarm.tick()
    for _ in range(20):
        if swarm.state.closed:
            break
        if any(a.task_id.startswith("largest") for a in swarm.in_flight()):
            asked["options"] = definition("estimation").pattern_config["questions"]["largest"]["options"]
        swarm.answer_all(member)
        swarm.tick()
    decided = swarm.result("lines")
    assert decided["verdict"] == "decided"
    assert abs(decided["decision"] - library.true_lines()) / library.true_lines() < 0.1
    assert swarm.result("largest")["decision"] == "asyncio"
    assert library.true_parts(["email", "asyncio"]) == ["asyncio", "email"]


def test_an_estimator_knows_two_questions() -> None:
    with pytest.raises(TaskFailed, match="no question"):
        estimation.estimate(attempt("other", {}, swarm={"member": "estimator-1"}))


def test_the_gossip_finds_the_average_and_loses_nothing(small_library: Path) -> None:
    network = drill("gossip", NetworkPolicy())
    names = list(network.state.agents)
    links = definition("gossip").pattern_config["topology"]["links"]

    def peer(agent_id: str, told: dict[str, Any]) -> Any:
        about = {"peer": agent_id, "peers_total": len(names), "neighbours": links[agent_id]}
        return gossip.gossip(attempt("average", told, network=about))

    network.run(peer)
    states = network.result("average")["states"]
    truth = [measure(number, len(names)) for number in range(len(names))]
    assert sum(state["sum"] for state in states.values()) == pytest.approx(sum(truth), rel=1e-12)
    assert sum(state["weight"] for state in states.values()) == pytest.approx(len(names), rel=1e-12)
    for state in states.values():
        assert state["sum"] / state["weight"] == pytest.approx(sum(truth) / len(truth), rel=0.05)
