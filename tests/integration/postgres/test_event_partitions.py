"""The audit log's partitions: made ahead, dropped when old, and nothing of what is kept lost with them."""

import re
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import pytest

from engine.contracts.events import AuditEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.views import ExecutionEvent
from engine.embedded.postgres import PostgresServer
from engine.errors import ConfigurationError, EngineError
from engine.postgres.cluster import prepare_cluster
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.migrate import MIGRATIONS, migrate
from engine.postgres.pool import Database
from engine.postgres.publications import PostgresPublicationStore
from engine.postgres.retention import PostgresRetentionStore
from engine.settings import Settings
from tests.integration.postgres.builders import Run, event, plan_execution
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD

Superuser = asyncpg.Connection
TENANT = "acme"
ALL = 10_000


class Log:
    """A database of its own, since partitions are everybody's."""

    def __init__(self, superuser: Superuser, database: Database, owner_url: str) -> None:
        self.superuser, self.database, self.owner_url = superuser, database, owner_url
        self.retention = PostgresRetentionStore(database)
        self.executions = PostgresExecutionStore(database)

    async def run(self, events: int, *, close: bool = True) -> Run:
        journal = PostgresJournal(self.database)
        run = await plan_execution(PostgresDefinitionStore(self.database), self.executions, journal, TENANT)
        await run.start()
        for n in range(events):
            await run.commit(audit=(event(AuditEventType.TASK_ASSIGNED, task_id="a", n=n),))
        if close:
            await run.commit(status=ExecutionStatus.COMPLETED)
        return run

    async def age(self, run: Run, days: float, *, ended: float | None = None) -> None:
        """It began so many days ago, and ended then or later; its events go where their time belongs."""
        await self.superuser.execute(
            "UPDATE workflow_executions SET recorded_from = recorded_from - $2::float8 * interval '24 hours', "
            "completed_at = completed_at - $3::float8 * interval '24 hours' WHERE execution_id = $1",
            run.execution_id, days, days if ended is None else ended,
        )  # fmt: skip
        await self.superuser.execute(
            "UPDATE execution_events SET recorded_at = recorded_at - $2::float8 * interval '24 hours' "
            "WHERE execution_id = $1",
            run.execution_id, days,
        )  # fmt: skip

    async def partition(self, days_ago: float, days: int = 7) -> str:
        """One that holds what was recorded so many days ago."""
        day = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=days_ago)
        name = await self.superuser.fetchval("SELECT attach_event_partition($1, $2)", day, day + timedelta(days=days))
        return str(name)

    async def names(self) -> list[str]:
        rows = await self.superuser.fetch("SELECT name FROM event_partitions() ORDER BY from_at")
        return [row["name"] for row in rows]

    async def where(self, run: Run) -> dict[str, int]:
        rows = await self.superuser.fetch(
            "SELECT tableoid::regclass::text AS name, count(*) FROM execution_events WHERE execution_id = $1 "
            "GROUP BY 1",
            run.execution_id,
        )
        return {row["name"]: row["count"] for row in rows}

    async def sequences(self, run: Run) -> list[int]:
        return [item.sequence for item in await self.events(run)]

    async def events(self, run: Run) -> list[ExecutionEvent]:
        page, more = await self.executions.events(TENANT, run.execution_id, after_sequence=0, limit=1000)
        assert not more
        return list(page)

    async def forget(self, run: Run) -> None:
        await self.retention.delete_execution(TENANT, run.execution_id)


@pytest.fixture
async def log(postgres_server: PostgresServer) -> AsyncIterator[Log]:
    name = f"log_{uuid.uuid4().hex[:12]}"
    urls = await prepare_cluster(
        postgres_server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD, database=name
    )
    await migrate(urls.owner)
    superuser = await asyncpg.connect(postgres_server.url.rsplit("/", 1)[0] + f"/{name}")
    database = await Database.connect(Settings(database_url=urls.app, database_pool_max=4))
    yield Log(superuser, database, urls.owner)
    await database.close()
    await superuser.close()


async def test_partitions_are_made_ahead_once_and_follow_each_other(log: Log) -> None:
    assert await log.retention.prepare_event_partitions(7, 4) > 0
    assert await log.retention.prepare_event_partitions(7, 4) == 0
    rows = await log.superuser.fetch("SELECT from_at, until_at FROM event_partitions() ORDER BY from_at")
    assert rows[0]["from_at"] <= datetime.now(UTC)
    assert [row["from_at"] for row in rows[1:]] == [row["until_at"] for row in rows[:-1]]
    assert rows[-1]["until_at"] >= datetime.now(UTC) + timedelta(days=28)
    # Others wide from here on, without a gap.
    assert await log.retention.prepare_event_partitions(1, 60) > 20
    rows = await log.superuser.fetch("SELECT from_at, until_at FROM event_partitions() ORDER BY from_at")
    assert [row["from_at"] for row in rows[1:]] == [row["until_at"] for row in rows[:-1]]


