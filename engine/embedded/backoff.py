"""How long to wait before something that ended is started again."""

from typing import Final

FIRST_SECONDS: Final = 0.2
LONGEST_SECONDS: Final = 5.0
HEALTHY_SECONDS: Final = 10.0
"""What ran this long was in order: the next wait is short again."""


class Backoff:
    """Doubles from 0.2 s up to 5 s while starts fail."""

    def __init__(self) -> None:
        self._next_seconds = FIRST_SECONDS

    def after_running(self, seconds: float) -> float:
        if seconds >= HEALTHY_SECONDS:
            self._next_seconds = FIRST_SECONDS
        delay = self._next_seconds
        self._next_seconds = min(delay * 2, LONGEST_SECONDS)
        return delay
