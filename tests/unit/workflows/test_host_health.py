"""What an execution makes of hosts that are silent or slow."""

from collections import Counter

import pytest

from engine.contracts.events import AgentEventType
from engine.contracts.kernel import AgentBinding
from tests.unit.workflows.drill import Drill, launch_input, task
from workflows.kernel.burst import Burst
from workflows.kernel.due import next_due_ms
from workflows.kernel.fold import SUSPECT_MS_MAX
from workflows.kernel.policy import Policy, window
from workflows.policies.supervisor import supervisor_policy

SUSPECT, RECOVERED, SPEED = AgentEventType.SUSPECT, AgentEventType.RECOVERED, AgentEventType.SPEED

STRATEGIES = [
    {},
    {"strategy": "round_robin"},
    {"strategy": "weighted", "weight_by": "speed"},
    {"strategy": "least_loaded", "max_in_flight": 4},
]


def two_hosts(tasks: int, slots: int = 1, policy: Policy | None = None, **fields: object) -> Drill:
    """worker-1 at host-1, worker-2 at host-2; nothing assigned yet."""
    many = [task(f"t{n}") for n in range(tasks)]
    drill = Drill(launch_input(*many, agents=2, **fields), bind=False, policy=policy)
    drill.bind("worker-1", host_id="host-1", slots=slots)
    drill.bind("worker-2", host_id="host-2", slots=slots)
    return drill


def given(drill: Drill) -> Counter[str]:
    return Counter(attempt.agent_id for delta in drill.deltas for attempt in delta.assigned)


