"""Hooks in PostgreSQL: names, revisions, deliveries with leases, records once each, circuits, clean-up."""

import uuid
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from engine.contracts.events import AuditEventType
from engine.contracts.hooks import (
    CircuitState,
    DeliveryKey,
    HookEntry,
    HookExecutionStatus,
    HookRun,
    HookTrigger,
    NewHook,
)
from engine.errors import HookNameConflictError, HookNotFoundError, InvalidTransitionError
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.hooks import PostgresHookDeliveries, PostgresHookStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.pool import Database
from engine.postgres.retention import PostgresRetentionStore
from tests.integration.postgres.builders import Run, plan_execution
from tests.integration.postgres.test_retention import Superuser, superuser  # noqa: F401 - a fixture

CIRCUIT_SECONDS = 60.0
FAILURES_MAX = 3


@pytest.fixture
def hooks(database: Database) -> PostgresHookStore:
    return PostgresHookStore(database, CIRCUIT_SECONDS)


@pytest.fixture
def deliveries(database: Database) -> PostgresHookDeliveries:
    return PostgresHookDeliveries(database, FAILURES_MAX, CIRCUIT_SECONDS)


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    run = await plan_execution(definitions, executions, journal, tenant)
    await run.start()
    return run


def new(name: str = "", **fields: Any) -> NewHook:
    return NewHook.model_validate(
        {
            "name": name or f"hook-{uuid.uuid4().hex[:8]}",
            "trigger": "post_task",
            "action": {"type": "command", "command": "ruff format {file}"},
            **fields,
        }
    )


def entry(run: Run, hook_ids: tuple[UUID, ...], position: int = 0, tick: int = 2) -> HookEntry:
    return HookEntry(
        execution_id=str(run.execution_id),
        workflow_id=str(run.workflow_id),
        tick=tick,
        position=position,
        trigger=HookTrigger.POST_TASK,
        event_type="task.completed",
        subject="task.completed workflow=w task=a",
        band=1,
        hooks=hook_ids,
        payload={"task_id": "a", "text": 'quotes " and \\ and \u0000'},
        at_ms=1,
    )


def ended(hook_id: UUID, run: Run | None, status: str = "completed", **fields: Any) -> HookRun:
    return HookRun(
        execution_id=uuid.uuid4(),
        hook_id=hook_id,
        hook_name="h",
        workflow_execution_id=None if run is None else run.execution_id,
        status=HookExecutionStatus(status),
        duration_ms=10,
        trigger=HookTrigger.POST_TASK,
        event_matched="task.completed",
        **fields,
    )


def key_of(item: HookEntry) -> DeliveryKey:
    return DeliveryKey(execution_id=UUID(item.execution_id), tick=item.tick, position=item.position)


async def test_a_hook_is_answered_as_it_was_registered_and_each_change_raises_the_revision(
    hooks: PostgresHookStore, tenant: str
) -> None:
    before = await hooks.switch(tenant)
    hook = new(
        description="formats", event_pattern="task=.*", priority=5, timeout_seconds=7,
        action={"type": "command", "command": "ruff", "args": ["format", "{file}"], "secrets": {"TOKEN": "t1"}},
        retry_policy={"max_attempts": 2},
    )  # fmt: skip
    made = await hooks.register(tenant, hook, "someone")
    read = await hooks.get(tenant, made.hook_id)
    assert read == made
    assert NewHook.model_validate(read.model_dump(include=set(NewHook.model_fields))) == hook
    changed = await hooks.update(tenant, made.hook_id, hook.model_copy(update={"priority": 1}), made.updated_at)
    assert changed.priority == 1
    assert not (await hooks.enable(tenant, made.hook_id, enabled=False)).enabled
    after = await hooks.switch(tenant)
    assert (before.revision, after.revision) == (0, 3)
    await hooks.delete(tenant, made.hook_id)
    with pytest.raises(HookNotFoundError):
        await hooks.get(tenant, made.hook_id)
    assert (await hooks.switch(tenant)).revision == 4


