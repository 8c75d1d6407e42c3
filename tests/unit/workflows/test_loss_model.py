"""Whatever crashes between any two steps, nothing is lost, repeated or stuck; and planted defects are found."""

from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

import activities.ticks
import engine.events.bridge
import engine.events.deliveries
import engine.events.lingering
import workflows.execution
import workflows.kernel.fold
from engine.contracts.streams import entry_order
from engine.events.deliveries import Deliveries
from tests.unit.workflows.loss_model import World, launch_of
from tests.unit.workflows.loss_parts import SIGNALS_MAX, ModelSeat
from tests.unit.workflows.loss_temporal import CLOCK, SANDBOX

NUMBERS = st.integers(0, 3)
GRAPHS: list[list[tuple[int, ...]]] = [
    [(), (0,), (1,), (2,)],
    [(), (0,), (0,), (1, 2)],
    [(), (), (), (0, 1), (2, 3)],
    [(), (0,), (0,), (0,), (1, 2, 3), (4,)],
]


class Losses(RuleBasedStateMachine):
    """One execution, two worker processes, agents that come and go."""

    bug: str | None = None

    def __init__(self) -> None:
        super().__init__()
        self.world = World(launch_of(GRAPHS[0]), self.bug)

    @initialize(graph=st.sampled_from(GRAPHS))
    def start(self, graph: list[tuple[int, ...]]) -> None:
        self.world = World(launch_of(graph), self.bug)
        self.task_begins(0)

    @invariant()
    def holds(self) -> None:
        self.world.assert_invariants()

    def teardown(self) -> None:
        self.world.finish()
        self.world.assert_done()

    # Progress. Several rules for what is done most often, so that runs get somewhere.

    @rule(number=NUMBERS)
    def task_begins(self, number: int) -> None:
        self.world.task_begins(self.world.processes[number % 2])

    @rule(number=NUMBERS, steps=st.integers(1, 6))
    def worker_goes_on(self, number: int, steps: int) -> None:
        process = self.world.processes[number % 2]
        for _ in range(steps):
            process.step()
        self.world.task_begins(process)

    @rule(number=NUMBERS, count=st.integers(1, 3), begins=st.booleans())
    def agents_work(self, number: int, count: int, begins: bool) -> None:
        host = self.world.host(number)
        for _ in range(count):
            self.world.host_reads(host)
        if begins:
            self.world.host_begins(host)
        else:
            self.world.host_ends(host, count)

    @rule(count=st.integers(1, 3))
    def bridge_reads(self, count: int) -> None:
        self.world.bridge_reads(count)

    @precondition(lambda self: self.world.network)
    @rule(number=NUMBERS)
    def signal_arrives(self, number: int) -> None:
        self.world.signal_goes(number)

    @precondition(lambda self: self.world.temporal.wanted)
    @rule()
    def hosts_are_found(self) -> None:
        self.world.hosts_are_found()

    @rule(ms=st.sampled_from([1, 30, 600, 5_001, 10_001, 20_001]))
    def time_passes(self, ms: int) -> None:
        CLOCK.now_ms += ms
        for process in self.world.processes:
            if ms > 500:
                process.lingering.expire()
            process.bridge.sweep()

    # Faults.

    @precondition(lambda self: self.world.network)
    @rule(number=NUMBERS, arrives=st.booleans())
    def signal_is_not_answered(self, number: int, arrives: bool) -> None:
        self.world.signal_goes(number, arrives=arrives, answered=False)

    @rule()
    def meaningless_signal(self) -> None:
        self.world.meaningless_signal()

    @rule(number=NUMBERS)
    def agent_repeats(self, number: int) -> None:
        self.world.host(number).repeat()

    @rule(number=NUMBERS)
    def agent_dies(self, number: int) -> None:
        self.world.host_dies(self.world.host(number))

    @rule(number=NUMBERS)
    def process_dies(self, number: int) -> None:
        self.world.process_dies(number)

    @rule(number=NUMBERS)
    def partition_goes_to_another(self, number: int) -> None:
        self.world.partition_goes_to(number)

    @precondition(lambda self: self.world.temporal.attempt is not None)
    @rule()
    def workflow_task_times_out(self) -> None:
        self.world.task_times_out()

    @rule(number=NUMBERS)
    def activity_is_given_up(self, number: int) -> None:
        self.world.processes[number % 2].give_up_activity()

    @precondition(lambda self: any(process.in_activity for process in self.world.processes))
    @rule(number=NUMBERS)
    def workflow_task_beats(self, number: int) -> None:
        self.world.processes[number % 2].beat()

    @rule()
    def redis_syncs(self) -> None:
        self.world.redis.sync()

    @rule()
    def redis_loses_its_last_second(self) -> None:
        self.world.redis.power_cut()


class PushyDeliveries(Deliveries):
    """Planted: what is handed over may overtake a signal."""

    def may_hand_over(self) -> bool:
        return True


class BoastfulDeliveries(Deliveries):
    """Planted: says of entries that are still to come that they are done with."""

    @property
    def low(self) -> str:
        return f"{entry_order(next(reversed(self.held), '0-0'))[0] + 3}-0"


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflows.execution, "workflow", SANDBOX)
    monkeypatch.setattr(engine.events.bridge, "time", CLOCK)
    monkeypatch.setattr(activities.ticks, "time", CLOCK)
    monkeypatch.setattr(engine.events.lingering, "Seat", ModelSeat)
    monkeypatch.setattr(engine.events.deliveries, "SIGNALS_UNCOVERED_MAX", SIGNALS_MAX)
    monkeypatch.setattr(workflows.kernel.fold, "TASK_LOSSES_MAX", 10**6)


def explore(examples: int, steps: int, bug: str | None = None, **more: Any) -> None:
    machine = type("Losses", (Losses,), {"bug": bug})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        report_multiple_bugs=False,
        suppress_health_check=list(HealthCheck),
        database=None,
        **more,
    )
    run_state_machine_as_test(machine, settings=chosen)


def test_without_faults_it_gets_to_its_end_soon() -> None:
    for graph in GRAPHS:
        world = World(launch_of(graph))
        assert world.finish() < 30
        world.assert_done()


def test_whatever_is_lost_between_two_steps_nothing_is_lost_repeated_or_stuck() -> None:
    explore(examples=400, steps=60, derandomize=True)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_whatever_is_lost_in_many_runs_nothing_is_lost_repeated_or_stuck() -> None:
    explore(examples=20_000, steps=120)


@pytest.mark.parametrize(
    ("bug", "symptom"),
    [
        ("acknowledges before the commit", "acknowledged and never consumed"),
        ("adopts only its own", "another state than the journal|never stored|in the history"),
        ("forgets the watermark", "consumed a second time|another state than the journal"),
        ("hands over past a signal", "overtaken"),
        ("a watermark too high", "below the watermark|acknowledged and never consumed"),
        ("signals without limit", "signals are not covered"),
    ],
)
def test_planted_defects_are_found(bug: str, symptom: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if bug == "hands over past a signal":
        monkeypatch.setattr(engine.events.bridge, "Deliveries", PushyDeliveries)
    elif bug == "a watermark too high":
        monkeypatch.setattr(engine.events.bridge, "Deliveries", BoastfulDeliveries)
    elif bug == "signals without limit":
        monkeypatch.setattr(engine.events.deliveries, "SIGNALS_UNCOVERED_MAX", 1_000)
    with pytest.raises(AssertionError, match=symptom):
        explore(examples=1_000, steps=60, bug=bug, derandomize=True, phases=[Phase.generate])
