"""Bridges that come, go, crash, stall and wake late, in any order: who owns which partition.

The server is real. Time passes by changing what it has stored: leases and signs of life grow older, and the bridges'
own clocks go on with them.
"""

import asyncio
import math
import time
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from redis import Redis

from engine.embedded.valkey import ValkeyServer
from engine.events import keys, partitions
from engine.events.functions import Functions
from engine.events.partitions import LEASE_MS, PartitionLeases

DATABASE = 6
PARTITIONS = 5
BRIDGES_MAX = 6
STEP_MS = 1_000
RENEWALS_IN_A_LEASE = 4


class Clock:
    """The bridges' clock: it goes on by itself, and by leaps."""

    def __init__(self) -> None:
        self.ahead_seconds = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead_seconds


class DirectFunctions(Functions):
    """Without an event loop's client: each call has its answer before anything else happens."""

    def __init__(self, redis: Redis) -> None:
        self._direct = redis

    async def ask(self, name: str, keys: list[str], args: list[Any]) -> Any:
        return self._direct.fcall(name, len(keys), *keys, *args)


class Reader:
    """A bridge as far as partitions go: leases, and the read that is under way."""

    def __init__(self, functions: Functions) -> None:
        self.leases = PartitionLeases(functions, PARTITIONS)
        self.read: set[int] = set()
        self.stalled = False

    def next_round(self) -> None:
        self.leases.reading()
        self.read = set(self.leases.fences)


