"""Threads for plain functions.

What `concurrent.futures` and `run_in_executor` do, for less: they wake the event loop once for each result, and start
a thread for each task that is given while the others have not come to run yet, most of which then fight for the
interpreter over functions that are long done.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any

GROW_SECONDS = 0.001
"""What waits longer than this for a thread gets a new one."""

Work = tuple["asyncio.Future[Any]", Callable[[Any], Any], Any]


class Threads:
    """Up to `threads_max` threads. They are daemons: a function that does not end keeps no process alive."""

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._threads = 0
        self._work: SimpleQueue[Work | None] = SimpleQueue()
        self._done: deque[tuple[asyncio.Future[Any], Any, BaseException | None]] = deque()
        self._delivering = False
        self._growing = False
        self._closed = False

    def run(self, function: Callable[[Any], Any], argument: Any) -> "asyncio.Future[Any]":
        """Call it in a thread; for the event loop's thread. The future may be cancelled, the call goes on then."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._work.put((future, function, argument))
        if self._threads == 0:
            self._start(loop, 1)
        elif not self._growing and self._threads < self._threads_max:
            self._growing = True
            loop.call_later(GROW_SECONDS, self._grow, loop)
        return future

    def close(self) -> None:
        """What has not begun does not begin; what runs is left to end."""
        self._closed = True
        while not self._work.empty():
            self._work.get()
        for _ in range(self._threads):
            self._work.put(None)

    def _grow(self, loop: asyncio.AbstractEventLoop) -> None:
        self._growing = False
        if not self._closed:
            self._start(loop, min(self._work.qsize(), self._threads_max - self._threads))

    def _start(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        for _ in range(count):
            self._threads += 1
            name = f"agent-{self._threads}"
            threading.Thread(target=self._serve, args=(loop,), name=name, daemon=True).start()

    def _serve(self, loop: asyncio.AbstractEventLoop) -> None:
        while (work := self._work.get()) is not None:
            future, function, argument = work
            value: Any = None
            error: BaseException | None = None
            try:
                value = function(argument)
            except StopIteration as stop:  # a future does not take it
                error = RuntimeError(f"the function raised {stop!r}")
            except BaseException as raised:  # the caller's, as from a call
                error = raised
            self._done.append((future, value, error))
            del work, future, function, argument, value, error
            if not self._delivering:
                self._delivering = True
                try:
                    loop.call_soon_threadsafe(self._deliver)
                except RuntimeError:
                    return  # the event loop is closed: nobody waits any more

    def _deliver(self) -> None:
        self._delivering = False  # before looking: what comes in between is either seen or wakes the loop again
        while self._done:
            future, value, error = self._done.popleft()
            if future.done():
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)
