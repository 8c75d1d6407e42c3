"""Room for external events: shared by tenants, and a long line costs its partition one takeover."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast
from uuid import UUID, uuid4

import orjson
import pytest
from redis.asyncio import Redis

from engine.contracts.dynamic import ExternalEvent
from engine.errors import UnavailableError
from engine.events import forwarding as module
from engine.events.forwarding import Forwarding
from engine.ports import Launcher, MaintenanceStore


class FakeStream:
    """The part of Redis that reads an entry again."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[bytes, bytes]] = {}
        self.reads = 0

    async def xrange(self, name: str, first: str, last: str) -> list[tuple[bytes, dict[bytes, bytes]]]:
        self.reads += 1
        return [(first.encode(), self.entries[first])] if first in self.entries else []


class Desk:
    def __init__(self) -> None:
        self.stream = FakeStream()
        self.signalled: list[tuple[str, str, str | None]] = []
        self.gate = asyncio.Event()
        self.takeovers: list[tuple[str, int]] = []
        self.failures = 0
        self.most = 0
        self.forwarding = Forwarding(
            cast(Redis, self.stream),
            cast(Launcher, self),
            cast(MaintenanceStore, None),
            self._acknowledge,
            self._bury,
            lambda partition: True,
            lambda tenant, partition: self.takeovers.append((tenant, partition)),
        )

    async def signal(self, tenant: str, execution_id: UUID, name: str, event: ExternalEvent) -> None:
        assert name == "external_event"
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise UnavailableError("away")
        self.signalled.append((tenant, str(execution_id), event.event_id))

    async def _acknowledge(self, tenant: str, partition: int, entry_id: str) -> None:
        self.stream.entries.pop(entry_id)

    async def _bury(self, tenant: str, partition: int, entry_id: str, reason: str, tries: int) -> None:
        raise AssertionError(reason)

    def add(self, tenant: str, execution_id: str, number: int) -> str:
        entry_id = f"{number}-0"
        self.stream.entries[entry_id] = {
            b"event_type": b"session.saved", b"execution_id": execution_id.encode(), b"timestamp": b"1",
            b"payload": orjson.dumps({"n": number}), b"event_id": str(number).encode(),
        }  # fmt: skip
        event = ExternalEvent(event_id=str(number), type="session.saved", payload={"n": number}, at_ms=1)
        self.forwarding.begin(tenant, execution_id, 0, entry_id, event)
        return entry_id

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not reached():
                self.most = max(self.most, self.forwarding._under_way)
                await asyncio.sleep(0)

    def empty(self) -> bool:
        forwarding = self.forwarding
        return not (forwarding._lanes or forwarding._under_way or forwarding._noted or forwarding._by_tenant)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Desk]:
    monkeypatch.setattr(module, "TRY_AGAIN_SECONDS", 0.0)
    desk = Desk()
    yield desk
    await desk.forwarding.stop()


async def test_a_long_line_is_served_in_order_without_another_takeover(desk: Desk) -> None:
    execution_id, count = str(uuid4()), 3_000
    for number in range(1, count + 1):
        desk.add("t", execution_id, number)
        desk.add("t", execution_id, number)  # a takeover brings again what is known
    assert desk.forwarding._under_way == module.PER_EXECUTION_MAX
    assert desk.forwarding._noted == count - module.PER_EXECUTION_MAX
    desk.failures = 5
    desk.gate.set()
    await desk.until(desk.empty)
    assert [int(event_id or 0) for _, _, event_id in desk.signalled] == list(range(1, count + 1))
    assert desk.takeovers == []
    assert desk.stream.reads <= count + 5
    assert desk.most <= module.PER_EXECUTION_MAX
    assert desk.stream.entries == {}


async def test_beyond_what_can_be_noted_the_rest_waits_for_a_takeover(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NOTED_MAX", 5)
    execution_id = str(uuid4())
    for number in range(1, 41):
        desk.add("t", execution_id, number)
    desk.gate.set()
    await desk.until(desk.empty)
    assert len(desk.signalled) == module.PER_EXECUTION_MAX + 5
    assert desk.takeovers == [("t", 0)]


async def test_what_somebody_else_has_acknowledged_meanwhile_is_passed_over(desk: Desk) -> None:
    execution_id = str(uuid4())
    ids = [desk.add("t", execution_id, number) for number in range(1, 31)]
    del desk.stream.entries[ids[-1]]
    desk.gate.set()
    await desk.until(desk.empty)
    assert len(desk.signalled) == 29


async def test_one_tenants_flood_leaves_room_for_others(desk: Desk) -> None:
    number = 0
    for tenant, executions in (("greedy", 300), ("second", 300), ("third", 1)):
        for _ in range(executions):
            number += 1
            desk.add(tenant, str(uuid4()), number)
    held: dict[str, Any] = dict(desk.forwarding._by_tenant)
    assert held == {"greedy": module.UNDER_WAY_MAX // 2, "second": module.UNDER_WAY_MAX // 4, "third": 1}
    desk.gate.set()
    await desk.until(desk.empty)
    # Those that had no room are told of when half of theirs is free.
    assert set(desk.takeovers) == {("greedy", 0), ("second", 0)}