class Bridges(RuleBasedStateMachine):
    redis: Redis
    clock: Clock

    def __init__(self) -> None:
        super().__init__()
        self.redis.flushdb()
        self.functions = DirectFunctions(self.redis)
        self.runner = asyncio.Runner()
        self.bridges: list[Reader] = []
        self.granted: dict[tuple[int, int], Reader] = {}
        self.highest: Counter[int] = Counter()

    def teardown(self) -> None:
        self.settle()
        self.runner.close()

    @property
    def awake(self) -> list[Reader]:
        return [bridge for bridge in self.bridges if not bridge.stalled]

    def owners(self) -> list[str | None]:
        found: Any = self.redis.mget([keys.partition_owner(partition) for partition in range(PARTITIONS)])
        return [None if owner is None else owner.decode() for owner in found]

    def renew(self, bridge: Reader) -> None:
        before, read = self.owners(), set(bridge.leases.fences)
        self.runner.run(bridge.leases.renew())
        for partition, (old, new) in enumerate(zip(before, self.owners(), strict=True)):
            if old == bridge.leases.owner_id and new != old:
                assert partition not in bridge.read, "released while it was being read"
        for partition, fence in bridge.leases.fences.items():
            owner = self.granted.setdefault((partition, fence), bridge)
            assert owner is bridge, "two bridges had the same fence"
            assert fence >= self.highest[partition], "a fence below an earlier one"
            assert partition in read or fence > self.highest[partition], "begun again under the fence of before"
            self.highest[partition] = fence

    def pass_time(self, milliseconds: int) -> None:
        members: Any = self.redis.zrange(keys.BRIDGES, 0, -1, withscores=True)
        for member, score in members:
            self.redis.zadd(keys.BRIDGES, {member: score - milliseconds})
        for name in [keys.partition_owner(partition) for partition in range(PARTITIONS)]:
            left: Any = self.redis.pttl(name)
            if left > milliseconds:
                self.redis.pexpire(name, left - milliseconds)
            elif left >= 0:
                self.redis.delete(name)
        self.clock.ahead_seconds += milliseconds / 1000

    # What happens ----------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.bridges) < BRIDGES_MAX)
    @rule()
    def one_joins(self) -> None:
        self.bridges.append(Reader(self.functions))
        self.renew(self.bridges[-1])

    @precondition(lambda self: self.awake)
    @rule(data=st.data())
    def one_renews(self, data: st.DataObject) -> None:
        self.renew(data.draw(st.sampled_from(self.awake)))

    @precondition(lambda self: self.awake)
    @rule(data=st.data())
    def one_reads(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.awake)).next_round()

    @precondition(lambda self: self.awake)
    @rule(data=st.data())
    def one_stalls(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.awake)).stalled = True

    @precondition(lambda self: len(self.awake) < len(self.bridges))
    @rule(data=st.data())
    def one_wakes(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from([b for b in self.bridges if b.stalled])).stalled = False

    @precondition(lambda self: self.bridges)
    @rule(data=st.data())
    def one_crashes(self, data: st.DataObject) -> None:
        self.bridges.remove(data.draw(st.sampled_from(self.bridges)))

    @precondition(lambda self: self.awake)
    @rule(data=st.data())
    def one_leaves(self, data: st.DataObject) -> None:
        bridge = data.draw(st.sampled_from(self.awake))
        bridge.read = set()
        self.runner.run(bridge.leases.release())
        assert bridge.leases.fences == {}
        assert bridge.leases.owner_id not in self.owners()
        self.bridges.remove(bridge)

    @rule(milliseconds=st.sampled_from([200, STEP_MS, 3 * STEP_MS, LEASE_MS + STEP_MS]))
    def time_passes(self, milliseconds: int) -> None:
        self.pass_time(milliseconds)

    @rule()
    def everybody_goes_on_for_a_while(self) -> None:
        self.round_of_all()

    # What must hold --------------------------------------------------------------------------------------------

    @invariant()
    def nobody_reads_what_is_not_his_under_the_newest_fence(self) -> None:
        owners = self.owners()
        for bridge in self.bridges:
            for partition, fence in bridge.leases.fences.items():
                if bridge.leases.fences:  # by its own clock they may run out while this is looked at
                    assert owners[partition] == bridge.leases.owner_id
                    stored: Any = self.redis.get(keys.partition_fence(partition))
                    assert int(stored) == fence

    def round_of_all(self) -> None:
        for bridge in self.awake:
            self.renew(bridge)
            bridge.next_round()

    def settle(self) -> None:
        """The dead are forgotten; then all is owned evenly, with no move more than needed, and stays so."""
        for _ in range(math.ceil(LEASE_MS / STEP_MS) + 1):
            self.pass_time(STEP_MS)
            self.round_of_all()
        if not self.awake:
            assert self.owners() == [None] * PARTITIONS
            return
        for _ in range(3):
            self.round_of_all()
        owners = self.owners()
        shares = Counter(owners)
        assert shares.keys() <= {bridge.leases.owner_id for bridge in self.awake}
        sizes = [shares[bridge.leases.owner_id] for bridge in self.awake]
        assert max(sizes) - min(sizes) <= 1
        fences = [dict(bridge.leases.fences) for bridge in self.awake]
        assert [len(held) for held in fences] == sizes
        for _ in range(3):
            self.pass_time(STEP_MS)
            self.round_of_all()
        assert self.owners() == owners
        assert [dict(bridge.leases.fences) for bridge in self.awake] == fences

        before = set(enumerate(owners))
        self.bridges.append(Reader(self.functions))
        for _ in range(4):
            self.round_of_all()
        moved = len(before - set(enumerate(self.owners())))
        assert moved == PARTITIONS // len(self.awake)


async def test_each_partition_has_one_owner_and_all_have_fair_shares_whatever_happens(
    valkey_server: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = valkey_server.url.removesuffix("/0") + f"/{DATABASE}"
    clock = Clock()
    monkeypatch.setattr(partitions, "time", clock)

    def explore() -> None:
        with Redis.from_url(url, protocol=2) as redis:
            redis.function_load(Functions(redis)._code, replace=True)
            machine = type("BridgesHere", (Bridges,), {"redis": redis, "clock": clock})
            run_state_machine_as_test(
                machine, settings=settings(max_examples=60, stateful_step_count=40, deadline=None)
            )

    await asyncio.to_thread(explore)