async def test_events_without_a_partition_are_kept_and_new_partitions_begin_behind_them(log: Log) -> None:
    for name in await log.names():
        await log.superuser.execute(f"DROP TABLE {name}")
    run = await log.run(3)
    assert set(await log.where(run)) == {"execution_events_default"}
    assert await log.sequences(run) == [1, 2, 3, 4, 5]
    assert await log.retention.prepare_event_partitions(7, 4) == 4
    later = await log.run(1)
    assert set(await log.where(later)) == {"execution_events_default"}
    first = await log.superuser.fetchval("SELECT min(from_at) FROM event_partitions()")
    assert datetime.now(UTC) < first <= datetime.now(UTC) + timedelta(days=1)
    # They go by age, when their execution has gone.
    await log.age(run, 40)
    assert await log.retention.delete_events_without_partition(30, ALL) == 0
    await log.forget(run)
    assert await log.retention.delete_events_without_partition(30, ALL) == 5
    assert await log.sequences(later) == [1, 2, 3]


async def test_an_old_partition_goes_as_a_table_when_all_its_executions_have_gone(log: Log) -> None:
    name = await log.partition(60)
    runs = [await log.run(2) for _ in range(3)]
    fresh = await log.run(2)
    for run in runs:
        await log.age(run, 58)
        assert set(await log.where(run)) == {name}
        await log.forget(run)
    assert await log.retention.drop_event_partitions(30) == (1, 0)
    assert name not in await log.names()
    assert await log.superuser.fetchval("SELECT to_regclass($1)", name) is None
    assert await log.sequences(fresh) == [1, 2, 3, 4]
    assert await log.retention.drop_event_partitions(30) == (0, 0)


async def test_what_is_still_open_or_ended_late_keeps_its_events(log: Log) -> None:
    name = await log.partition(60)
    open_one, late, gone = await log.run(4, close=False), await log.run(4), await log.run(4)
    await log.age(open_one, 58)
    await log.age(late, 58, ended=5)
    await log.age(gone, 58)
    await log.forget(gone)
    before = [await log.events(run) for run in (open_one, late)]
    assert await log.retention.drop_event_partitions(30) == (1, 0)
    assert await log.where(open_one) == {f"{name}_kept": 6}
    assert await log.where(gone) == {}
    assert [await log.events(run) for run in (open_one, late)] == before
    # Nobody may write what is kept, and the open one goes on.
    with pytest.raises(ConfigurationError):
        async with log.database.maintenance_connection() as connection:
            await connection.execute(f"DELETE FROM {name}_kept")  # noqa: S608
    await open_one.commit(audit=(event(AuditEventType.TASK_ASSIGNED, task_id="b"),))
    assert await log.sequences(open_one) == list(range(1, 8))
    assert await log.retention.drop_event_partitions(30) == (0, 1)
    await log.forget(open_one)
    assert await log.retention.drop_event_partitions(30) == (0, 1)
    await log.forget(late)
    assert await log.retention.drop_event_partitions(30) == (1, 0)