async def test_names_are_unique_in_a_tenant_and_nobody_sees_anothers(hooks: PostgresHookStore, tenant: str) -> None:
    made = await hooks.register(tenant, new("same"), "someone")
    other = await hooks.register(tenant, new("other"), "someone")
    with pytest.raises(HookNameConflictError):
        await hooks.register(tenant, new("same"), "someone")
    with pytest.raises(HookNameConflictError):
        await hooks.update(tenant, other.hook_id, new("same"), other.updated_at)
    stranger = f"{tenant}-x"
    await hooks.register(stranger, new("same"), "someone")
    for forbidden in (hooks.get(stranger, made.hook_id), hooks.delete(stranger, made.hook_id)):
        with pytest.raises(HookNotFoundError):
            await forbidden


async def test_a_change_of_what_somebody_else_has_changed_meanwhile_is_refused(
    hooks: PostgresHookStore, tenant: str
) -> None:
    made = await hooks.register(tenant, new(), "someone")
    await hooks.update(tenant, made.hook_id, new(), made.updated_at)
    with pytest.raises(InvalidTransitionError):
        await hooks.update(tenant, made.hook_id, new(), made.updated_at)
    with pytest.raises(HookNotFoundError):
        await hooks.update(tenant, uuid.uuid4(), new(), made.updated_at)


async def test_listings_page_and_filter_and_rules_come_in_the_order_in_which_they_run(
    hooks: PostgresHookStore, tenant: str
) -> None:
    for priority in (100, 50, 200):
        await hooks.register(tenant, new(f"p{priority}", priority=priority), "someone")
    await hooks.register(tenant, new("off", enabled=False, trigger="agent_failed"), "someone")
    first = await hooks.list(tenant, limit=2, page_token=None)
    rest = await hooks.list(tenant, limit=2, page_token=first.next_page_token)
    assert [item.name for item in (*first.items, *rest.items)] == ["p100", "p50", "p200", "off"]
    assert rest.next_page_token is None
    disabled = await hooks.list(tenant, limit=9, page_token=None, enabled=False)
    failed = await hooks.list(tenant, limit=9, page_token=None, trigger=HookTrigger.AGENT_FAILED)
    assert [item.name for item in disabled.items] == [item.name for item in failed.items] == ["off"]
    _, rules = await hooks.rules(tenant)
    assert [rule.name for rule in rules] == ["p50", "p100", "p200"]


async def test_the_tenants_switch_makes_every_hook_unrunnable_and_back(hooks: PostgresHookStore, tenant: str) -> None:
    made = await hooks.register(tenant, new(), "someone")
    assert [hook.hook_id for hook in await hooks.runnable(tenant, [made.hook_id])] == [made.hook_id]
    await hooks.set_switch(tenant, enabled=False)
    assert await hooks.runnable(tenant, [made.hook_id]) == []
    assert not (await hooks.switch(tenant)).enabled
    await hooks.set_switch(tenant, enabled=True)
    assert len(await hooks.runnable(tenant, [made.hook_id])) == 1


async def test_entries_are_journalled_with_their_tick_and_only_once(
    hooks: PostgresHookStore, deliveries: PostgresHookDeliveries, run: Run, tenant: str
) -> None:
    made = await hooks.register(tenant, new(), "someone")
    items = (entry(run, (made.hook_id,)), entry(run, (made.hook_id,), 1))
    await run.commit(hook_entries=items)
    again = run.proposal(run.tick, hook_entries=(entry(run, (made.hook_id,), 7),))
    assert not (await run.journal.commit(again)).own
    keys = [key_of(items[0]), key_of(items[1]), key_of(entry(run, (), 7))]
    claimed = await deliveries.claim(tenant, keys, "w1", 30)
    assert {item.entry.position: item.claims for item in claimed} == {0: 1, 1: 1}
    assert claimed[0].entry.payload["text"] == 'quotes " and \\ and \u0000'


async def test_an_entry_is_its_claimers_until_its_lease_ends_it_is_released_or_done(
    deliveries: PostgresHookDeliveries, run: Run, tenant: str
) -> None:
    item = entry(run, (uuid.uuid4(),))
    keys = [key_of(item)]
    await run.commit(hook_entries=(item,))
    assert len(await deliveries.claim(tenant, keys, "w1", 30)) == 1
    assert not await deliveries.claim(tenant, keys, "w2", 30)
    assert not await deliveries.claim(tenant, keys, "w1", 30), "its news may come twice"
    await deliveries.renew(tenant, keys, "w1", 0)
    [taken] = await deliveries.claim(tenant, keys, "w2", 30)
    assert taken.claims == 2
    await deliveries.release(tenant, "w2")
    [taken] = await deliveries.claim(tenant, keys, "w3", 30)
    assert taken.claims == 2, "a worker that stops in order is not held against the entry"
    await deliveries.finish(tenant, keys)
    assert not await deliveries.claim(tenant, keys, "w3", 30)


