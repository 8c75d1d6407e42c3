"""External events that come over a partition stream: each is a signal of its own, acknowledged once Temporal has it.

They wait for no tick: an event's id makes it count once, however often it is signalled. One execution's go one after
the other. What finds no room stays pending in Redis, and its partition is taken over again when there is some: reading
goes on meanwhile. An execution whose run has not begun takes no room, whatever came for it, however long it waits.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from redis.asyncio import Redis
from redis.exceptions import RedisError

from engine.concurrency import end_all
from engine.contracts.dynamic import ExternalEvent
from engine.errors import EngineError, NotFoundError
from engine.events import keys, wire
from engine.observability.log import get_logger
from engine.ports import Launcher, MaintenanceStore

log = get_logger(__name__)

UNDER_WAY_MAX: Final = 200
PER_EXECUTION_MAX: Final = 20
NOTED_MAX: Final = 100_000
"""Entries of which only the id is held, to be read again when their turn comes: so one takeover of a partition finds
all of an execution's events, however many they are."""

PROBES_MAX: Final = 20
"""So many runs that have not begun are asked for at once."""

TRIES_MAX: Final = 5
TRY_AGAIN_SECONDS: Final = 1.0
PROBE_DELAYS_MAX: Final = 5
"""What waits for its run is tried again after one, two, ... at most so many times the usual delay."""

SIGNAL_TIMEOUT_SECONDS: Final = 10.0

Acknowledge = Callable[[str, int, str], Awaitable[None]]
Bury = Callable[[str, int, str, str, int], Awaitable[None]]
Owned = Callable[[int], bool]
TakeOverAgain = Callable[[str, int], object]


@dataclass(slots=True)
class Lane:
    """One execution's events, in the order in which they came."""

    tenant: str
    execution_id: str
    partition: int
    entries: deque[tuple[str, ExternalEvent | None]] = field(default_factory=deque)
    """None: the entry is read again when its turn comes."""

    waiting: bool = False
    """For its run: then it is only the first entry's id."""

    behind: bool = False
    """Later entries were left in Redis: no newer ones may go before them."""

    unknown: int = 0
    slots: int = 0
    """How many of the entries take room: the first ones."""

    known: set[str] = field(default_factory=set)
    """Their ids."""

    @property
    def key(self) -> tuple[str, str]:
        return self.tenant, self.execution_id

    def has(self, entry_id: str) -> bool:
        return entry_id in self.known


