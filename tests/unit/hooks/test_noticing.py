"""The directory of hooks in memory, and what a tick's events ask of them."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.kernel import Delta, TickProposal
from engine.errors import UnavailableError
from hooks import directory as directory_module
from hooks.directory import HookDirectory
from hooks.noticing import HookNotice, band_of
from tests.fakes.hooks import FakeHookQueue, FakeHookStore, new_hook

TENANT = "acme"


def proposal(*audit: AuditEvent, tenant: str = TENANT) -> TickProposal:
    return TickProposal(
        tenant=tenant, execution_id=str(uuid4()), workflow_id=str(uuid4()), trace_id="t", tick=3, base_tick=2, epoch=1,
        partition=0, delta=Delta(tick=3, at_ms=1), audit=audit,
    )  # fmt: skip


def done(task_id: str = "a", **payload: Any) -> AuditEvent:
    payload = {"task_id": task_id, "agent_id": "worker-1", "attempt": 1, "status": "success", **payload}
    return AuditEvent(type=AuditEventType.TASK_COMPLETED, at_ms=5, payload=payload)


class Bench:
    def __init__(self) -> None:
        self.store = FakeHookStore()
        self.queue = FakeHookQueue()
        self.directory = HookDirectory(self.store, enabled=True)
        self.notice = HookNotice(self.directory, self.store, self.queue)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_what_a_tick_sets_off_is_in_its_entries_in_order_and_said_in_its_log(bench: Bench) -> None:
    late = bench.store.add(TENANT, new_hook("late", priority=200))
    soon = bench.store.add(TENANT, new_hook("soon", priority=10, event_pattern="task=a "))
    started = AuditEvent(type=AuditEventType.TASK_STARTED, at_ms=4, payload={"task_id": "a"})
    before = proposal(started, done("a"), done("b"))
    after = await bench.notice.notice(before)
    assert [entry.hooks for entry in after.hook_entries] == [(soon.hook_id, late.hook_id), (late.hook_id,)]
    assert [(entry.band, entry.position) for entry in after.hook_entries] == [(0, 0), (2, 1)]
    kinds = [fact.type.value for fact in after.audit]
    triggered = "hook.triggered"
    assert kinds == ["agent.task_started", "task.completed", triggered, triggered, "task.completed", triggered]
    assert after.audit[2].payload["hook_name"] == "soon"
    assert after.audit[2].payload["task_id"] == "a"
    assert after.hook_entries[0].subject.startswith("task.completed workflow=build task=a ")
    await bench.notice.queue(after)
    assert [entry for _, entry in bench.queue.entries] == list(after.hook_entries)


async def test_a_tick_that_sets_nothing_off_is_handed_on_as_it_is(bench: Bench) -> None:
    bench.store.add(TENANT, new_hook("no", event_pattern="task=z"))
    bench.store.add(TENANT, new_hook("other", trigger="agent_assigned"))
    for before in (proposal(done()), proposal(), proposal(done(), tenant="nobody")):
        assert await bench.notice.notice(before) is before
        await bench.notice.queue(before)
    assert bench.queue.entries == []


async def test_a_tenant_with_blocking_hooks_only_has_nothing_to_notice(bench: Bench) -> None:
    bench.store.add(TENANT, new_hook("guard", trigger="pre_task"))
    before = proposal(done())
    assert await bench.notice.notice(before) is before


async def test_where_there_are_no_hooks_the_store_is_asked_once_in_a_while(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(5):
        await bench.notice.notice(proposal(done()))
    assert bench.store.asked == 1
    assert bench.directory.has_none(TENANT)
    monkeypatch.setattr(directory_module, "FRESH_SECONDS", 0.0)
    bench.directory.forget()
    await bench.notice.notice(proposal(done()))
    await bench.notice.notice(proposal(done()))
    assert bench.store.asked == 3


async def test_a_nudge_makes_a_change_count_at_once_and_an_unchanged_revision_is_not_loaded_again(
    bench: Bench,
) -> None:
    assert await bench.notice.notice(before := proposal(done())) is before
    bench.store.add(TENANT, new_hook("new"))
    assert await bench.notice.notice(before) is before, "not yet heard of"
    bench.directory.forget(TENANT)
    assert (await bench.notice.notice(before)).hook_entries
    index = await bench.directory.index(TENANT)
    bench.directory.forget(TENANT)
    assert await bench.directory.index(TENANT) is index
    bench.directory.forget("unknown")


async def test_the_tenants_switch_and_the_operators_turn_hooks_off(bench: Bench) -> None:
    bench.store.add(TENANT, new_hook())
    await bench.store.set_switch(TENANT, enabled=False)
    assert not await bench.directory.index(TENANT)
    await bench.store.set_switch(TENANT, enabled=True)
    bench.directory.forget(TENANT)
    assert await bench.directory.index(TENANT)
    off = HookDirectory(bench.store, enabled=False)
    assert off.has_none(TENANT)
    assert not await off.index(TENANT)


async def test_while_the_store_is_away_what_is_known_holds_and_what_is_not_known_is_an_error(bench: Bench) -> None:
    bench.store.add(TENANT, new_hook())
    index = await bench.directory.index(TENANT)
    bench.store.available = False
    bench.directory.forget(TENANT)
    assert await bench.directory.index(TENANT) is index
    with pytest.raises(UnavailableError):
        await bench.directory.index("another")


async def test_a_change_that_is_heard_of_while_hooks_are_loaded_is_not_missed(bench: Bench) -> None:
    class Slow(FakeHookStore):
        async def rules(self, tenant: str) -> Any:
            found = await super().rules(tenant)
            self.add(tenant, new_hook("meanwhile"))
            directory.forget(tenant)
            return found

    directory = HookDirectory(Slow(), enabled=True)
    assert not await directory.index(TENANT)
    assert await directory.index(TENANT)


async def test_many_who_ask_at_once_load_once(bench: Bench) -> None:
    bench.store.add(TENANT, new_hook())
    found = await asyncio.gather(*(bench.directory.index(TENANT) for _ in range(20)))
    assert bench.store.asked == 1
    assert all(index is found[0] for index in found)


async def test_only_so_many_tenants_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "TENANTS_MAX", 2)
    for tenant in ("a", "b", "c"):
        await bench.directory.index(tenant)
    assert [bench.directory.has_none(tenant) for tenant in ("a", "b", "c")] == [False, True, True]


async def test_many_hooks_are_compiled_aside(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_module, "COMPILED_IN_PLACE_MAX", 1)
    for n in range(3):
        bench.store.add(TENANT, new_hook(f"h{n}"))
    assert await bench.directory.blocking(TENANT) is None
    assert await bench.directory.index(TENANT)


@pytest.mark.parametrize(("priority", "band"), [(-5, 0), (49, 0), (50, 1), (100, 1), (149, 1), (150, 2), (900, 2)])
def test_priorities_fall_into_three_bands(priority: int, band: int) -> None:
    assert band_of(priority) == band
