"""Which asyncio task runs which attempt.

An asyncio task and a turn of the event loop for each attempt would cost more than a short attempt itself. So one
lane, which is one asyncio task, runs attempts one after the other for as long as they end without waiting for
anything. The first that waits keeps the lane for itself, and what is ready goes on in others: an attempt that waits
always has an asyncio task of its own, which is what a cancellation needs. Once attempts wait, each gets its own at
once, until one ends so soon that another try with one lane is worth it.
"""

import asyncio
import time
from collections.abc import Callable, Coroutine, Generator
from contextvars import copy_context
from typing import Any

from orchestration_agent.board import Attempt

TURN_SECONDS = 0.005
"""After so long with attempts that do not wait, the others on the event loop have their turn."""


QUICK_SECONDS = 0.0002
"""An attempt that took less hardly waited."""


class Watched:
    """Awaits a coroutine, in a context of its own as in an asyncio task of its own, and says when it first waits."""

    __slots__ = ("_coroutine", "_on_wait", "waited")

    def __init__(self, coroutine: Coroutine[Any, Any, None], on_wait: Callable[[], None]) -> None:
        self._coroutine = coroutine
        self._on_wait = on_wait
        self.waited = False

    def __await__(self) -> Generator[Any, Any, None]:
        run = copy_context().run
        resume: Callable[[Any], Any] = self._coroutine.send
        given: Any = None
        while True:
            try:
                waits_for = run(resume, given)
            except StopIteration:
                return
            if not self.waited:
                self.waited = True
                self._on_wait()
            try:
                given = yield waits_for
                resume = self._coroutine.send
            except BaseException as error:  # whatever was thrown in is the coroutine's, cancellation included
                given, resume = error, self._coroutine.throw


class Lane:
    __slots__ = ("attempt", "task")

    task: asyncio.Task[None]

    def __init__(self, attempt: Attempt) -> None:
        self.attempt: Attempt | None = attempt


class Lanes:
    """Runs what `following` gives, by `run`. `waits` is called when an attempt first waits, or may; `over` at its end,
    with what it raised, save cancellation."""

    def __init__(
        self,
        following: Callable[[], Attempt | None],
        run: Callable[[Attempt, Callable[[Attempt], None] | None], Coroutine[Any, Any, None]],
        waits: Callable[[Attempt], None],
        over: Callable[[Attempt, BaseException | None], None],
    ) -> None:
        self._following = following
        self._run = run
        self._waits = waits
        self._over = over
        self._quick = True
        """Attempts end without waiting, as far as is known: one lane is enough."""
        self._open: Lane | None = None
        """The lane that takes what becomes ready."""
        self.running: dict[Attempt, asyncio.Task[None]] = {}

    def fill(self) -> None:
        """Have everything started that may start."""
        if not self._quick:
            while (attempt := self._following()) is not None:
                self._begin(attempt, self._serve_one)
        elif self._open is None and (attempt := self._following()) is not None:
            self._open = self._begin(attempt, self._serve)

    def cancel(self, attempt: Attempt) -> None:
        running = self.running.get(attempt)
        if running is not None:
            running.cancel()

    def _begin(self, attempt: Attempt, serve: Callable[[Lane, Attempt], Coroutine[Any, Any, None]]) -> Lane:
        lane = Lane(attempt)
        lane.task = self.running[attempt] = asyncio.create_task(serve(lane, attempt))
        lane.task.add_done_callback(lambda task: self._ended(lane, task))
        return lane

    async def _serve_one(self, _: Lane, attempt: Attempt) -> None:
        began = time.monotonic()
        await self._run(attempt, self._waits)
        self._quick = time.monotonic() - began < QUICK_SECONDS

    async def _serve(self, lane: Lane, first: Attempt) -> None:
        attempt: Attempt | None = first
        ends = time.monotonic() + TURN_SECONDS  # the event loop's own clock may stand still within a turn
        while attempt is not None:
            watched = Watched(self._run(attempt, None), lambda: self._lane_waits(lane))
            await watched  # what it raises ends the lane, see `_ended`
            if watched.waited or lane.task.cancelling():
                return
            lane.attempt = None
            del self.running[attempt]
            self._over(attempt, None)
            if time.monotonic() > ends:
                await asyncio.sleep(0)
                ends = time.monotonic() + TURN_SECONDS
            attempt = lane.attempt = self._following()
            if attempt is not None:
                self.running[attempt] = lane.task
        self._open = None

    def _lane_waits(self, lane: Lane) -> None:
        self._quick = False
        if self._open is lane:
            self._open = None
        if lane.attempt is not None:
            self._waits(lane.attempt)
        self.fill()

    def _ended(self, lane: Lane, task: asyncio.Task[None]) -> None:
        if self._open is lane:
            self._open = None
        attempt, lane.attempt = lane.attempt, None
        if attempt is not None:
            del self.running[attempt]
            self._over(attempt, None if task.cancelled() else task.exception())