async def test_what_nobody_takes_up_is_overdue_across_tenants_and_not_at_once_again(
    deliveries: PostgresHookDeliveries,
    run: Run,
    tenant: str,
    superuser: Superuser,  # noqa: F811 - the fixture
) -> None:
    item = entry(run, (uuid.uuid4(),))
    await run.commit(hook_entries=(item,))

    async def own_overdue() -> list[DeliveryKey]:
        return [late.key for late in await deliveries.overdue(10_000, 60) if late.tenant == tenant]

    assert await own_overdue() == []
    await superuser.execute("UPDATE hook_deliveries SET due_at = now() - interval '1 s' WHERE tenant = $1", tenant)
    assert await own_overdue() == [key_of(item)]
    assert await own_overdue() == []


async def test_a_run_is_recorded_once_with_statistics_and_an_event_in_the_executions_log(
    hooks: PostgresHookStore,
    deliveries: PostgresHookDeliveries,
    executions: PostgresExecutionStore,
    run: Run,
    tenant: str,
) -> None:
    made = await hooks.register(tenant, new(), "someone")
    good = ended(made.hook_id, run, output="out\x00put", announcement={"hook_id": str(made.hook_id)})
    bad = ended(made.hook_id, run, "timeout", error_message="too slow")
    answer = await deliveries.record(tenant, [good, bad])
    assert set(answer.recorded) == {good.execution_id, bad.execution_id}
    assert (await deliveries.record(tenant, [good])).recorded == ()
    stats = (await hooks.get(tenant, made.hook_id)).execution_stats
    assert (stats.total_executions, stats.successful_executions, stats.failed_executions) == (2, 1, 1)
    assert stats.average_duration_ms == 10
    events, _ = await executions.events(tenant, run.execution_id, after_sequence=0, limit=100)
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert [event.event_type for event in events][-3:] == ["hook.triggered", "hook.executed", "hook.executed"]
    assert events[-1].payload["status"] == "timeout"
    assert events[-1].sequence == answer.last_sequence
    page = await hooks.executions(tenant, limit=1, page_token=None, hook_id=made.hook_id)
    more = await hooks.executions(tenant, limit=5, page_token=page.next_page_token, hook_id=made.hook_id)
    assert {item.status.value for item in (*page.items, *more.items)} == {"completed", "timeout"}
    failed = await hooks.executions(tenant, limit=5, page_token=None, status=HookExecutionStatus.TIMEOUT)
    assert [item.error_message for item in failed.items] == ["too slow"]
    assert await deliveries.recorded(tenant, [good.execution_id, uuid.uuid4()]) == {good.execution_id}
    committed = await run.commit(audit=())
    assert committed.own, "ticks go on behind the events"


async def test_failures_in_a_row_open_the_circuit_and_a_success_closes_it(
    hooks: PostgresHookStore, deliveries: PostgresHookDeliveries, run: Run, tenant: str, database: Database
) -> None:
    made = await hooks.register(tenant, new(), "someone")

    async def record(*statuses: str, by: PostgresHookDeliveries = deliveries) -> bool:
        answer = await by.record(tenant, [ended(made.hook_id, run, status) for status in statuses])
        return made.hook_id in answer.switched_off

    assert not await record("failed", "failed")
    assert not await record("completed")
    assert not await record("failed", "failed", "completed", "failed", "failed")
    assert await record("failed")
    broken = (await hooks.get(tenant, made.hook_id)).circuit
    assert (broken.state, broken.consecutive_failures) == (CircuitState.OPEN, 3)
    assert broken.tried_at is not None
    assert broken.opened_at is not None
    assert broken.tried_at - broken.opened_at == timedelta(seconds=CIRCUIT_SECONDS)
    assert not await record("failed"), "it was under way when the circuit opened"
    assert not await record("failed", "timeout")
    assert (await hooks.get(tenant, made.hook_id)).circuit.tried_at == broken.tried_at
    half = PostgresHookStore(database, 1e-6)
    assert (await half.get(tenant, made.hook_id)).circuit.state is CircuitState.HALF_OPEN
    after_the_pause = PostgresHookDeliveries(database, FAILURES_MAX, 1e-6)
    assert await record("failed", by=after_the_pause), "a trial that fails opens it again, for longer"
    again = (await hooks.get(tenant, made.hook_id)).circuit
    assert again.tried_at is not None
    assert again.opened_at is not None
    assert again.tried_at - again.opened_at == timedelta(seconds=2 * CIRCUIT_SECONDS)
    await record("completed")
    assert (await hooks.get(tenant, made.hook_id)).circuit.state is CircuitState.CLOSED
    await deliveries.skipped(tenant, [made.hook_id])
    assert (await hooks.get(tenant, made.hook_id)).circuit.skipped_executions == 1


