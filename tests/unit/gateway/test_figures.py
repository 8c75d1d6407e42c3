"""Figures of the whole engine: what is shown, how often it is read, and what is left out when a server is away."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from engine.contracts.definition import WorkflowDefinition
from engine.errors import UnavailableError
from engine.events.figures import Backlogs, Failures
from engine.postgres.figures import Connections, EndedExecution
from gateway.figures import FRESH_SECONDS, EngineFigures, PlanningTimes
from gateway.planning import GraphPlanning
from planner.planner import Planner
from tests.unit.gateway.conftest import Gateway, definition, settings_of

START = datetime(2026, 1, 1, tzinfo=UTC)


class FakeDatabase:
    def __init__(self) -> None:
        self.reads = 0
        self.away = False
        self.hangs = False
        self.now = START
        self.done: list[tuple[datetime, EndedExecution]] = []
        self.runs: list[tuple[datetime, str]] = []

    async def connections(self) -> Connections:
        self.reads += 1
        if self.away:
            raise UnavailableError("away")
        if self.hangs:
            await asyncio.Event().wait()
        return Connections(40, 97)

    async def waiting(self) -> int:
        return 7

    async def open_by_pattern(self) -> Mapping[str, int]:
        return {"saga": 2, "swarm": 3}

    async def hosts(self) -> Mapping[str, int]:
        return {"live": 4, "gone": 1}

    async def settled_until(self) -> datetime:
        return self.now

    async def ended(self, since: datetime, until: datetime) -> Sequence[EndedExecution]:
        return [execution for at, execution in self.done if since < at <= until]

    async def hook_runs(self, since: datetime, until: datetime) -> Mapping[str, int]:
        found = [status for at, status in self.runs if since < at <= until]
        return {status: found.count(status) for status in set(found)}


class FakeStreams:
    def __init__(self) -> None:
        self.away = False

    async def backlogs(self) -> Backlogs:
        if self.away:
            raise UnavailableError("away")
        return Backlogs(reports=11, hooks=5, dead_letters=3)

    async def circuits(self) -> Mapping[str, Collection[str]]:
        return {"agent:writer": {"open", "closed"}, "kubernetes": {"half_open"}}

    async def failures(self) -> Failures:
        return Failures(services={"agent:writer": 5}, agents={"writer": 7})


class Desk:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.database, self.streams, self.time = FakeDatabase(), FakeStreams(), 0.0
        self.figures = EngineFigures(self.registry, self.database, self.streams, lambda: self.time)

    async def read(self) -> dict[str, float]:
        """After everything has become old enough to be read again."""
        self.time += FRESH_SECONDS
        await self.figures.refresh()
        return self.shown()

    def shown(self) -> dict[str, float]:
        found = {}
        for family in text_string_to_metric_families(generate_latest(self.registry).decode()):
            for sample in family.samples:
                labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
                found[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return found


async def test_what_servers_say_is_shown() -> None:
    shown = await Desk().read()
    assert shown["workflow_queue_depth"] == 7
    assert shown["workflow_active_count{pattern=saga}"] == 2
    assert shown["agent_hosts{state=live}"] == 4
    assert shown["postgresql_connections_active"] == 40
    assert shown["postgresql_connections_max"] == 97
    assert shown["redis_consumer_lag{consumer_group=orchestrator}"] == 11
    assert shown["redis_consumer_lag{consumer_group=hook_workers}"] == 5
    assert shown["hooks_queue_depth"] == 5
    assert shown["redis_dead_letter_queue_size"] == 3
    assert shown["circuit_breaker_state{service=agent:writer,state=open}"] == 1
    assert shown["circuit_breaker_state{service=agent:writer,state=closed}"] == 1
    assert shown["circuit_breaker_state{service=kubernetes,state=open}"] == 0
    assert shown["circuit_breaker_state{service=kubernetes,state=half_open}"] == 1
    assert shown["orchestrator_figures_up{server=redis}"] == 1


async def test_servers_are_asked_every_few_seconds_however_often_somebody_looks() -> None:
    desk = Desk()
    await asyncio.gather(*(desk.figures.refresh() for _ in range(20)))
    assert desk.database.reads == 1
    desk.time += FRESH_SECONDS
    await desk.figures.refresh()
    assert desk.database.reads == 2


@pytest.mark.parametrize("how", ["away", "hangs"])
async def test_what_cannot_be_read_is_left_out_and_the_rest_is_shown(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.figures.READ_SECONDS_MAX", 0.01)
    desk = Desk()
    await desk.read()
    setattr(desk.database, how, True)
    shown = await desk.read()
    assert "workflow_queue_depth" not in shown
    assert shown["orchestrator_figures_up{server=postgresql}"] == 0
    assert shown["hooks_queue_depth"] == 5
    setattr(desk.database, how, False)
    desk.streams.away = True
    shown = await desk.read()
    assert shown["workflow_queue_depth"] == 7
    assert "hooks_queue_depth" not in shown


async def test_ends_are_counted_once_each_from_the_first_look_on() -> None:
    desk = Desk()
    desk.database.done = [(START, EndedExecution("saga", "completed", 1.0))]
    shown = await desk.read()
    assert not any(name.startswith("workflow_executions_total") for name in shown)
    for second in range(1, 4):
        at = START + timedelta(seconds=second)
        desk.database.done += [(at, EndedExecution("saga", "failed", 7.0)), (at, EndedExecution("saga", "failed", 0.5))]
        desk.database.runs += [(at, "completed"), (at, "timeout")]
        desk.database.now = at
        shown = await desk.read()
        assert shown["workflow_executions_total{pattern=saga,status=failed}"] == 2 * second
        assert shown["hooks_executed_total{status=completed}"] == second
        assert shown["hooks_timeout_total"] == second
        assert shown["hooks_errors_total{error_type=timeout}"] == second
    assert shown["workflow_execution_duration_seconds_bucket{le=1.0,pattern=saga}"] == 3
    # A clock that goes back counts nothing twice.
    desk.database.now = START
    await desk.read()
    desk.database.now = START + timedelta(seconds=3)
    assert (await desk.read())["workflow_executions_total{pattern=saga,status=failed}"] == 6


async def test_an_outage_in_between_loses_no_end() -> None:
    desk = Desk()
    await desk.read()
    desk.database.away = True
    desk.database.done = [(START + timedelta(seconds=1), EndedExecution("swarm", "completed", 1.0))]
    desk.database.now = START + timedelta(seconds=5)
    await desk.read()
    desk.database.away = False
    assert (await desk.read())["workflow_executions_total{pattern=swarm,status=completed}"] == 1


def test_plannings_are_timed() -> None:
    desk = Desk()
    planning = GraphPlanning(Planner(), PlanningTimes(desk.registry).observe)
    planning.plan(WorkflowDefinition.model_validate(definition()))
    assert desk.shown()["graph_planning_duration_seconds_count"] == 1


async def test_metrics_ask_the_servers_only_for_who_may_see_them() -> None:
    gateway = Gateway(settings_of())
    desk = Desk()
    object.__setattr__(gateway.dependencies, "figures", desk.figures)
    async with gateway.client(role=None) as nobody:
        assert (await nobody.get("/metrics")).status_code == 401
    assert desk.database.reads == 0
    async with gateway.client() as somebody:
        assert (await somebody.get("/metrics")).status_code == 200
    assert desk.database.reads == 1


async def test_failures_are_shown_by_service_and_by_agent_type() -> None:
    shown = await Desk().read()
    assert shown["circuit_breaker_failures_total{service=agent:writer}"] == 5
    assert shown["agent_failures_total{agent_type=writer}"] == 7
