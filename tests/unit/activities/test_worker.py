"""The worker's composition root: roles, and a stop that finishes what is under way."""

import asyncio
from datetime import timedelta
from typing import cast

import pytest
from temporalio.worker import Worker

import worker
from engine.concurrency import end_all
from engine.errors import ConfigurationError
from engine.settings import Settings


@pytest.mark.parametrize("roles", [{"bridges"}, {"bridge", "hook"}, set()])
async def test_roles_that_do_not_exist_are_refused_by_name(roles: set[str]) -> None:
    with pytest.raises(ConfigurationError, match="unknown worker roles") as caught:
        await worker.serve(Settings(), frozenset(roles))
    assert all(role in caught.value.message for role in roles - worker.ROLES)


class FakeWorker:
    """Ends a while after it was asked to; a cancellation of `run` breaks that off."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.may_end = asyncio.Event()
        self.ended: list[str] = []
        self.failure: Exception | None = None

    async def run(self) -> None:
        if self.failure is not None:
            raise self.failure
        try:
            await self.asked.wait()
            await self.may_end.wait()
            self.ended.append("orderly")
        except asyncio.CancelledError:
            self.ended.append("broken off")
            raise

    async def shutdown(self) -> None:
        self.asked.set()
        await self.may_end.wait()


def start(fake: FakeWorker) -> asyncio.Task[None]:
    return asyncio.create_task(worker.run_until_cancelled(cast(Worker, fake)))


async def test_repeated_cancellation_does_not_break_off_an_orderly_stop() -> None:
    fake = FakeWorker()
    running = start(fake)
    await asyncio.sleep(0)
    for _ in range(4):
        running.cancel()
        await asyncio.sleep(0.01)
    assert not running.done()
    fake.may_end.set()
    [result] = await end_all([running])
    assert isinstance(result, asyncio.CancelledError)
    assert fake.ended == ["orderly"]


async def test_a_stop_that_takes_too_long_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "STOP_MAX", timedelta(milliseconds=20))
    fake = FakeWorker()
    running = start(fake)
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await end_all([running])
    assert fake.ended == ["broken off"]


async def test_a_worker_that_fails_says_why() -> None:
    fake = FakeWorker()
    fake.failure = RuntimeError("no such namespace")
    with pytest.raises(RuntimeError, match="no such namespace"):
        await start(fake)


def test_ticks_of_a_process_without_bridge_are_noticed_by_looking() -> None:
    worker._nobody_here("t", "x", ["1-0"])
