"""Definitions against a real server."""

import asyncio
import copy
import uuid
from typing import Any

import pytest

from engine.contracts.execution import ExecutionStatus
from engine.errors import (
    AlreadyExecutingError,
    InvalidDefinitionError,
    InvalidParametersError,
    NotFoundError,
    UnavailableError,
)
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.pool import Database
from tests.integration.postgres.builders import (
    DIAMOND,
    content_hash,
    create_workflow,
    definition_of,
    launch_of,
    plan_execution,
    plan_of,
)


async def create(definitions: PostgresDefinitionStore, tenant: str, document: dict[str, Any]) -> tuple[uuid.UUID, bool]:
    ids = [task["id"] for task in document["tasks"]]
    return await definitions.create(tenant, document, content_hash(document), plan_of(ids), "subject|1")


async def test_a_definition_is_kept_with_its_plan(definitions: PostgresDefinitionStore, tenant: str) -> None:
    document = definition_of(DIAMOND, description="naïve ✓")
    workflow_id, created = await create(definitions, tenant, document)
    assert created
    detail = await definitions.get(tenant, workflow_id)
    assert detail.definition == document
    assert (detail.name, detail.version, detail.task_count) == (document["name"], "1.0.0", 4)
    assert detail.created_by == "subject|1"
    assert detail.estimated_resources.agents_required == 1
    assert await definitions.get_plan(tenant, workflow_id) == plan_of(DIAMOND)


async def test_the_same_content_answers_the_same_id(definitions: PostgresDefinitionStore, tenant: str) -> None:
    document = definition_of(DIAMOND)
    answers = await asyncio.gather(*(create(definitions, tenant, document) for _ in range(8)))
    assert len({workflow_id for workflow_id, _ in answers}) == 1
    assert [created for _, created in answers].count(True) == 1


async def test_other_content_under_a_name_and_version_is_refused(
    definitions: PostgresDefinitionStore, tenant: str
) -> None:
    document = definition_of(DIAMOND)
    await create(definitions, tenant, document)
    with pytest.raises(InvalidDefinitionError) as refused:
        await create(definitions, tenant, {**document, "description": "another"})
    assert refused.value.data["errors"] == [refused.value.message]
    other_version = await create(definitions, tenant, {**document, "version": "1.0.1"})
    other_tenant = await create(definitions, f"{tenant}-b", document)
    assert (other_version[1], other_tenant[1]) == (True, True)


async def test_a_deleted_definition_is_gone_and_its_name_free(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, tenant: str
) -> None:
    document = definition_of(DIAMOND)
    workflow_id, _ = await create(definitions, tenant, document)
    await definitions.delete(tenant, workflow_id)
    for call in (
        definitions.get(tenant, workflow_id),
        definitions.get_plan(tenant, workflow_id),
        definitions.delete(tenant, workflow_id),
        executions.insert_planning(
            tenant, launch_of(tenant, workflow_id), {}, {}, "x", allow_concurrent=False, request_hash=None
        ),
    ):
        with pytest.raises(NotFoundError):
            await call
    again, created = await create(definitions, tenant, {**document, "description": "new"})
    assert created
    assert again != workflow_id
    page = await definitions.list(tenant, limit=10, page_token=None)
    assert [item.workflow_id for item in page.items] == [again]


async def test_a_definition_is_not_deleted_while_it_executes_and_history_keeps_it_after(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> None:
    run = await plan_execution(definitions, executions, journal, tenant)
    with pytest.raises(AlreadyExecutingError) as refused:
        await definitions.delete(tenant, run.workflow_id)
    assert refused.value.data == {"execution_id": str(run.execution_id)}
    await run.commit(status=ExecutionStatus.COMPLETED)
    await definitions.delete(tenant, run.workflow_id)
    view = await executions.status(tenant, run.execution_id)
    assert list(view.task_states) == list(DIAMOND)
    listed = await executions.list(tenant, limit=1, page_token=None)
    assert listed.items[0].execution_id == run.execution_id


async def test_definitions_are_listed_newest_first_and_filtered(
    definitions: PostgresDefinitionStore, tenant: str
) -> None:
    made = [await create_workflow(definitions, tenant, name=f"w{n}") for n in range(5)]
    await create_workflow(definitions, tenant, name="s", orchestration_pattern="swarm")
    seen: list[uuid.UUID] = []
    token: str | None = None
    while True:
        page = await definitions.list(tenant, limit=2, page_token=token, pattern="supervisor")
        seen += [item.workflow_id for item in page.items]
        token = page.next_page_token
        if token is None:
            break
    assert seen == made[::-1]
    named = await definitions.list(tenant, limit=10, page_token=None, name="w3")
    assert [item.workflow_id for item in named.items] == [made[3]]


async def test_a_name_that_is_taken_and_freed_again_and_again_can_be_tried_again(
    database: Database, definitions: PostgresDefinitionStore, tenant: str
) -> None:
    """As when each definition that stops the insertion is deleted before it is looked at."""
    document = definition_of(DIAMOND)
    await create(definitions, tenant, document)
    blind = copy.copy(database)
    blind.queries = {**database.queries, "definitions.find": "SELECT NULL WHERE $1 || $2 || $3 = ''"}
    with pytest.raises(UnavailableError):
        await create(PostgresDefinitionStore(blind), tenant, document)


@pytest.mark.parametrize(
    "more", [{"description": "a\x00b"}, {"pattern_config": {"\x00": 1}}, {"pattern_config": {"n": 2**70}}]
)
async def test_what_cannot_be_stored_is_the_clients_error(
    definitions: PostgresDefinitionStore, tenant: str, more: dict[str, Any]
) -> None:
    with pytest.raises(InvalidParametersError):
        await definitions.create(tenant, definition_of(DIAMOND, **more), "hash", plan_of(DIAMOND), "someone")


async def test_bad_parameters_are_refused(definitions: PostgresDefinitionStore, tenant: str) -> None:
    for call in (
        definitions.list(tenant, limit=0, page_token=None),
        definitions.list(tenant, limit=1, page_token=None, pattern="chaos"),
        definitions.list(tenant, limit=1, page_token="AAAA"),
        definitions.list(tenant, limit=1, page_token=None, name="a\x00"),
        definitions.list(tenant, limit=1, page_token=None, name="\ud800"),
    ):
        with pytest.raises(InvalidParametersError):
            await call
