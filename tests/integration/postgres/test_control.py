"""Pause, resume, cancel and checkpoint requests against a real server."""

import asyncio
import uuid
from typing import Literal

import pytest

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Checkpoint, Control
from engine.errors import CheckpointNotFoundError, InvalidParametersError, InvalidTransitionError, NotFoundError
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from tests.integration.postgres.builders import Run, plan_execution

Action = Literal["pause", "resume", "cancel", "checkpoint"]


@pytest.fixture
async def run(
    definitions: PostgresDefinitionStore, executions: PostgresExecutionStore, journal: PostgresJournal, tenant: str
) -> Run:
    return await plan_execution(definitions, executions, journal, tenant)


def ask(action: Action, checkpoint_id: str | None = None) -> Control:
    return Control(request_id=str(uuid.uuid4()), action=action, checkpoint_id=checkpoint_id)


async def test_a_pause_asked_before_the_first_tick_is_kept_for_it(run: Run, executions: PostgresExecutionStore) -> None:
    pause = ask("pause", str(uuid.uuid4()))
    status, effective = await executions.request_control(run.tenant, run.execution_id, pause)
    assert (status, effective) == (ExecutionStatus.PLANNING, pause)
    assert (await run.commit(status=ExecutionStatus.EXECUTING)).control == pause


async def test_the_same_request_twice_is_one_request_whatever_happened_since(
    run: Run, executions: PostgresExecutionStore
) -> None:
    await run.start()
    pause = ask("pause", str(uuid.uuid4()))
    await executions.request_control(run.tenant, run.execution_id, pause)
    await run.commit(control_seen=pause.request_id, status=ExecutionStatus.PAUSED)
    assert await executions.request_control(run.tenant, run.execution_id, pause) == (ExecutionStatus.PAUSED, pause)
    assert (await run.commit(consumed=("1-0",))).control is None


async def test_a_second_pause_waits_for_the_checkpoint_of_the_first(
    run: Run, executions: PostgresExecutionStore
) -> None:
    await run.start()
    first, second = ask("pause", str(uuid.uuid4())), ask("pause", str(uuid.uuid4()))
    await executions.request_control(run.tenant, run.execution_id, first)
    _, effective = await executions.request_control(run.tenant, run.execution_id, second)
    assert effective == first
    assert (await run.commit(consumed=("1-0",))).control == first


async def test_of_many_pauses_at_once_all_get_the_same_checkpoint(run: Run, executions: PostgresExecutionStore) -> None:
    await run.start()
    answers = await asyncio.gather(
        *(executions.request_control(run.tenant, run.execution_id, ask("pause", str(uuid.uuid4()))) for _ in range(10))
    )
    assert len({effective.checkpoint_id for _, effective in answers}) == 1


async def test_a_paused_execution_cannot_be_paused_but_resumed_or_cancelled(
    run: Run, executions: PostgresExecutionStore
) -> None:
    await run.start()
    await run.commit(status=ExecutionStatus.PAUSED)
    with pytest.raises(InvalidTransitionError) as refused:
        await executions.request_control(run.tenant, run.execution_id, ask("pause"))
    assert refused.value.data == {"status": "paused"}
    resume = ask("resume")
    assert await executions.request_control(run.tenant, run.execution_id, resume) == (ExecutionStatus.PAUSED, resume)
    cancel = ask("cancel")
    _, effective = await executions.request_control(run.tenant, run.execution_id, cancel)
    assert effective == cancel
    assert (await run.commit(consumed=("1-0",))).control == cancel


async def test_resume_names_a_checkpoint_of_this_execution(
    run: Run,
    definitions: PostgresDefinitionStore,
    executions: PostgresExecutionStore,
    journal: PostgresJournal,
) -> None:
    other = await plan_execution(definitions, executions, journal, run.tenant)
    foreign, own = str(uuid.uuid4()), str(uuid.uuid4())
    await other.commit(checkpoint=Checkpoint(checkpoint_id=foreign, reason="pause", completed=()))
    await run.commit(
        checkpoint=Checkpoint(checkpoint_id=own, reason="pause", completed=()), status=ExecutionStatus.PAUSED
    )
    with pytest.raises(CheckpointNotFoundError):
        await executions.request_control(run.tenant, run.execution_id, ask("resume", foreign))
    asked = ask("resume", own)
    _, effective = await executions.request_control(run.tenant, run.execution_id, asked)
    assert effective == asked


async def test_a_closed_execution_takes_no_request(run: Run, executions: PostgresExecutionStore) -> None:
    await run.commit(status=ExecutionStatus.COMPLETED)
    for action in ("pause", "resume", "cancel", "checkpoint"):
        with pytest.raises(InvalidTransitionError):
            await executions.request_control(run.tenant, run.execution_id, Control(request_id="r", action=action))


async def test_an_unknown_execution_or_a_strange_key_is_refused(run: Run, executions: PostgresExecutionStore) -> None:
    with pytest.raises(NotFoundError):
        await executions.request_control(run.tenant, uuid.uuid4(), ask("cancel"))
    with pytest.raises(InvalidParametersError):
        await executions.request_control(run.tenant, run.execution_id, Control(request_id="a\x00b", action="cancel"))


async def test_a_request_is_pending_until_a_tick_has_seen_it(run: Run, executions: PostgresExecutionStore) -> None:
    await run.start()
    assert await executions.pending_control(run.tenant, run.execution_id) is None
    asked = ask("cancel")
    await executions.request_control(run.tenant, run.execution_id, asked)
    assert await executions.pending_control(run.tenant, run.execution_id) == asked
    await run.commit(control_seen=asked.request_id, status=ExecutionStatus.CANCELLED)
    assert await executions.pending_control(run.tenant, run.execution_id) is None