async def test_too_much_to_copy_stays_where_it_is(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.postgres.retention.KEPT_EVENTS_MAX", 3)
    name = await log.partition(60)
    run = await log.run(4, close=False)
    await log.age(run, 58)
    assert await log.retention.drop_event_partitions(30) == (0, 1)
    assert await log.where(run) == {name: 6}


async def test_a_partition_in_use_is_never_dropped(log: Log) -> None:
    current = (await log.names())[0]
    with pytest.raises(EngineError):
        async with log.database.maintenance_connection() as connection:
            await connection.execute("SELECT drop_event_partition($1, false)", current)
    assert current in await log.names()


async def test_dropping_gives_up_soon_when_somebody_reads_and_ticks_go_on(log: Log) -> None:
    name = await log.partition(60)
    run = await log.run(1, close=False)
    reader = log.superuser.transaction()
    await reader.start()
    await log.superuser.fetchval("SELECT count(*) FROM execution_events")
    try:
        with pytest.raises(EngineError, match="does not answer"):
            await log.retention.drop_event_partitions(30)
        await run.commit(audit=(event(AuditEventType.TASK_ASSIGNED, task_id="b"),))
    finally:
        await reader.rollback()
    assert name in await log.names()
    assert await log.retention.drop_event_partitions(30) == (1, 0)


async def test_events_far_from_where_the_execution_says_are_found_all_the_same(log: Log) -> None:
    """A hook that ran long after the end; a clock that was set back."""
    await log.partition(60)
    run = await log.run(2)
    await log.superuser.execute(
        "UPDATE workflow_executions SET completed_at = now() - interval '20 days' WHERE execution_id = $1",
        run.execution_id,
    )
    assert await log.sequences(run) == [1, 2, 3, 4]
    await log.superuser.execute(
        "UPDATE execution_events SET recorded_at = recorded_at - interval '57 days' "
        "WHERE execution_id = $1 AND sequence = 2",
        run.execution_id,
    )
    assert await log.sequences(run) == [1, 2, 3, 4]
    publications = PostgresPublicationStore(log.database)
    assert [fact.sequence for fact in await publications.facts(TENANT, run.execution_id, 1, 2)] == [2, 3]


async def test_an_id_that_is_used_again_has_its_own_events_only(log: Log) -> None:
    await log.partition(60)
    run = await log.run(3)
    await log.age(run, 58)
    await log.forget(run)
    again = await log.run(1)
    for table in ("workflow_executions", "execution_events", "tick_journal"):
        await log.superuser.execute(
            f"UPDATE {table} SET execution_id = $1 WHERE execution_id = $2",  # noqa: S608
            run.execution_id, again.execution_id,
        )  # fmt: skip
    events = await log.events(run)
    assert [item.sequence for item in events] == [1, 2, 3]
    assert all(item.recorded_at > datetime.now(UTC) - timedelta(days=1) for item in events)


async def test_one_executions_page_reads_few_of_many_partitions(log: Log) -> None:
    for week in range(2, 52):
        await log.partition(week * 7)
    run = await log.run(5)
    await log.age(run, 100)
    plan = await log.superuser.fetch(
        "EXPLAIN (ANALYZE) SELECT * FROM execution_events AS v WHERE tenant = $1 AND execution_id = $2 "
        "AND sequence > 0 AND recorded_at >= (SELECT recorded_from FROM workflow_executions WHERE execution_id = $2) "
        "AND recorded_at <= (SELECT completed_at + interval '1 day' FROM workflow_executions WHERE execution_id = $2) "
        "ORDER BY sequence",
        TENANT, run.execution_id,
    )  # fmt: skip
    read = [row[0] for row in plan if re.search(r"Scan.* on execution_events_\w+", row[0])]
    executed = [line for line in read if "never executed" not in line]
    assert len(executed) <= 3 < len(read)
    assert await log.sequences(run) == list(range(1, 8))


async def test_each_partition_refuses_a_sequence_twice(log: Log) -> None:
    run = await log.run(1)
    with pytest.raises(asyncpg.UniqueViolationError):
        await log.superuser.execute("INSERT INTO execution_events SELECT * FROM execution_events WHERE sequence = 1")
    assert await log.sequences(run) == [1, 2, 3]


async def test_nobody_reads_a_partition_past_the_table(log: Log) -> None:
    run = await log.run(1)
    (name,) = await log.where(run)
    async with log.database.tenant_connection(TENANT) as connection:
        for statement in (f"SELECT count(*) FROM {name}", f"DELETE FROM {name}"):  # noqa: S608
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                async with connection.transaction():
                    await connection.execute(statement)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with connection.transaction():
                await connection.execute("SELECT prepare_event_partitions(1, 1)")
    owner = await asyncpg.connect(log.owner_url)
    try:
        assert await owner.fetchval("SELECT count(*) FROM execution_events") == 0
        assert await owner.fetchval(f"SELECT count(*) FROM {name}") == 0  # noqa: S608
    finally:
        await owner.close()


async def test_what_was_logged_before_the_migration_is_carried_over(postgres_server: PostgresServer, log: Log) -> None:
    """The schema of before, made out of today's: one table, with rows, and then the migration."""
    run = await log.run(3)
    before = await log.events(run)
    owner = await asyncpg.connect(log.owner_url)
    try:
        await log.superuser.execute(
            "CREATE TABLE plain (LIKE execution_events, CONSTRAINT execution_events_pkey2 "
            "PRIMARY KEY (tenant, execution_id, sequence)); "
            "INSERT INTO plain SELECT * FROM execution_events; DROP TABLE execution_events CASCADE; "
            "ALTER TABLE plain RENAME TO execution_events; "
            "ALTER TABLE execution_events RENAME CONSTRAINT execution_events_pkey2 TO execution_events_pkey; "
            "ALTER TABLE execution_events OWNER TO orchestrator_owner; "
            "ALTER TABLE execution_events ENABLE ROW LEVEL SECURITY; "
            "ALTER TABLE execution_events FORCE ROW LEVEL SECURITY; "
            "GRANT SELECT, INSERT ON execution_events TO orchestrator_app; "
            "ALTER TABLE workflow_executions DROP COLUMN recorded_from; "
            "DROP FUNCTION secure_event_table, event_partitions, attach_event_partition, prepare_event_partitions, "
            "begin_kept_events, keep_events, drop_event_partition, earlier_facts"
        )
        script = (Path(MIGRATIONS) / "sql" / "0014_event_partitions.sql").read_text(encoding="utf-8")
        async with owner.transaction():
            await owner.execute(script)
    finally:
        await owner.close()
    assert await log.where(run) == {"execution_events_before": 5}
    assert await log.events(run) == before
    secured = await log.superuser.fetchval(
        "SELECT bool_and(relrowsecurity AND relforcerowsecurity) FROM pg_class "
        "WHERE relname LIKE 'execution\\_events%' AND relkind IN ('r', 'p')"
    )
    assert secured
