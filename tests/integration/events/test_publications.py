"""Published facts on a real Valkey: workflows' own streams, what is kept for whom, what no tick has published."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from redis.asyncio import Redis

from engine.concurrency import end_all
from engine.contracts.streams import partition_of
from engine.contracts.views import ExecutionEvent
from engine.errors import UnavailableError
from engine.events import keys, publisher
from engine.events.facts import facts_of, packs_of, stored_lines
from engine.events.functions import Functions
from engine.events.partitions import PartitionLeases
from engine.events.publisher import FactPublisher, Publications
from engine.ports import Published
from tests.fakes.streams import eventually, until

PARTITIONS = 2
WORKFLOW = uuid4()


class FakePublicationStore:
    def __init__(self) -> None:
        self.rows: dict[UUID, Published] = {}
        self.logs: dict[UUID, list[ExecutionEvent]] = {}
        self.confirmed: list[UUID] = []
        self.reads = 0
        self.failures = 0

    def add(self, tenant: str, facts: int, closed_seconds_ago: float | None = None) -> Published:
        execution_id, now = uuid4(), datetime.now(UTC)
        closed = None if closed_seconds_ago is None else now - timedelta(seconds=closed_seconds_ago)
        trace_id = uuid4()
        self.logs[execution_id] = [
            ExecutionEvent(sequence=n, epoch=1, event_type=f"kind.{n}", timestamp=now, recorded_at=now,
                           payload={"n": n}, trace_id=trace_id)
            for n in range(1, facts + 1)
        ]  # fmt: skip
        row = Published(tenant=tenant, execution_id=execution_id, workflow_id=WORKFLOW, trace_id=trace_id,
                        last_sequence=facts, completed_at=closed)  # fmt: skip
        self.rows[execution_id] = row
        return row

    async def open_executions(self, after: UUID | None, limit: int) -> Sequence[Published]:
        rows = sorted((r for r in self.rows.values() if r.completed_at is None), key=lambda r: r.execution_id)
        return [row for row in rows if after is None or row.execution_id > after][:limit]

    async def closed_executions(self, closed_after: datetime, limit: int) -> Sequence[Published]:
        rows = [r for r in self.rows.values() if r.completed_at is not None and r.execution_id not in self.confirmed]
        rows.sort(key=lambda r: r.completed_at or closed_after)
        return [row for row in rows if row.completed_at is not None and row.completed_at > closed_after][:limit]

    async def facts(self, tenant: str, execution_id: UUID, after_sequence: int, limit: int) -> Sequence[ExecutionEvent]:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("PostgreSQL does not answer")
        self.reads += 1
        return self.logs[execution_id][after_sequence : after_sequence + limit]

    async def confirm(self, executions: Sequence[Published]) -> None:
        self.confirmed += [row.execution_id for row in executions]


class Stage:
    def __init__(self, redis: Redis, tenant: str) -> None:
        self.redis = redis
        self.tenant = tenant
        self.functions = Functions(redis)
        self.leases = PartitionLeases(self.functions, PARTITIONS)
        self.store = FakePublicationStore()
        self.publications = Publications(redis, self.functions, self.leases, self.store, 3_600)

    async def publish(self, row: Published, first: int = 1, last: int | None = None) -> None:
        """As ticks do."""
        events = self.store.logs[row.execution_id][first - 1 : last]
        packs = [part for pack in packs_of(first, stored_lines(events)) for part in pack]
        who = [str(row.execution_id), str(row.workflow_id), str(row.trace_id)]
        names = [keys.tick_key(row.tenant, who[0]), self.stream(row)]
        await self.functions.call("orc_publish_facts", names, [60, first, events[-1].sequence, *who, *packs])

    def stream(self, row: Published) -> str:
        return keys.facts_stream(row.tenant, partition_of(str(row.execution_id), PARTITIONS))

    async def view(self) -> list[dict[str, str]]:
        entries: Any = await self.redis.xrange(keys.workflow_events_prefix(self.tenant) + str(WORKFLOW))
        return [{name.decode(): value.decode() for name, value in fields.items()} for _, fields in entries]

    async def published(self, row: Published) -> list[int]:
        entries: Any = await self.redis.xrange(self.stream(row))
        return [fact.sequence for _, fields in entries for fact in facts_of(fields)
                if fact.execution_id == str(row.execution_id)]  # fmt: skip


@pytest.fixture
async def stage(redis: Redis, tenant: str) -> Stage:
    stage = Stage(redis, tenant)
    await redis.sadd(keys.TENANTS, tenant)
    await stage.leases.renew()
    return stage


async def test_a_workflows_stream_has_each_fact_once_with_all_that_it_says(stage: Stage) -> None:
    row = stage.store.add(stage.tenant, 3)
    await stage.publish(row, 1, 2)
    await stage.publications.expand([stage.tenant])
    await stage.publish(row, 3)
    await stage.publications.expand([stage.tenant])
    await stage.publications.expand([stage.tenant])
    view = await stage.view()
    assert [(fields["event_type"], fields["payload"]) for fields in view] == [
        (f"kind.{n}", f'{{"n":{n}}}') for n in (1, 2, 3)
    ]
    execution_id, trace = str(row.execution_id), row.trace_id.hex
    assert view[2] == {
        "event_type": "kind.3", "workflow_id": str(WORKFLOW), "execution_id": execution_id,
        "timestamp": view[2]["time"], "payload": '{"n":3}', "trace_id": str(row.trace_id), "sequence": "3",
        "epoch": "1", "specversion": "1.0", "id": f"{execution_id}:3",
        "source": f"/tenants/{stage.tenant}/workflows/{WORKFLOW}", "type": "kind.3", "time": view[2]["time"],
        "traceparent": f"00-{trace}-{row.execution_id.hex[:16]}-01",
    }  # fmt: skip
    assert datetime.fromisoformat(view[2]["time"]) <= datetime.now(UTC)


async def test_more_than_a_step_takes_is_brought_over_in_order(stage: Stage) -> None:
    rows = [stage.store.add(stage.tenant, 700) for _ in range(3)]
    for first in range(1, 700, 20):
        for row in rows:
            await stage.publish(row, first, first + 19)
    turns = 0
    while len(await stage.view()) < 3 * 700:
        await stage.publications.expand([stage.tenant])
        turns += 1
    assert turns > 1
    view = await stage.view()
    for row in rows:
        own = [int(fields["sequence"]) for fields in view if fields["execution_id"] == str(row.execution_id)]
        assert own == list(range(1, 701))


async def test_what_is_no_burst_is_worked_off_at_once(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher, "HURRY_AFTER", 1)
    row = stage.store.add(stage.tenant, 3_000)
    for first in range(1, 3_000, 100):
        await stage.publish(row, first, first + 99)
    await stage.publications.expand([stage.tenant])
    assert len(await stage.view()) < 3_000
    await stage.publications.expand([stage.tenant])
    assert len(await stage.view()) == 3_000
    await stage.publications.expand([stage.tenant])
    assert stage.publications._late == 0


async def test_packs_are_kept_until_each_group_that_reads_has_acknowledged(stage: Stage) -> None:
    row = stage.store.add(stage.tenant, 3)
    for n in (1, 2, 3):
        await stage.publish(row, n, n)
    await stage.publications.trim([stage.tenant])
    assert await stage.published(row) == [1, 2, 3]  # the view lacks them
    await stage.publications.expand([stage.tenant])
    names: dict[Any, Any] = {stage.stream(row): ">"}
    groups: Any = await stage.redis.xinfo_groups(stage.stream(row))
    assert {group["name"].decode() for group in groups} == {"orchestrator", "monitor", "hooks_executor"}
    read: Any = await stage.redis.xreadgroup("monitor", "m1", names, count=2)
    await stage.publications.trim([stage.tenant])
    assert await stage.published(row) == [1, 2, 3]
    first, second = (entry_id for entry_id, _ in read[0][1])
    await stage.redis.xack(stage.stream(row), "monitor", first)
    await stage.publications.trim([stage.tenant])
    assert await stage.published(row) == [2, 3]
    await stage.redis.xack(stage.stream(row), "monitor", second)
    await stage.publications.trim([stage.tenant])
    assert await stage.published(row) == [3]
    await stage.redis.xgroup_delconsumer(stage.stream(row), "monitor", "m1")
    await stage.publications.trim([stage.tenant])
    assert await stage.published(row) == []


async def test_what_is_too_old_goes_whoever_wants_it(stage: Stage) -> None:
    row = stage.store.add(stage.tenant, 1)
    await stage.publish(row)
    await stage.publications.expand([stage.tenant])
    names: dict[Any, Any] = {stage.stream(row): ">"}
    await stage.redis.xreadgroup("monitor", "m1", names)
    stage.publications._kept_seconds = -60
    await stage.publications.trim([stage.tenant])
    assert await stage.published(row) == []


async def test_what_no_tick_has_published_is_found_and_closed_executions_are_confirmed(stage: Stage) -> None:
    queued = stage.store.add(stage.tenant, 1)
    just_closed = stage.store.add(stage.tenant, 1_200, closed_seconds_ago=2)
    long_closed = stage.store.add(stage.tenant, 4, closed_seconds_ago=90)
    before_an_outage = stage.store.add(stage.tenant, 3, closed_seconds_ago=6 * 24 * 3600)
    await stage.publish(long_closed, 1, 2)
    await stage.publications.sweep()
    assert await stage.published(before_an_outage) == [1, 2, 3]
    assert await stage.published(queued) == [1]
    assert await stage.published(just_closed) == list(range(1, 1_201))
    assert await stage.published(long_closed) == [1, 2, 3, 4]
    reads = stage.store.reads
    await stage.publications.sweep()
    assert stage.store.confirmed == [before_an_outage.execution_id, long_closed.execution_id]
    assert stage.store.reads == reads


async def test_what_the_server_has_lost_is_published_again(stage: Stage) -> None:
    row = stage.store.add(stage.tenant, 5)
    await stage.publish(row)
    await stage.redis.flushdb()
    await stage.publications.sweep()
    assert await stage.published(row) == [1, 2, 3, 4, 5]


async def test_each_partition_is_looked_after_by_whoever_holds_it(stage: Stage, redis: Redis) -> None:
    row = stage.store.add(stage.tenant, 1, closed_seconds_ago=90)
    await stage.leases.release()
    await stage.publications.sweep()
    assert await stage.published(row) == []
    assert stage.store.confirmed == []


async def test_catching_up_stops_when_the_streams_went_back(stage: Stage) -> None:
    row = stage.store.add(stage.tenant, 5)
    await FactPublisher(stage.functions, stage.store, PARTITIONS).catch_up(row, 3)
    assert await stage.published(row) == []


async def test_views_and_sweep_run_until_cancelled_and_outlast_an_outage(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publisher, "SWEEP_SECONDS", 0.01)
    row = stage.store.add(stage.tenant, 2)
    stage.store.failures = 2
    jobs = [asyncio.create_task(job()) for job in (stage.publications.run_views, stage.publications.run_sweep)]
    await until(lambda: stage.store.failures == 0, 20)

    async def seen() -> bool:
        return len(await stage.view()) == 2

    await eventually(seen, 20)
    await end_all(jobs)
    assert [fields["execution_id"] for fields in await stage.view()] == [str(row.execution_id)] * 2
