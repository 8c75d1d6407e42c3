"""What a benchmark is given: the engine, the baseline, how often to measure, and where to tell how far it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Final

from benchmarks.baseline_client import Baseline, running_baseline
from benchmarks.engine import Api, RunningEngine, running_engine

ROUNDS_SECONDS_MAX: Final = 25.0
QUICK_SECONDS_MAX: Final = 6.0
"""For the rounds of one row; a round that has begun is finished."""
ROUNDS_MIN: Final = 2


class Session:
    """Starts what is asked for when it is asked for. `tell` takes a line about progress."""

    def __init__(self, stack: ExitStack, *, quick: bool, tell: Callable[[str], None]) -> None:
        self._stack = stack
        self._quick = quick
        self._tell = tell

    @cached_property
    def _engine(self) -> RunningEngine:
        self._tell("starting an engine")
        return self._stack.enter_context(running_engine())

    @property
    def api(self) -> Api:
        return self._engine.api

    @cached_property
    def baseline(self) -> Baseline:
        engine = self._engine
        self._tell("starting the baseline's worker")
        return self._stack.enter_context(running_baseline(engine))

    def rounds(self, what: str, usual: int, quick: int) -> Iterator[int]:
        """Numbers from 0; each is told. On a slow machine fewer of them, so that the whole ends in time."""
        total = quick if self._quick else usual
        ends_at = time.monotonic() + (QUICK_SECONDS_MAX if self._quick else ROUNDS_SECONDS_MAX)
        for number in range(total):
            if number >= ROUNDS_MIN and time.monotonic() > ends_at:
                return
            self._tell(f"{what}: {number + 1} of {total}")
            yield number