@pytest.mark.parametrize("settings", STRATEGIES)
def test_a_suspect_host_gets_nothing_new_and_keeps_what_it_has(settings: dict[str, object]) -> None:
    drill = two_hosts(6, policy=supervisor_policy(settings), pattern_config=settings)
    drill.tick()
    at_two = next(a for a in drill.in_flight() if a.agent_id == "worker-2")
    drill.receive(*drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    assert at_two in drill.in_flight()
    while drill.state.completed < 4:
        drill.receive(*(drill.completed(a) for a in drill.in_flight() if a.agent_id == "worker-1"))
        drill.tick()
    assert given(drill)["worker-2"] == 1
    drill.receive(drill.completed(at_two))
    drill.tick()
    assert given(drill)["worker-2"] == 1
    drill.finish()
    assert [e["agent_id"] for e in drill.audit("agent.suspect")] == ["worker-2"]
    assert drill.audit("agent.suspect")[0]["host_id"] == "host-2"


def test_a_host_that_has_recovered_gets_work_again_and_nothing_is_repeated() -> None:
    drill = two_hosts(6)
    drill.tick()
    first = drill.in_flight()
    drill.receive(*drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    drill.receive(*drill.host_news(RECOVERED, "host-2"))
    drill.tick()
    assert drill.in_flight() == first
    drill.finish()
    assert given(drill)["worker-2"] == 3
    assert sorted(drill.assigned()) == sorted({f"t{n}" for n in range(6)})
    assert [e["agent_id"] for e in drill.audit("agent.recovered")] == ["worker-2"]


def test_news_that_is_repeated_or_of_other_hosts_changes_nothing() -> None:
    drill = two_hosts(2)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-2"), *drill.host_news(SUSPECT, "elsewhere"))
    assert not drill.tick().delta.suspected
    drill.receive(*drill.host_news(RECOVERED, "host-1"))
    assert not drill.tick().delta.recovered


def test_of_news_that_come_together_the_last_counts() -> None:
    drill = two_hosts(2)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-2"), *drill.host_news(RECOVERED, "host-2"))
    drill.tick()
    assert not drill.state.suspects
    drill.receive(*drill.host_news(RECOVERED, "host-2"), *drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    assert list(drill.state.suspects) == ["worker-2"]


def test_the_tasks_of_a_suspect_host_that_is_gone_run_elsewhere() -> None:
    drill = two_hosts(2)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    drill.host_lost("host-2")
    drill.tick()
    assert not drill.state.suspects
    drill.finish()
    assert given(drill) == {"worker-1": 2, "worker-2": 1}


def test_an_agent_whose_suspect_host_is_gone_is_well_at_another() -> None:
    drill = two_hosts(6)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-2"), *drill.host_news(SPEED, "host-2", speed=0.25))
    drill.tick()
    drill.host_lost("host-2")
    drill.tick()
    drill.bind("worker-2", host_id="host-3")
    drill.tick()
    assert (drill.state.agents["worker-2"].takes_work, drill.state.agents["worker-2"].speed) == (True, 1.0)


def test_an_execution_with_suspect_hosts_alone_waits_and_is_not_stalled() -> None:
    drill = two_hosts(4)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-1"), *drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    drill.receive(*(drill.completed(a) for a in drill.in_flight()))
    drill.tick()
    assert (len(drill.in_flight()), drill.state.closed) == (0, False)
    drill.receive(*drill.host_news(RECOVERED, "host-1"))
    drill.tick()
    assert {attempt.agent_id for attempt in drill.in_flight()} == {"worker-1"}


def test_when_the_news_that_a_host_has_recovered_is_lost_its_agents_do_not_stay_idle_for_ever() -> None:
    drill = two_hosts(4)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-1"), *drill.host_news(SUSPECT, "host-2"))
    drill.tick()
    suspected_at = drill.now_ms
    drill.receive(*(drill.completed(a) for a in drill.in_flight()))
    drill.tick()
    assert next_due_ms(drill.state, drill.policy) == suspected_at + SUSPECT_MS_MAX
    drill.tick(after_ms=SUSPECT_MS_MAX)
    assert len(drill.in_flight()) == 2


def test_suspicion_and_speed_survive_a_new_run() -> None:
    drill = two_hosts(4)
    drill.tick()
    drill.receive(*drill.host_news(SUSPECT, "host-2"), *drill.host_news(SPEED, "host-1", speed=0.5))
    drill.tick()
    drill.continue_as_new()
    assert not drill.state.agents["worker-2"].takes_work
    assert drill.state.agents["worker-1"].speed == 0.5


def test_a_snapshot_of_before_says_nothing_of_health_and_is_read() -> None:
    drill = two_hosts(2)
    drill.tick()
    old = drill.state.snapshot()
    del old["health"]
    restored = type(drill.state).restore(drill.launch, old)
    assert restored.snapshot() == drill.state.snapshot()


def test_a_binding_brings_the_speed_of_its_host() -> None:
    drill = two_hosts(2)
    drill.inbox.bindings[1] = drill.inbox.bindings[1].model_copy(update={"speed": 0.5})
    drill.tick()
    assert drill.state.agents["worker-2"].speed == 0.5
    assert AgentBinding(agent_id="a", role="r").speed == 1.0


@pytest.mark.parametrize("settings", [{}, {"strategy": "least_loaded", "max_in_flight": 4}])
def test_of_two_idle_agents_the_faster_one_gets_the_task(settings: dict[str, object]) -> None:
    """Slots for all: without regard to speed, both get as much."""
    drill = Drill(
        launch_input(*[task(f"t{n}", (n - 1,) if n else ()) for n in range(8)], agents=2, pattern_config=settings),
        bind=False,
        policy=supervisor_policy(settings),
    )
    drill.bind("worker-1", host_id="host-1", slots=4)
    drill.bind("worker-2", host_id="host-2", slots=4)
    drill.receive(*drill.host_news(SPEED, "host-1", speed=0.25))
    drill.finish()
    assert given(drill) == {"worker-2": 8}


def test_a_slow_agent_gets_work_where_the_fast_ones_have_their_hands_full() -> None:
    drill = two_hosts(10, slots=4)
    drill.receive(*drill.host_news(SPEED, "host-1", speed=0.5))
    drill.tick()
    assert given(drill) == {"worker-1": 4, "worker-2": 4}
    shared = two_hosts(6, slots=4)
    shared.receive(*shared.host_news(SPEED, "host-1", speed=0.5))
    shared.tick()
    assert given(shared) == {"worker-1": 2, "worker-2": 4}


def test_less_is_sent_ahead_to_a_slow_agent() -> None:
    drill = two_hosts(1)
    drill.tick()
    drill.state.pace_ms["worker"] = 1.0
    agent = drill.state.agents["worker-1"]
    fast = window(drill.state, agent)
    agent.speed = 0.125
    assert (fast, window(drill.state, agent)) == (31, 4)
    drill.state.pace_ms["worker"] = 20.0
    assert window(drill.state, agent) == 1


@pytest.mark.parametrize("kind", [SUSPECT, RECOVERED, SPEED])
def test_news_of_a_hosts_health_needs_no_round_through_the_workflow(kind: AgentEventType) -> None:
    drill = two_hosts(3)
    drill.tick()
    burst = Burst(drill.state, drill.policy, None, 0, alone=False)
    attempt = burst.begin()
    drill.receive(*drill.host_news(kind, "host-2", speed=0.5), *(drill.completed(a) for a in drill.in_flight()[:1]))
    assert burst.follow_up(attempt, drill.inbox.batches, drill.now_ms + 1) is not None