async def test_a_switched_off_hook_is_reported_in_both_logs(
    hooks: PostgresHookStore,
    deliveries: PostgresHookDeliveries,
    executions: PostgresExecutionStore,
    run: Run,
    tenant: str,
    superuser: Superuser,  # noqa: F811 - the fixture
) -> None:
    made = await hooks.register(tenant, new(), "someone")
    await deliveries.record(tenant, [ended(made.hook_id, run, "failed") for _ in range(FAILURES_MAX)])
    events, _ = await executions.events(tenant, run.execution_id, after_sequence=0, limit=100)
    assert events[-1].event_type == AuditEventType.HOOK_SWITCHED_OFF
    assert events[-1].payload["hook_name"] == made.name
    logged = await superuser.fetchrow("SELECT * FROM operation_log WHERE tenant = $1", tenant)
    assert logged is not None
    assert (logged["operation"], logged["subject_id"]) == ("hooks.switch_off", str(made.hook_id))


async def test_runs_of_no_execution_and_of_deleted_hooks_and_executions_are_recorded_all_the_same(
    hooks: PostgresHookStore, deliveries: PostgresHookDeliveries, tenant: str
) -> None:
    alone = ended(uuid.uuid4(), None)
    orphan = ended(uuid.uuid4(), None).model_copy(update={"workflow_execution_id": uuid.uuid4()})
    assert (await deliveries.record(tenant, [alone])).recorded == (alone.execution_id,)
    assert (await deliveries.record(tenant, [orphan])).recorded == (orphan.execution_id,)
    found = await hooks.executions(tenant, limit=9, page_token=None)
    assert [item.workflow_execution_id for item in found.items] == [None, None]


async def test_records_and_forgotten_entries_go_after_their_days_and_with_their_execution(
    hooks: PostgresHookStore,
    deliveries: PostgresHookDeliveries,
    run: Run,
    tenant: str,
    database: Database,
    superuser: Superuser,  # noqa: F811 - the fixture
) -> None:
    retention = PostgresRetentionStore(database)
    old, young = ended(uuid.uuid4(), run), ended(uuid.uuid4(), run)
    await deliveries.record(tenant, [old, young])
    await run.commit(hook_entries=(entry(run, (old.hook_id,), 0), entry(run, (old.hook_id,), 1)))
    await superuser.execute(
        "UPDATE hook_executions SET executed_at = now() - interval '8 days' WHERE execution_id = $1", old.execution_id
    )
    await superuser.execute(
        "UPDATE hook_deliveries SET created_at = now() - interval '8 days' WHERE tenant = $1 AND position = 1", tenant
    )
    assert await retention.delete_hook_executions(7, 1000) >= 1
    assert await retention.delete_hook_deliveries(7, 1000) >= 1
    kept = await hooks.executions(tenant, limit=9, page_token=None)
    assert [item.execution_id for item in kept.items] == [young.execution_id]
    count = "SELECT count(*) FROM hook_deliveries WHERE tenant = $1"
    assert await superuser.fetchval(count, tenant) == 1
    await retention.delete_execution(tenant, run.execution_id)
    assert await superuser.fetchval(count, tenant) == 0
    assert (await hooks.executions(tenant, limit=9, page_token=None)).items == ()


async def test_the_application_cannot_change_records(urls: Any, tenant: str) -> None:
    connection = await asyncpg.connect(urls.app)
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("UPDATE hook_executions SET status = 'completed'")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("DELETE FROM hook_executions")
    finally:
        await connection.close()
