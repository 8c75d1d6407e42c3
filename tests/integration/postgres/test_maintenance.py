"""What the reconciler asks across tenants, against a real server."""

import uuid
from uuid import UUID

import pytest

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.errors import InvalidParametersError
from engine.ports import OpenExecution
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.maintenance import PostgresMaintenanceStore
from tests.integration.postgres.builders import Run, attempt, bound, done, plan_execution

ALL_MAX = 1000


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


async def everything_open(maintenance: PostgresMaintenanceStore) -> dict[UUID, OpenExecution]:
    found: dict[UUID, OpenExecution] = {}
    after = None
    while page := await maintenance.open_executions(after, 7):
        found |= {item.execution_id: item for item in page}
        after = page[-1].execution_id
    return found


async def test_an_execution_without_a_tick_is_unlaunched(run: Run, maintenance: PostgresMaintenanceStore) -> None:
    (mine,) = [item for item in await maintenance.unlaunched(0, ALL_MAX) if item.tenant == run.tenant]
    assert mine.execution_id == run.execution_id
    assert mine.launch is not None
    assert ExecutionInput.model_validate(mine.launch) == run.launch
    assert run.execution_id not in {item.execution_id for item in await maintenance.unlaunched(60, ALL_MAX)}
    await run.commit(consumed=("1-0",))
    assert run.execution_id not in {item.execution_id for item in await maintenance.unlaunched(0, ALL_MAX)}


async def test_an_execution_is_behind_until_a_later_tick_knows_of_the_last(
    run: Run, maintenance: PostgresMaintenanceStore
) -> None:
    async def behind(quiet_seconds: float = 0) -> bool:
        found = await maintenance.behind(quiet_seconds, ALL_MAX)
        return run.execution_id in {item.execution_id for item in found}

    assert not await behind()
    await run.commit(consumed=("1-0",), base_tick=0)
    assert await behind()
    assert not await behind(quiet_seconds=60)
    await run.commit(consumed=("2-0",), base_tick=1)
    assert await behind()


async def test_a_tick_that_changes_nothing_ends_the_catching_up(
    run: Run, maintenance: PostgresMaintenanceStore
) -> None:
    async def behind() -> bool:
        return run.execution_id in {item.execution_id for item in await maintenance.behind(0, ALL_MAX)}

    await run.commit(consumed=("1-0",), base_tick=0)
    await run.commit(consumed=("2-0",), base_tick=0)
    await run.commit(low="2-0", base_tick=1)
    assert await behind(), "tick 2 may still be missing in the history"
    await run.commit(low="2-0", base_tick=3)
    assert not await behind()


async def test_open_executions_are_walked_across_tenants(
    run: Run,
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
    maintenance: PostgresMaintenanceStore,
) -> None:
    other = await plan_execution(definitions, executions, journal, f"{run.tenant}-b")
    closed = await plan_execution(definitions, executions, journal, run.tenant)
    await closed.commit(status=ExecutionStatus.COMPLETED)
    await run.start()
    found = await everything_open(maintenance)
    assert (found[run.execution_id].status, found[run.execution_id].last_tick) == (ExecutionStatus.EXECUTING, 1)
    assert found[other.execution_id].tenant == other.tenant
    assert closed.execution_id not in found
    assert await maintenance.is_closed(run.tenant, run.execution_id) is False
    assert await maintenance.is_closed(run.tenant, closed.execution_id) is True
    assert await maintenance.is_closed(other.tenant, closed.execution_id) is None
    assert await maintenance.is_closed(run.tenant, uuid.uuid4()) is None


async def test_executions_are_found_by_host_and_by_missing_host(
    run: Run, maintenance: PostgresMaintenanceStore
) -> None:
    tenant, mine = run.tenant, [run.execution_id]
    assert await maintenance.executions_missing_hosts(tenant, "synthetic") == mine
    await run.start("worker-1")
    assert await maintenance.executions_missing_hosts(tenant, "synthetic") == mine
    assert await maintenance.executions_missing_hosts(tenant, "another") == []
    await run.commit(bound=(bound("worker-2", "host-2"),))
    assert await maintenance.executions_missing_hosts(tenant, "synthetic") == []
    assert await maintenance.executions_using_host(tenant, "host-2") == mine
    await run.commit(gone=("worker-2",))
    assert await maintenance.executions_using_host(tenant, "host-2") == []
    assert await maintenance.executions_missing_hosts(tenant, "synthetic") == mine
    await run.commit(bound=(bound("worker-2", "host-3"),))
    assert await maintenance.executions_using_host(tenant, "host-3") == mine
    assert await maintenance.executions_using_host(f"{tenant}-b", "host-3") == []
    await run.commit(status=ExecutionStatus.COMPLETED)
    assert await maintenance.executions_using_host(tenant, "host-3") == []


async def test_only_running_attempts_take_progress(
    run: Run, executions: PostgresExecutionStore, maintenance: PostgresMaintenanceStore
) -> None:
    await run.start()
    await run.commit(assigned=(attempt("a", 2), attempt("b", agent_id="worker-2")), done=(done("c"),))
    execution_id = run.execution_id
    await maintenance.write_progress(
        run.tenant,
        [
            (execution_id, "a", 2, 0.25), (execution_id, "a", 2, 0.5), (execution_id, "b", 9, 0.5),
            (execution_id, "c", 1, 0.5), (execution_id, "nothing", 1, 0.5),
        ],
    )  # fmt: skip
    view = await executions.status(run.tenant, execution_id)
    assert [(agent.current_task, agent.progress) for agent in view.agents] == [("a", 0.5), ("b", 0.0)]
    await maintenance.write_progress(run.tenant, [(execution_id, "a", 2, 17.0)])
    await maintenance.write_progress(f"{run.tenant}-b", [(execution_id, "b", 1, 0.7)])
    await maintenance.write_progress(run.tenant, [])
    page = await executions.tasks(run.tenant, execution_id, limit=3, page_token=None)
    assert [item.progress for item in page.items] == [1.0, 0.0, 1.0]
    with pytest.raises(InvalidParametersError):
        await maintenance.write_progress(run.tenant, [(execution_id, "a", 2, 0.5)] * 10_001)


async def test_one_process_leads_until_it_lets_go(maintenance: PostgresMaintenanceStore, tenant: str) -> None:
    async with (
        maintenance.leader(tenant) as first,
        maintenance.leader(tenant) as second,
        maintenance.leader(f"{tenant}-b") as other,
    ):
        assert (first, second, other) == (True, False, True)
    async with maintenance.leader(tenant) as again:
        assert again


async def test_limits_are_checked(maintenance: PostgresMaintenanceStore) -> None:
    with pytest.raises(InvalidParametersError):
        await maintenance.open_executions(None, 0)


async def test_the_launch_document_is_read_for_one_execution_at_a_time(
    run: Run, maintenance: PostgresMaintenanceStore
) -> None:
    document = await maintenance.launch_document(run.tenant, run.execution_id)
    assert ExecutionInput.model_validate(document).execution_id == str(run.execution_id)
    assert await maintenance.launch_document(run.tenant, uuid.uuid4()) is None
    assert await maintenance.launch_document(run.tenant + "-x", run.execution_id) is None
