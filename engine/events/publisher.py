"""Publishes facts that no tick has published, and makes each workflow's own stream of what ticks have.

A tick appends its facts to a partition's stream in the same call that writes its assignments. What is committed
otherwise (planning, queueing, closing from outside), and what an outage kept from the streams, is found by comparing
PostgreSQL's last sequence of an execution with the one that its key in Redis says, and is read from the audit log. Both
go through the same server-side step, which appends only what comes next.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.contracts.pressure import Pressure
from engine.contracts.streams import partition_of
from engine.errors import EngineError, UnavailableError
from engine.events import keys
from engine.events.facts import PACK_FACTS_MAX, packs_of, stored_lines
from engine.events.functions import Functions
from engine.events.partitions import PartitionLeases
from engine.observability.log import get_logger
from engine.ports import PublicationStore, Published

log = get_logger(__name__)

STATE_SECONDS: Final = 32 * 24 * 3600
"""How long an execution's key is kept after its last tick: longer than any execution may wait for its next one."""

STATE_CLOSED_SECONDS: Final = 7 * 24 * 3600
CALL_TIMEOUT_SECONDS: Final = 5.0

EXPAND_SECONDS: Final = 0.1
EXPAND_FACTS: Final = 100
"""Of each partition in one step, a pack more or less."""
EXPAND_ROUNDS: Final = 5
"""Steps for one tenant in a turn: a burst of facts is to cost little while it lasts."""
HURRY_AFTER: Final = 20
EXPAND_ROUNDS_HURRY: Final = 100
"""When so many turns were not enough, it is no burst."""
TENANTS_AT_ONCE: Final = 100

QUIET_AFTER_SECONDS: Final = 5.0
LOOK_AT_QUIET_SECONDS: Final = 1.0
"""Tenants of which nothing was published lately are looked at less often."""

TRIM_SECONDS: Final = 5.0
KEPT_DIVISOR: Final = {Pressure.OK: 1, Pressure.SLOW: 10, Pressure.STOP: 60}
SCAN_COUNT: Final = 1_000
SCANS_MAX: Final = 1_000
SWEEP_SECONDS: Final = 1.0
SWEEP_BATCH: Final = 200
SWEEP_BATCHES: Final = 10
CONFIRM_AFTER_SECONDS: Final = 60.0
"""A Redis that lost its last second has lost nothing that is older than this."""
CLOSED_SINCE_SECONDS: Final = STATE_CLOSED_SECONDS - 3600.0
"""Executions that ended longer ago and were never confirmed are left alone: Redis does not know any more what of them
was published. An outage may last so long."""


class FactPublisher:
    """Appends an execution's facts to the streams, from the audit log."""

    def __init__(self, functions: Functions, store: PublicationStore, partitions: int) -> None:
        self._functions = functions
        self._store = store
        self._partitions = partitions

    async def catch_up(self, execution: Published, published: int) -> None:
        """Everything after that sequence. Raises UnavailableError."""
        tenant, execution_id = execution.tenant, str(execution.execution_id)
        names = [
            keys.tick_key(tenant, execution_id),
            keys.facts_stream(tenant, partition_of(execution_id, self._partitions)),
        ]
        who = [execution_id, str(execution.workflow_id), str(execution.trace_id)]
        keep = STATE_CLOSED_SECONDS if execution.completed_at is not None else STATE_SECONDS
        while True:
            events = await self._store.facts(tenant, execution.execution_id, published, PACK_FACTS_MAX)
            if not events:
                return
            first, last = events[0].sequence, events[-1].sequence
            packs = [part for pack in packs_of(first, stored_lines(events)) for part in pack]
            try:
                async with asyncio.timeout(CALL_TIMEOUT_SECONDS):
                    now = await self._functions.call("orc_publish_facts", names, [keep, first, last, *who, *packs])
            except (RedisError, OSError, TimeoutError) as error:
                raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
            if now <= published:
                # The streams went back meanwhile: the next look begins where they are.
                return
            published = now


