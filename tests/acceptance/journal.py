"""Do PostgreSQL's journal and Temporal's history tell the same ticks? Read from both servers themselves."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import asyncpg
from temporalio.api.enums.v1 import EventType
from temporalio.client import Client, WorkflowHistory

from engine.contracts import activity_names
from engine.contracts.kernel import Delta, TickOutcome
from engine.temporal.connection import DATA_CONVERTER
from tests.acceptance.running import RunningEngine

SECONDS_MAX = 120.0
COMMITTING = {activity_names.BEGIN_EXECUTION, activity_names.COMMIT_TICK, activity_names.COMMIT_TICK_PATIENTLY}

_ROW = "SELECT status, last_tick, base_tick, last_sequence FROM workflow_executions WHERE execution_id = $1::uuid"
_TICKS = "SELECT tick, delta FROM tick_journal WHERE execution_id = $1::uuid ORDER BY tick"


@dataclass(frozen=True)
class Row:
    status: str
    last_tick: int
    base_tick: int
    last_sequence: int


def assert_journal_and_history_agree(engine: RunningEngine, tenant: str, execution_id: str) -> int:
    """Every tick in the journal stands in the history with the same content, in order; the number of ticks."""
    row, journal = asyncio.run(_journal(engine, tenant, execution_id))
    history = asyncio.run(_history(engine, tenant, execution_id))
    assert sorted(journal) == list(range(1, row.last_tick + 1)) or sorted(journal) == list(range(row.last_tick + 1))
    assert list(history) == sorted(journal), "the history has other ticks than the journal"
    for tick, delta in history.items():
        assert delta == journal[tick], f"tick {tick} differs"
    return row.last_tick


def execution_row(engine: RunningEngine, tenant: str, execution_id: str) -> Row:
    return asyncio.run(_journal(engine, tenant, execution_id))[0]


def workflow_is_closed(engine: RunningEngine, tenant: str, execution_id: str) -> bool:
    """Whether Temporal says so."""

    async def ask() -> bool:
        async with asyncio.timeout(SECONDS_MAX):
            description = await (await _client(engine)).get_workflow_handle(f"{tenant}/{execution_id}").describe()
        return description.status is not None and description.status.name != "RUNNING"

    return asyncio.run(ask())


class JournalReader:
    """Reads executions' rows again and again, over one connection."""

    def __init__(self, engine: RunningEngine, tenant: str) -> None:
        self._engine = engine
        self._tenant = tenant
        self._runner = asyncio.Runner()

    def __enter__(self) -> Self:
        self._connection = self._runner.run(_connected(self._engine, self._tenant))
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._connection.close())
        self._runner.close()

    def row(self, execution_id: str) -> Row:
        return self._runner.run(_row(self._connection, execution_id))


async def _connected(engine: RunningEngine, tenant: str) -> "asyncpg.Connection[asyncpg.Record]":
    connection = await asyncpg.connect(
        engine.announced["database_url"], timeout=SECONDS_MAX, command_timeout=SECONDS_MAX
    )
    await connection.execute("SELECT set_config('app.tenant', $1, false)", tenant)
    return connection


async def _row(connection: "asyncpg.Connection[asyncpg.Record]", execution_id: str) -> Row:
    row = await connection.fetchrow(_ROW, execution_id)
    assert row is not None
    return Row(**dict(row))


async def _journal(engine: RunningEngine, tenant: str, execution_id: str) -> tuple[Row, dict[int, Delta]]:
    connection = await _connected(engine, tenant)
    try:
        row = await _row(connection, execution_id)
        ticks = await connection.fetch(_TICKS, execution_id)
    finally:
        await connection.close()
    return row, {tick["tick"]: Delta.model_validate_json(tick["delta"]) for tick in ticks}


async def _client(engine: RunningEngine) -> Client:
    address, namespace = engine.announced["temporal_address"], engine.announced["temporal_namespace"]
    return await Client.connect(address, namespace=namespace, data_converter=DATA_CONVERTER)


async def _history(engine: RunningEngine, tenant: str, execution_id: str) -> dict[int, Delta]:
    """The ticks of all runs, as the workflow got them; a tick that came twice must be the same both times."""
    client = await _client(engine)
    found: dict[int, Delta] = {}
    async with asyncio.timeout(SECONDS_MAX):
        handle = client.get_workflow_handle(f"{tenant}/{execution_id}")
        described = (await handle.describe()).raw_description.workflow_execution_info
        run_id = described.first_run_id or described.execution.run_id
        while run_id:
            history = await client.get_workflow_handle(f"{tenant}/{execution_id}", run_id=run_id).fetch_history()
            for outcome in await _outcomes(history):
                for delta in map(Delta.model_validate_json, outcome.ticks):
                    assert found.setdefault(delta.tick, delta) == delta
            run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
    return found


async def _outcomes(history: WorkflowHistory) -> list[TickOutcome]:
    """What the activities that commit ticks answered: in markers where they were local, else in their own events."""
    regular: set[int] = set()
    found = []
    for event in history.events:
        if event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
            scheduled = event.activity_task_scheduled_event_attributes
            if scheduled.activity_type.name in COMMITTING:
                regular.add(event.event_id)
        elif event.event_type == EventType.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
            completed = event.activity_task_completed_event_attributes
            if completed.scheduled_event_id in regular:
                found.append(await _decoded(completed.result.payloads))
        elif event.event_type == EventType.EVENT_TYPE_MARKER_RECORDED:
            marker = event.marker_recorded_event_attributes
            data = marker.details["data"].payloads if "data" in marker.details else []
            about = json.loads(data[0].data) if data else {}
            if about.get("activity_type") in COMMITTING and "result" in marker.details:
                found.append(await _decoded(marker.details["result"].payloads))
    return found


async def _decoded(payloads: Sequence[Any]) -> TickOutcome:
    [outcome] = await DATA_CONVERTER.decode(payloads, [TickOutcome])
    assert isinstance(outcome, TickOutcome)
    return outcome
