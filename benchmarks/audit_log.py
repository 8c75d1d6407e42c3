"""What partitions of the audit log cost: `python -m benchmarks.audit_log`.

Ticks are committed, and pages of one execution's events read, against one table and against partitions of it, in turns
on one server, so that both see the same machine; of all times the tenth percentile counts, since whatever else runs
only adds. The server does not wait for its disk: that would hide the difference.
"""

import argparse
import asyncio
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import quantiles
from typing import Any, Final

import asyncpg

from engine.contracts.events import AuditEventType
from engine.embedded.postgres import PostgresServer
from engine.postgres.cluster import prepare_cluster
from engine.postgres.definitions import PostgresDefinitionStore
from engine.postgres.executions import PostgresExecutionStore
from engine.postgres.journal import PostgresJournal
from engine.postgres.migrate import migrate
from engine.postgres.pool import Database
from engine.settings import Settings
from tests.integration.postgres.builders import Run, event, plan_execution
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD

PARTITIONS: Final = (2, 6, 60)
TICKS: Final = 60
EVENTS: Final = (1, 10, 500)
ROUNDS: Final = 20
PAGE: Final = 100
READS: Final = 40
WIDTH_DAYS: Final = 7
TENANT: Final = "acme"
ONE_TABLE: Final = """
CREATE TABLE plain (LIKE execution_events, PRIMARY KEY (tenant, execution_id, sequence));
DROP TABLE execution_events CASCADE;
ALTER TABLE plain RENAME TO execution_events;
ALTER TABLE execution_events ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenant_isolation ON execution_events FOR ALL TO orchestrator_app
    USING (tenant = current_setting('app.tenant', true)) WITH CHECK (tenant = current_setting('app.tenant', true));
GRANT SELECT, INSERT ON execution_events TO orchestrator_app;
CREATE FUNCTION execution_facts(p_tenant text, p_execution_id uuid, p_after bigint, p_limit bigint)
RETURNS SETOF execution_events LANGUAGE sql STABLE AS $$
    SELECT * FROM execution_events AS v
     WHERE v.tenant = p_tenant AND v.execution_id = p_execution_id AND v.sequence > p_after
     ORDER BY v.sequence LIMIT p_limit $$;
"""
"""As it was before there were partitions."""


class Side:
    def __init__(self, name: str, database: Database) -> None:
        self.name, self.database = name, database
        self.seconds: dict[str, list[float]] = {}

    async def round(self) -> None:
        executions, journal = PostgresExecutionStore(self.database), PostgresJournal(self.database)
        for events in EVENTS:
            run = await plan_execution(PostgresDefinitionStore(self.database), executions, journal, TENANT)
            await run.start()
            ticks = max(20, TICKS // events)
            self._note(f"tick with {events} events", await _ticks(run, ticks, events))
        times = []
        for n in range(READS):
            began = time.perf_counter()
            await executions.events(TENANT, run.execution_id, after_sequence=n * 10, limit=PAGE)
            times.append(time.perf_counter() - began)
        self._note(f"page of {PAGE} events", times)

    def _note(self, what: str, seconds: list[float]) -> None:
        self.seconds.setdefault(what, []).extend(seconds)

    def undisturbed(self, what: str) -> float:
        return quantiles(self.seconds[what], n=10)[0]


async def _ticks(run: Run, ticks: int, events: int) -> list[float]:
    facts = tuple(event(AuditEventType.TASK_ASSIGNED, task_id="a", n=n) for n in range(events))
    times = []
    for _ in range(ticks):
        began = time.perf_counter()
        await run.commit(audit=facts)
        times.append(time.perf_counter() - began)
    return times


async def _side(server: PostgresServer, partitions: int) -> Side:
    name = f"log_{partitions}"
    urls = await prepare_cluster(server.url, owner_password=OWNER_PASSWORD, app_password=APP_PASSWORD, database=name)
    await migrate(urls.owner)
    superuser = await asyncpg.connect(server.url.rsplit("/", 1)[0] + f"/{name}")
    try:
        if partitions == 0:
            await superuser.execute(ONE_TABLE)
        else:
            there = await superuser.fetchval("SELECT count(*) FROM event_partitions()")
            for n in range(partitions - there):
                await superuser.execute(
                    "SELECT attach_event_partition(f, f + $2 * interval '24 hours') "
                    "FROM (SELECT min(from_at) - ($1 + 1) * $2 * interval '24 hours' AS f FROM event_partitions() "
                    "WHERE until_at > now()) AS x",
                    n, WIDTH_DAYS,
                )  # fmt: skip
    finally:
        await superuser.close()
    title = "one table" if partitions == 0 else f"{partitions} partitions"
    return Side(title, await Database.connect(Settings(database_url=urls.app, database_pool_max=2)))


async def measure(directory: Path, rounds: int, partitions: Sequence[int]) -> list[dict[str, Any]]:
    server = PostgresServer(directory / "postgres", durable=False)
    await server.start()
    try:
        sides = [await _side(server, count) for count in (0, *partitions)]
        for _ in range(rounds):
            for side in sides:
                await side.round()
        for side in sides:
            await side.database.close()
    finally:
        await server.stop()
    plain = sides[0]
    return [
        {
            "what": what,
            "layout": side.name,
            "ms": round(side.undisturbed(what) * 1000, 3),
            "ratio": round(side.undisturbed(what) / plain.undisturbed(what), 3),
        }
        for what in plain.seconds
        for side in sides
    ]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit_log", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestrator-log-") as directory:
        Path(directory).chmod(0o711)
        rows = asyncio.run(measure(Path(directory), options.rounds, PARTITIONS))
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['what']:<24} {row['layout']:<16} {row['ms']:>9.3f} ms   x {row['ratio']:.2f}")


if __name__ == "__main__":
    main()