class Forwarding:
    """What is under way in one bridge."""

    def __init__(
        self,
        redis: Redis,
        launcher: Launcher,
        maintenance: MaintenanceStore,
        acknowledge: Acknowledge,
        bury: Bury,
        owned: Owned,
        again: TakeOverAgain,
    ) -> None:
        """`again` asks for another takeover of a tenant's partition, which starts with `taken_over`."""
        self._redis = redis
        self._launcher = launcher
        self._maintenance = maintenance
        self._acknowledge = acknowledge
        self._bury = bury
        self._owned = owned
        self._again = again
        self._under_way = 0
        self._by_tenant: Counter[str] = Counter()
        """Of those under way."""
        self._noted = 0
        self._lanes: dict[tuple[str, str], Lane] = {}
        self._left: dict[tuple[str, str], int] = {}
        """(tenant, execution) -> partition, of those whose later entries wait for the next takeover."""
        self._short: set[tuple[str, int]] = set()
        """(tenant, partition) of which events were left in Redis because there was no room at all."""
        self._probes = asyncio.Semaphore(PROBES_MAX)
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, tenant: str, execution_id: str, partition: int, entry_id: str, event: ExternalEvent) -> None:
        """Without room the entry stays pending, and comes again with a takeover of its partition."""
        key = (tenant, execution_id)
        lane = self._lanes.get(key)
        if lane is not None:
            if lane.has(entry_id):
                return
            if lane.waiting or lane.behind:
                lane.behind = True
                return
            if lane.slots < len(lane.entries) or lane.slots >= PER_EXECUTION_MAX or not self._room(tenant):
                self._note(lane, entry_id)
                return
        elif key in self._left or (tenant, partition) in self._short:
            return
        elif not self._room(tenant):
            log.warning("forwarding.no_room", tenant=tenant, partition=partition)
            self._short.add((tenant, partition))
            return
        else:
            lane = self._lanes[key] = Lane(tenant, execution_id, partition)
            task = asyncio.create_task(self._run(lane), name=f"external-{execution_id}")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        lane.entries.append((entry_id, event))
        lane.known.add(entry_id)
        lane.slots += 1
        self._under_way += 1
        self._by_tenant[tenant] += 1

    def _room(self, tenant: str, share: int = 2) -> bool:
        """A tenant may have half of what the others leave, so that there is always some for those who come."""
        held = self._by_tenant[tenant]
        return held * share < UNDER_WAY_MAX - (self._under_way - held)

    def _note(self, lane: Lane, entry_id: str) -> None:
        """No room, but its place in the line."""
        if self._noted >= NOTED_MAX:
            lane.behind = True
            return
        lane.entries.append((entry_id, None))
        lane.known.add(entry_id)
        self._noted += 1

    def taken_over(self, tenant: str, partition: int) -> None:
        """Everything that is pending is about to come again, oldest first."""
        self._left = {key: home for key, home in self._left.items() if (key[0], home) != (tenant, partition)}
        self._short.discard((tenant, partition))

    async def stop(self) -> None:
        await end_all(list(self._tasks))

    async def _run(self, lane: Lane) -> None:
        try:
            await self._forward(lane)
        except Exception:
            # Nobody awaits this task. What it carried is pending in Redis until the partition is taken over again.
            log.exception("forwarding.broken", execution_id=lane.execution_id)
            lane.behind = False
            self._left[lane.key] = lane.partition
        finally:
            self._close(lane)

    def _close(self, lane: Lane) -> None:
        self._noted -= len(lane.entries) - lane.slots if not lane.waiting else 0
        self._give_back(lane, lane.slots)
        del self._lanes[lane.key]
        if lane.behind:
            self._left[lane.key] = lane.partition
            self._again(lane.tenant, lane.partition)

    def _give_back(self, lane: Lane, count: int) -> None:
        lane.slots -= count
        self._under_way -= count
        self._by_tenant[lane.tenant] -= count
        if not self._by_tenant[lane.tenant]:
            del self._by_tenant[lane.tenant]
        for tenant, partition in self._short:
            if self._room(tenant, 4):
                self._again(tenant, partition)

    async def _forward(self, lane: Lane) -> None:
        probes = 0
        while lane.entries and self._owned(lane.partition):
            try:
                if await self._first(lane):
                    probes = 0
                    self._done(lane)
                    continue
                probes = min(probes + 1, PROBE_DELAYS_MAX) if lane.waiting else 1
            except (EngineError, RedisError, OSError, TimeoutError) as error:
                log.warning("forwarding.interrupted", execution_id=lane.execution_id, error=repr(error))
            await asyncio.sleep(TRY_AGAIN_SECONDS * max(probes, 1))

    def _done(self, lane: Lane) -> None:
        entry_id, _ = lane.entries.popleft()
        lane.known.discard(entry_id)
        if lane.waiting:
            lane.waiting = False
        elif len(lane.entries) >= lane.slots:
            self._noted -= 1  # the next of which only the id is held has the place
        else:
            self._give_back(lane, 1)

    async def _first(self, lane: Lane) -> bool:
        """Whether the first entry is done with."""
        if lane.waiting:
            async with self._probes:
                return await self._try(lane)
        return await self._try(lane)

    async def _try(self, lane: Lane) -> bool:
        entry_id, event = lane.entries[0]
        where = (lane.tenant, lane.partition, entry_id)
        if event is None:
            event = await self._read_again(*where)
        if event is None:
            return True  # somebody else has acknowledged it
        named = event if event.event_id else event.model_copy(update={"event_id": f"{lane.partition}:{entry_id}"})
        try:
            async with asyncio.timeout(SIGNAL_TIMEOUT_SECONDS):
                await self._launcher.signal(lane.tenant, UUID(lane.execution_id), "external_event", named)
        except NotFoundError:
            return await self._not_found(lane, where)
        await self._acknowledge(*where)
        return True

    async def _not_found(self, lane: Lane, where: tuple[str, int, str]) -> bool:
        closed = await self._maintenance.is_closed(lane.tenant, UUID(lane.execution_id))
        if closed is False:
            self._wait(lane)
            return False
        # What has been found so for the first entry holds for those behind it.
        lane.unknown += 1
        if lane.unknown < TRIES_MAX:
            return False
        reason = "too late: the execution is closed" if closed else "no such execution"
        await self._bury(*where, reason, lane.unknown)
        return True

    def _wait(self, lane: Lane) -> None:
        """For its run, without room: the first entry is asked for again, the others stay in Redis."""
        if lane.waiting:
            return
        held = len(lane.entries)
        first, _ = lane.entries[0]
        self._noted -= held - lane.slots
        lane.entries, lane.known = deque([(first, None)]), {first}
        lane.waiting = True
        lane.behind = lane.behind or held > 1
        self._give_back(lane, lane.slots)

    async def _read_again(self, tenant: str, partition: int, entry_id: str) -> ExternalEvent | None:
        found: Any = await self._redis.xrange(keys.partition_stream(tenant, partition), entry_id, entry_id)
        if not found:
            return None
        fields = found[0][1]
        return wire.decode_report(wire.inflated(fields) if b"z" in fields else fields).external
