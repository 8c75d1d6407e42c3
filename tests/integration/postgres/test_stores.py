"""Dispatch, hosts and the operation log against a real server."""

import asyncio
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
import pytest

from engine.contracts.kernel import TaskResult
from engine.contracts.limits import RESULT_BYTES_MAX
from engine.contracts.views import OperationRecord
from engine.errors import (
    IdempotencyConflictError,
    InvalidParametersError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from engine.ports import HostRecord
from engine.postgres.cluster import ClusterUrls
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.dispatch import PostgresDispatchStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.hosts import BATCH_HOSTS_MAX, PostgresHostStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.operations import PostgresOperationLog
from engine.postgres.stores import Stores
from engine.settings import Settings
from tests.integration.postgres.builders import DIAMOND, Run, attempt, done, plan_execution, result

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


def host(host_id: str, age_seconds: float = 0, **fields: Any) -> HostRecord:
    seen = datetime.now(UTC) - timedelta(seconds=age_seconds)
    values = {"types": ("synthetic",), "slots": 8, "registered_at": seen, "last_seen": seen, **fields}
    return HostRecord(host_id=host_id, **values)


async def test_the_body_holds_what_dispatch_needs(run: Run, dispatch: PostgresDispatchStore) -> None:
    body = await dispatch.body(run.tenant, run.execution_id)
    assert body.execution_id == run.launch.execution_id
    assert body.workflow_id == run.launch.workflow_id
    assert body.trace_id == run.launch.trace_id
    assert body.input_data == {"the": "input"}
    assert [task["id"] for task in body.definition["tasks"]] == list(DIAMOND)
    with pytest.raises(NotFoundError):
        await dispatch.body(run.tenant, uuid.uuid4())


async def test_results_are_those_of_completed_tasks(run: Run, dispatch: PostgresDispatchStore) -> None:
    await run.commit(
        assigned=(attempt("c"),),
        done=(done("a"), done("b")),
        results=(result("a", {"n": [1, None]}), result("b", None), result("a", "of another attempt", number=2)),
    )
    assert await dispatch.results(run.tenant, run.execution_id, ["a", "b", "c", "d"]) == {
        "a": {"n": [1, None]},
        "b": None,
    }
    with pytest.raises(InvalidParametersError):
        await dispatch.results(run.tenant, run.execution_id, ["a"] * 10_001)


@pytest.mark.parametrize("size", [10, 5_000, 2_000_000])
async def test_a_large_result_travels_by_reference(run: Run, dispatch: PostgresDispatchStore, size: int) -> None:
    document = {"text": "x" * size, "noise": [uuid.uuid4().hex for _ in range(size // 100)]}
    payload = orjson.dumps(document)
    reference = await dispatch.put_payload(run.tenant, run.execution_id, payload)
    assert await dispatch.put_payload(run.tenant, run.execution_id, payload) == reference
    await run.commit(done=(done("a"),), results=(TaskResult(task_id="a", attempt=1, result_ref=reference),))
    assert await dispatch.results(run.tenant, run.execution_id, ["a"]) == {"a": document}
    assert await dispatch.payload(run.tenant, run.execution_id, reference) == payload
    whole = await dispatch.result(run.tenant, run.execution_id, "a")
    assert (whole.task_id, whole.state, whole.attempt, whole.result) == ("a", "completed", 1, document)


async def test_a_task_without_a_result_answers_like_one_that_is_not_there(
    run: Run, dispatch: PostgresDispatchStore
) -> None:
    await run.commit(assigned=(attempt("c"),), done=(done("a"),), results=(result("a", None),))
    assert (await dispatch.result(run.tenant, run.execution_id, "a")).result is None
    messages = set()
    for tenant, execution_id, task_id in (
        (run.tenant, run.execution_id, "c"),
        (run.tenant, run.execution_id, "nobody"),
        (run.tenant, uuid.uuid4(), "a"),
        (f"{run.tenant}-b", run.execution_id, "a"),
    ):
        with pytest.raises(NotFoundError) as refused:
            await dispatch.result(tenant, execution_id, task_id)
        messages.add(refused.value.message)
    assert len(messages) == 1


async def test_payloads_have_limits_and_owners(run: Run, dispatch: PostgresDispatchStore) -> None:
    with pytest.raises(TooLargeError):
        await dispatch.put_payload(run.tenant, run.execution_id, b" " * (RESULT_BYTES_MAX + 1))
    reference = await dispatch.put_payload(run.tenant, run.execution_id, b"1")
    for tenant, execution_id in ((f"{run.tenant}-b", run.execution_id), (run.tenant, uuid.uuid4())):
        with pytest.raises(NotFoundError):
            await dispatch.payload(tenant, execution_id, reference)
    await run.commit(done=(done("a"),), results=(TaskResult(task_id="a", attempt=1, result_ref="sha256:no"),))
    with pytest.raises(NotFoundError):
        await dispatch.results(run.tenant, run.execution_id, ["a"])


async def test_hosts_are_registered_seen_and_lost(hosts: PostgresHostStore, tenant: str) -> None:
    first, second = (
        host("h1", 60),
        host("h2", 30, types=("a", "b"), capabilities=("x", "y"), pid=7, features=("chains",)),
    )
    assert await hosts.upsert(tenant, [second, first]) == []
    assert await hosts.live(tenant, "synthetic", 10) == [first]
    assert await hosts.live(tenant, "b", 10) == [second]
    assert await hosts.live(tenant, "c", 10) == []

    seen = first.model_copy(update={"last_seen": datetime.now(UTC), "registered_at": datetime.now(UTC)})
    await hosts.upsert(tenant, [seen, first])
    live = await hosts.live(tenant, "synthetic", 10)
    assert (live[0].registered_at, live[0].last_seen) == (first.registered_at, first.last_seen)
    await hosts.upsert(tenant, [seen])
    await hosts.upsert(tenant, [first])
    live = await hosts.live(tenant, "synthetic", 10)
    assert live[0].last_seen == seen.last_seen

    assert await hosts.mark_gone(tenant, ["h1", "h9"]) == ["h1"]
    assert await hosts.mark_gone(tenant, ["h1"]) == []
    assert await hosts.live(tenant, "synthetic", 10) == []


async def test_a_host_that_is_gone_stays_gone(hosts: PostgresHostStore, tenant: str) -> None:
    await hosts.upsert(tenant, [host("h1"), host("h2")])
    await hosts.mark_gone(tenant, ["h1"])
    assert await hosts.upsert(tenant, [host("h1"), host("h2")]) == ["h1"]
    assert [item.host_id for item in await hosts.live(tenant, "synthetic", 10)] == ["h2"]
    await hosts.upsert(tenant, [host("h2", state="gone")])
    assert await hosts.live(tenant, "synthetic", 10) == []


async def test_hosts_are_paged_and_filtered(hosts: PostgresHostStore, tenant: str) -> None:
    await hosts.upsert(tenant, [host(f"h{n}", types=("even",) if n % 2 == 0 else ("odd",)) for n in range(5)])
    await hosts.mark_gone(tenant, ["h0"])
    first = await hosts.page(tenant, limit=3, page_token=None)
    second = await hosts.page(tenant, limit=3, page_token=first.next_page_token)
    assert [item.host_id for item in (*first.items, *second.items)] == ["h0", "h1", "h2", "h3", "h4"]
    assert second.next_page_token is None
    even = await hosts.page(tenant, limit=3, page_token=None, agent_type="even", state="live")
    assert [item.host_id for item in even.items] == ["h2", "h4"]
    with pytest.raises(InvalidParametersError):
        await hosts.page(tenant, limit=3, page_token=None, state="asleep")
    with pytest.raises(InvalidParametersError):
        await hosts.mark_gone(tenant, ["x"] * (BATCH_HOSTS_MAX + 1))


async def test_silent_hosts_are_found_across_tenants(hosts: PostgresHostStore, tenant: str) -> None:
    other = f"{tenant}-b"
    await hosts.upsert(tenant, [host("old", 100_000), host("new")])
    await hosts.upsert(other, [host("old", 100_000), host("gone", 100_000, state="gone")])
    silent = await hosts.silent(90_000, 1000)
    assert sorted((name, item.host_id) for name, item in silent if name in (tenant, other)) == [
        (tenant, "old"), (other, "old")
    ]  # fmt: skip


def operation(**fields: Any) -> OperationRecord:
    values = {
        "actor": "someone", "roles": ("admin",), "address": "127.0.0.1", "operation": "workflow.create",
        "subject_type": "workflow", "subject_id": None, "outcome": "ok", "request_id": "r", **fields,
    }  # fmt: skip
    return OperationRecord(**values)


async def test_operations_are_listed_newest_first(operations: PostgresOperationLog, tenant: str) -> None:
    for n in range(5):
        await operations.record(tenant, operation(subject_id=str(n), details={"n": n}))
    first = await operations.list(tenant, limit=3, page_token=None)
    second = await operations.list(tenant, limit=3, page_token=first.next_page_token)
    items = [*first.items, *second.items]
    assert [item["subject_id"] for item in items] == ["4", "3", "2", "1", "0"]
    assert items[0]["details"] == {"n": 4}
    assert items[0]["roles"] == ["admin"]
    assert items[0]["recorded_at"].tzinfo is not None
    assert second.next_page_token is None


async def test_nothing_a_client_sends_keeps_an_operation_out_of_the_log(
    operations: PostgresOperationLog, tenant: str
) -> None:
    await operations.record(tenant, operation(subject_id="a\x00\ud800", details={"v": "\x00", "big": 2**70}))
    page = await operations.list(tenant, limit=1, page_token=None)
    assert page.items[0]["subject_id"] == "a\ufffd?"
    assert page.items[0]["details"]["v"] == "\x00"


async def test_an_idempotency_key_stands_for_its_first_request(urls: ClusterUrls, tenant: str) -> None:
    async with Stores.open(Settings(database_url=urls.app, database_pool_max=4)) as stores:
        keys = stores.idempotency
        await asyncio.gather(*(keys.claim(tenant, "workflow.pause", "key", "hash") for _ in range(8)))
        with pytest.raises(IdempotencyConflictError):
            await keys.claim(tenant, "workflow.pause", "key", "another")
        await keys.claim(tenant, "workflow.resume", "key", "another")
        await keys.claim(f"{tenant}-b", "workflow.pause", "key", "another")
    with pytest.raises(UnavailableError):
        await keys.claim(tenant, "workflow.pause", "key", "hash")
