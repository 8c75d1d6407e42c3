"""What a benchmark is given: the engine, the baseline, how often to measure, and where to tell how far it is."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cached_property

from benchmarks.baseline_client import Baseline, running_baseline
from benchmarks.engine import Api, RunningEngine, running_engine


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
        """Numbers from 0; each is told."""
        total = quick if self._quick else usual
        for number in range(total):
            self._tell(f"{what}: {number + 1} of {total}")
            yield number
