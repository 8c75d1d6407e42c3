import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import pytest

from orchestration_agent import lanes
from orchestration_agent.board import Agent, Attempt, Execution
from orchestration_agent.lanes import Lanes, Watched
from orchestration_agent.wire import Entry, Key

NAME: ContextVar[str] = ContextVar("NAME", default="")


class Host:
    """Runs `work` for every attempt that was put, `room` of them at once."""

    def __init__(self, work: Callable[[str], Awaitable[None]], room: int = 1_000) -> None:
        self.work, self.room = work, room
        self.ready: deque[Attempt] = deque()
        self.waited: list[str] = []
        self.over: list[tuple[str, BaseException | None]] = []
        self.tasks: dict[str, asyncio.Task[Any] | None] = {}
        self.lanes = Lanes(self._following, self._run, self._waits, self._over)

    def put(self, *names: str) -> dict[str, Attempt]:
        entry = Entry("x", "", "", "in", {}, [], [], [], None)
        attempts = {name: Attempt(Key("x", name, 1, 1), Execution(), Agent(), entry, {}) for name in names}
        self.ready.extend(attempts.values())
        self.lanes.fill()
        return attempts

    async def until_over(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.over) < count:  # noqa: ASYNC110 - what is recorded has no event
                await asyncio.sleep(0.001)

    def _following(self) -> Attempt | None:
        if not self.ready or self.room == 0:
            return None
        self.room -= 1
        return self.ready.popleft()

    async def _run(self, attempt: Attempt, waits: Callable[[Attempt], None] | None) -> None:
        if waits is not None:
            waits(attempt)
        name = attempt.key.task_id
        self.tasks[name] = asyncio.current_task()
        await self.work(name)

    def _waits(self, attempt: Attempt) -> None:
        self.waited.append(attempt.key.task_id)

    def _over(self, attempt: Attempt, error: BaseException | None) -> None:
        self.over.append((attempt.key.task_id, error))
        self.room += 1
        self.lanes.fill()


async def test_what_does_not_wait_runs_in_one_asyncio_task_in_order_and_in_one_turn() -> None:
    async def work(name: str) -> None:
        pass

    host = Host(work, room=2)
    names = [f"t{n}" for n in range(100)]
    host.put(*names)
    await asyncio.sleep(0)
    assert [name for name, _ in host.over] == names
    assert len(set(host.tasks.values())) == 1
    assert (host.waited, host.lanes.running) == ([], {})


async def test_the_event_loop_has_its_turn_between_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "TURN_SECONDS", 0.0)
    seen: list[int] = []

    async def work(name: str) -> None:
        pass

    host = Host(work)
    host.put("a", "b", "c")
    for _ in range(4):
        await asyncio.sleep(0)
        seen.append(len(host.over))
    assert seen == [1, 2, 3, 3]


async def test_what_waits_gets_an_asyncio_task_of_its_own_and_holds_nobody_up() -> None:
    gate = asyncio.Event()

    async def work(name: str) -> None:
        if name.startswith("slow"):
            await gate.wait()

    host = Host(work)
    host.put("slow1", "quick1", "slow2", "quick2")
    await host.until_over(2)
    assert {name for name, _ in host.over} == {"quick1", "quick2"}
    assert {"slow1", "slow2"} <= set(host.waited)
    assert host.tasks["slow1"] is not host.tasks["slow2"]
    gate.set()
    await host.until_over(4)
    assert host.lanes.running == {}


async def test_short_attempts_share_a_task_again_after_long_ones() -> None:
    async def work(name: str) -> None:
        if name == "slow":
            await asyncio.sleep(0.01)

    host = Host(work)
    host.put("slow", "a", "b")
    await host.until_over(3)
    host.put("c")
    await host.until_over(4)
    host.put("d", "e", "f")
    await host.until_over(7)
    assert host.tasks["d"] is host.tasks["e"] is host.tasks["f"]


@pytest.mark.parametrize("quick", [True, False])
async def test_a_cancellation_reaches_only_the_attempt_that_it_is_meant_for(quick: bool) -> None:
    gate, cancelled = asyncio.Event(), []

    async def work(name: str) -> None:
        try:
            await gate.wait()
        except asyncio.CancelledError:
            cancelled.append(name)
            raise

    host = Host(work)
    if not quick:
        host.put("first")
        await asyncio.sleep(0.01)
    attempts = host.put("a", "b", "c")
    await asyncio.sleep(0.01)
    host.lanes.cancel(attempts["b"])
    await host.until_over(1)
    assert (cancelled, host.over) == (["b"], [("b", None)])
    host.lanes.cancel(attempts["b"])  # it is over: nothing to cancel
    gate.set()
    await host.until_over(3 + (not quick))
    assert cancelled == ["b"]


async def test_an_attempt_that_is_cancelled_before_it_came_to_run_does_not_run() -> None:
    async def work(name: str) -> None:
        pass

    host = Host(work)
    attempts = host.put("a", "b")
    host.lanes.cancel(attempts["a"])
    await host.until_over(2)
    assert "a" not in host.tasks
    assert "b" in host.tasks


async def test_an_attempt_that_cancels_its_own_asyncio_task_does_not_cancel_the_next() -> None:
    async def work(name: str) -> None:
        task = asyncio.current_task()
        if name == "a" and task is not None:
            task.cancel()

    host = Host(work)
    host.put("a", "b")
    await host.until_over(2)
    assert host.over == [("a", None), ("b", None)]


async def test_what_an_attempt_raises_is_passed_on_and_the_others_go_on() -> None:
    async def work(name: str) -> None:
        if name.startswith("bad"):
            await asyncio.sleep(0 if name == "bad" else 0.005)
            raise ValueError(name)

    host = Host(work)
    host.put("bad", "a", "bad later", "b")
    await host.until_over(4)
    assert {name: str(error) for name, error in host.over if error} == {"bad": "bad", "bad later": "bad later"}


async def test_timeouts_of_a_function_work_whether_it_waits_at_first_or_not() -> None:
    ended = []

    async def work(name: str) -> None:
        try:
            async with asyncio.timeout(0.005):
                await asyncio.sleep(5)
        except TimeoutError:
            ended.append(name)

    host = Host(work)
    host.put("a", "b", "c")
    await host.until_over(3)
    assert sorted(ended) == ["a", "b", "c"]
    assert all(error is None for _, error in host.over)


async def test_context_variables_of_one_attempt_are_not_seen_by_the_next() -> None:
    seen = []

    async def work(name: str) -> None:
        seen.append(NAME.get())
        NAME.set(name)
        if name == "b":
            await asyncio.sleep(0)
            seen.append(NAME.get())

    host = Host(work)
    host.put("a", "b", "c")
    await host.until_over(3)
    assert sorted(seen) == ["", "", "", "b"]
    assert NAME.get() == ""


async def test_a_watched_coroutine_gets_what_is_thrown_in_and_gives_what_it_awaits() -> None:
    waits: list[int] = []
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    second: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    got = []

    async def work() -> None:
        try:
            await first
        except ValueError as error:
            got.append(str(error))
        got.append(await second)

    async def outer() -> None:
        await Watched(work(), lambda: waits.append(1))

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    first.set_exception(ValueError("thrown"))
    await asyncio.sleep(0)
    second.set_result("given")
    await task
    assert (got, waits) == (["thrown", "given"], [1])
