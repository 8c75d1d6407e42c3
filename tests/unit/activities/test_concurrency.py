"""Jobs run as one, and end for certain; here because activities, bridge and worker all stand on it."""

import asyncio

import pytest

from engine import concurrency
from engine.concurrency import end_all, run_together


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency, "CANCEL_AGAIN_SECONDS", 0.01)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_a_task_that_swallows_cancellations_is_ended_all_the_same() -> None:
    swallowed = 0

    async def stubborn() -> str:
        nonlocal swallowed
        while swallowed < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()
        return "never"

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        [result] = await end_all([task])
    assert isinstance(result, asyncio.CancelledError)
    assert swallowed == 3


async def test_ending_a_job_that_ends_others_leaves_none_of_them_running() -> None:
    """The outer repetition cancels the inner ending too, while a task still swallows its cancellations."""
    swallowed = 0
    begun: list[asyncio.Task[object] | None] = []

    async def stubborn() -> None:
        nonlocal swallowed
        begun.append(asyncio.current_task())
        while swallowed < 6:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed += 1
        await asyncio.Event().wait()

    async def willing() -> None:
        begun.append(asyncio.current_task())
        await asyncio.Event().wait()

    job = asyncio.create_task(run_together([stubborn, willing]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert len(begun) == 2
    async with asyncio.timeout(5):
        [result] = await end_all([job])
    assert isinstance(result, asyncio.CancelledError)
    assert swallowed == 6
    assert all(task is not None and task.done() for task in (job, *begun))


async def test_what_had_ended_keeps_its_result_or_error() -> None:
    async def answer() -> int:
        return 7

    async def fail() -> None:
        raise ValueError("no")

    tasks: list[asyncio.Task[object]] = [asyncio.create_task(answer()), asyncio.create_task(fail())]
    await asyncio.wait(tasks)
    value, error = await end_all(tasks)
    assert value == 7
    assert isinstance(error, ValueError)
    assert await end_all([]) == []


async def test_the_first_to_fail_ends_all_and_is_what_is_raised() -> None:
    ended: list[str] = []

    async def patient() -> None:
        try:
            await forever()
        finally:
            ended.append("patient")

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ValueError("the reason")

    with pytest.raises(ValueError, match="the reason"):
        await run_together([patient, failing])
    assert ended == ["patient"]


async def test_the_first_to_return_ends_all() -> None:
    async def short() -> None:
        await asyncio.sleep(0)

    async with asyncio.timeout(5):
        await run_together([forever, short])


async def test_cancelled_it_ends_all_and_stays_cancelled() -> None:
    jobs: list[str] = []

    async def job() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            jobs.append("ended")
            raise

    running = asyncio.create_task(run_together([job, job]))
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert jobs == ["ended", "ended"]
