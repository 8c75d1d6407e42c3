"""What a benchmark is given: the engine, the baseline, how often to measure, and where to tell how far it is."""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property
from typing import Final, TypeVar

from benchmarks.baseline_client import Baseline, running_baseline
from benchmarks.engine import Api, RunningEngine, running_engine
from benchmarks.results import Target

ROUNDS_SECONDS_MAX: Final = 25.0
QUICK_SECONDS_MAX: Final = 6.0
"""For the rounds of one row; a round that has begun is finished."""
ROUNDS_MIN: Final = 2

Size = TypeVar("Size")


class Session:
    """Starts what is asked for when it is asked for. `tell` takes a line about progress."""

    def __init__(
        self, stack: ExitStack, *, quick: bool, tell: Callable[[str], None], repetitions: int | None = None
    ) -> None:
        self._stack = stack
        self._quick = quick
        self._tell = tell
        self._repetitions = repetitions

    @cached_property
    def engine(self) -> RunningEngine:
        self._tell("starting an engine")
        return self._stack.enter_context(running_engine())

    @property
    def api(self) -> Api:
        return self.engine.api

    @cached_property
    def baseline(self) -> Baseline:
        engine = self.engine
        self._tell("starting the baseline's worker")
        return self._stack.enter_context(running_baseline(engine))

    def scaled(self, full: Size, quick: Size) -> Size:
        """The size of what is measured. Small ones show that a benchmark works; a target says nothing about them."""
        return quick if self._quick else full

    def target(self, target: Target) -> Target | None:
        """A target for a `scaled` size."""
        return None if self._quick else target

    def warm_up(self, what: str, times: int = 1) -> Iterator[int]:
        """Rounds that are not measured."""
        for number in range(times):
            self._tell(f"{what}: warming up")
            yield number

    def rounds(self, what: str, usual: int, quick: int, seconds_max: float = ROUNDS_SECONDS_MAX) -> Iterator[int]:
        """Numbers from 0; each is told. On a slow machine fewer of them, so that the whole ends in time."""
        total = self._repetitions or (quick if self._quick else usual)
        ends_at = time.monotonic() + (QUICK_SECONDS_MAX if self._quick else seconds_max)
        for number in range(total):
            if number >= ROUNDS_MIN and time.monotonic() > ends_at:
                return
            self._tell(f"{what}: {number + 1} of {total}")
            yield number
