import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from orchestration_agent.threads import Threads


@pytest.fixture
def threads() -> Iterator[Threads]:
    pool = Threads(4)
    yield pool
    pool.close()


async def test_results_and_exceptions_come_back(threads: Threads) -> None:
    assert await threads.run(lambda given: given + 1, 1) == 2
    with pytest.raises(ZeroDivisionError):
        await threads.run(lambda given: 1 / given, 0)
    with pytest.raises(SystemExit):
        await threads.run(lambda given: (_ for _ in ()).throw(SystemExit(given)), 3)


async def test_a_stop_of_iteration_is_an_error_like_others(threads: Threads) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(next, iter(()))


async def test_many_short_calls_all_end_and_none_is_made_in_the_event_loops_thread(threads: Threads) -> None:
    here = threading.get_ident()
    done = await asyncio.gather(*(threads.run(lambda n: (n, threading.get_ident()), n) for n in range(2_000)))
    assert [n for n, _ in done] == list(range(2_000))
    assert here not in {thread for _, thread in done}


async def test_calls_that_block_get_threads_of_their_own_up_to_the_limit(threads: Threads) -> None:
    together = threading.Barrier(4)
    await asyncio.wait_for(asyncio.gather(*(threads.run(together.wait, 5.0) for _ in range(4))), 5)
    gate = threading.Event()
    begun: list[int] = []

    def work(number: int) -> bool:
        begun.append(threading.get_ident())
        return gate.wait(5)

    calls = [threads.run(work, number) for number in range(6)]
    async with asyncio.timeout(5):
        while len(begun) < 4:  # noqa: ASYNC110 - threads have no event here
            await asyncio.sleep(0.001)
    gate.set()
    assert await asyncio.gather(*calls) == [True] * 6
    assert len(set(begun)) == 4


async def test_a_call_goes_on_when_nobody_waits_for_it_any_more(threads: Threads) -> None:
    gate, ended = threading.Event(), threading.Event()

    def work(_: None) -> None:
        gate.wait(5)
        ended.set()

    future = threads.run(work, None)
    future.cancel()
    gate.set()
    assert await threads.run(lambda _: "next", None) == "next"
    assert ended.wait(5)


async def test_closing_drops_what_has_not_begun_and_ends_the_threads() -> None:
    pool, gate = Threads(1), threading.Event()
    calls: list[int] = []
    others = set(threading.enumerate())
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def work(_: None) -> bool:
        loop.call_soon_threadsafe(begun.set)
        return gate.wait(5)

    first = pool.run(work, None)
    await begun.wait()
    pool.run(calls.append, 1)
    (thread,) = set(threading.enumerate()) - others
    pool.close()
    gate.set()
    assert await first is True
    thread.join(5)
    assert (calls, thread.is_alive()) == ([], False)


def test_a_call_that_outlives_the_event_loop_ends_quietly() -> None:
    pool, gate, ended = Threads(1), threading.Event(), threading.Event()

    def work(_: Any) -> None:
        gate.wait(5)
        ended.set()

    async def leave() -> None:
        pool.run(work, None)

    others = set(threading.enumerate())
    asyncio.run(leave())
    (thread,) = set(threading.enumerate()) - others
    gate.set()
    thread.join(5)
    assert ended.is_set()
    assert not thread.is_alive()