class Publications:
    """Runs beside a bridge, for the partitions that this process holds."""

    def __init__(
        self,
        redis: Redis,
        functions: Functions,
        leases: PartitionLeases,
        store: PublicationStore,
        kept_seconds: float,
        pressure: Callable[[], Pressure] = lambda: Pressure.OK,
    ) -> None:
        self._redis = redis
        self._functions = functions
        self._leases = leases
        self._store = store
        self._pressure = pressure
        self._kept_seconds = kept_seconds
        self._publisher = FactPublisher(functions, store, leases.partitions)
        self._busy: dict[str, float] = {}
        """Tenant -> when something of it was last expanded."""
        self._late = 0
        """Turns in a row that left something."""
        self._tenants: Sequence[str] = ()
        self._looked_at = 0.0
        self._trimmed_at = 0.0
        self._open_after: UUID | None = None
        self._closed_after = _ago(CLOSED_SINCE_SECONDS)

    async def run_views(self) -> None:
        """Until cancelled."""
        await _forever(EXPAND_SECONDS, self._expand_and_trim)

    async def run_sweep(self) -> None:
        """Until cancelled."""
        await _forever(SWEEP_SECONDS, self.sweep)

    # Views -----------------------------------------------------------------------------------------------------

    @property
    def _kept_ms(self) -> int:
        """Less while memory is short: the log has it all."""
        return int(self._kept_seconds * 1000) // KEPT_DIVISOR[self._pressure()]

    async def _expand_and_trim(self) -> None:
        now = time.monotonic()
        everyone = now - self._looked_at > LOOK_AT_QUIET_SECONDS
        if everyone:
            members: Any = await self._redis.smembers(keys.TENANTS)
            self._tenants = sorted(member.decode() for member in members)
            self._looked_at = now
        await self.expand(self._tenants if everyone else list(self._busy))
        if now - self._trimmed_at > TRIM_SECONDS:
            self._trimmed_at = now
            await self.trim(self._tenants)
            if self._pressure() is not Pressure.OK:
                for tenant in self._tenants:
                    await self.relieve(tenant)
            self._busy = {tenant: at for tenant, at in self._busy.items() if now - at < QUIET_AFTER_SECONDS}

    async def expand(self, tenants: Sequence[str]) -> None:
        """Bring each workflow's own stream up to what has been published."""
        unfinished: list[str] = []
        for _ in range(EXPAND_ROUNDS if self._late < HURRY_AFTER else EXPAND_ROUNDS_HURRY):
            unfinished = []
            for first in range(0, len(tenants), TENANTS_AT_ONCE):
                part = tenants[first : first + TENANTS_AT_ONCE]
                calls = [(self._names(tenant), self._expansion(tenant)) for tenant in part]
                answers = await self._functions.ask_all("orc_expand_facts", calls)
                for tenant, (facts, more) in zip(part, answers, strict=True):
                    if facts:
                        self._busy[tenant] = time.monotonic()
                    if more:
                        unfinished.append(tenant)
            if not unfinished:
                break
            tenants = unfinished
        self._late = self._late + 1 if unfinished else 0

    async def trim(self, tenants: Sequence[str]) -> None:
        """Forget packs that everybody has, and those that are too old."""
        for first in range(0, len(tenants), TENANTS_AT_ONCE):
            part = tenants[first : first + TENANTS_AT_ONCE]
            calls = [(self._names(tenant), [self._kept_ms]) for tenant in part]
            answers = await self._functions.ask_all("orc_trim_facts", calls)
            for tenant, (_, lost) in zip(part, answers, strict=True):
                if lost:
                    log.warning("publications.group_behind", tenant=tenant, packs=lost)

    async def relieve(self, tenant: str) -> None:
        """Shorten workflows' streams that nobody has written lately, too."""
        oldest = f"{int(time.time() * 1000) - self._kept_ms}-0"
        cursor, rounds = 0, 0
        while rounds == 0 or (cursor and rounds < SCANS_MAX):
            cursor, names = await self._redis.scan(
                cursor, match=keys.workflow_events_prefix(tenant) + "*", count=SCAN_COUNT, _type="stream"
            )
            rounds += 1
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in names:
                    pipe.xtrim(name, minid=oldest, approximate=True)
                await pipe.execute()

    def _names(self, tenant: str) -> list[str]:
        names = []
        for partition in sorted(self._leases.fences):
            names += [keys.facts_stream(tenant, partition), keys.facts_expanded(tenant, partition)]
        return names

    def _expansion(self, tenant: str) -> list[Any]:
        return [
            keys.workflow_events_prefix(tenant), source_prefix(tenant), EXPAND_FACTS, self._kept_ms, *keys.FACT_GROUPS
        ]  # fmt: skip

    # What no tick has published --------------------------------------------------------------------------------

    async def sweep(self) -> None:
        """A part of all open executions, those closed since the last time, and those that can be confirmed."""
        rows = await self._store.open_executions(self._open_after, SWEEP_BATCH)
        self._open_after = rows[-1].execution_id if len(rows) == SWEEP_BATCH else None
        await self._repair(rows)
        for _ in range(SWEEP_BATCHES):
            rows = await self._store.closed_executions(self._closed_after, SWEEP_BATCH)
            await self._repair(rows)
            if rows and rows[-1].completed_at is not None:
                self._closed_after = rows[-1].completed_at
            if len(rows) < SWEEP_BATCH:
                break
        await self._confirm()

    async def _confirm(self) -> None:
        for _ in range(SWEEP_BATCHES):
            rows = await self._store.closed_executions(_ago(CLOSED_SINCE_SECONDS), SWEEP_BATCH)
            until = _ago(CONFIRM_AFTER_SECONDS)
            complete = await self._repair([row for row in rows if row.completed_at and row.completed_at < until])
            await self._store.confirm(complete)
            if not complete or len(rows) < SWEEP_BATCH:
                return

    async def _repair(self, rows: Sequence[Published]) -> list[Published]:
        """Publish what is missing of those in this process's partitions; answers those of which nothing was."""
        held = self._leases.fences
        mine = [row for row in rows if partition_of(str(row.execution_id), self._leases.partitions) in held]
        if not mine:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for row in mine:
                pipe.get(keys.tick_key(row.tenant, str(row.execution_id)))
            states = await pipe.execute()
        complete = []
        for row, state in zip(mine, states, strict=True):
            published = published_of(state)
            if published >= row.last_sequence:
                complete.append(row)
                continue
            await self._publisher.catch_up(row, published)
            self._busy[row.tenant] = time.monotonic()
        return complete


def source_prefix(tenant: str) -> str:
    """With a workflow's id behind it: the `source` of its events, as CloudEvents has it."""
    return f"/tenants/{tenant}/workflows/"


def published_of(state: bytes | None) -> int:
    """The sequence in an execution's key, "<tick> <sequence>"."""
    _, _, sequence = (state or b"").partition(b" ")
    return int(sequence or 0)


def _ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


async def _forever(period_seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await work()
        except (RedisError, OSError, EngineError) as error:
            log.warning("publications.interrupted", error=str(error))
        await asyncio.sleep(period_seconds)
