"""How likely it is that a host process which has been silent for a while is in trouble. Pure: times are given.

A phi-accrual detector for suspicion, a fixed limit for the end; why is in docs/decisions/0020-*.md. A host has a rhythm
of its own: on a busy machine its heartbeats come unevenly, and then a longer silence means less. So the doubt of a
silence is told by the mean and the spread of the host's own intervals, both as moving averages, which takes the same
few bytes for each of 10,000 hosts however long they live.
"""

import math
from typing import Final

PHI_SUSPECT: Final = 3.0
"""A silence as long as this or longer is one heartbeat in a thousand."""

PHI_MAX: Final = 300.0
"""Beyond this the probability is below what a float can say."""

WEIGHT: Final = 0.1
"""Of the newest interval: about the last twenty decide."""

SPREAD_MIN: Final = 0.25
"""Of the expected interval. However even a host's heartbeats have been, a scheduler's hiccup is no surprise."""

FLOOR: Final = 0.5
"""Of the time after which a host is gone: no shorter silence makes it suspect, whatever its rhythm was."""


class Rhythm:
    """One host's heartbeats. Times are those of the listener's own clock of listening, in seconds."""

    __slots__ = ("_expected_seconds", "_floor_seconds", "_mean", "_variance", "heard_at")

    def __init__(self, heard_at: float, *, expected_seconds: float, gone_after_seconds: float) -> None:
        """`expected_seconds` between two heartbeats, until the host has shown its own rhythm."""
        self.heard_at = heard_at
        self._expected_seconds = expected_seconds
        self._floor_seconds = gone_after_seconds * FLOOR
        self._mean = expected_seconds
        self._variance = 0.0

    def beat(self, at: float) -> None:
        """It was heard. An interval of an outage teaches no more than one that just passed for life."""
        seconds = min(max(at - self.heard_at, 0.0), 2 * self._floor_seconds)
        self.heard_at = max(at, self.heard_at)
        difference = seconds - self._mean
        self._mean += WEIGHT * difference
        self._variance = (1 - WEIGHT) * (self._variance + WEIGHT * difference * difference)

    def forgive(self, at: float) -> None:
        """Nobody listened until now: the silence begins anew, and nothing is learnt from it."""
        self.heard_at = max(at, self.heard_at)

    def is_suspect(self, at: float) -> bool:
        silence = at - self.heard_at
        return silence > self._floor_seconds and self.phi(at) >= PHI_SUSPECT

    def phi(self, at: float) -> float:
        """How surprising the present silence is: n means that one in 10**n of this host's intervals is longer."""
        spread = max(math.sqrt(self._variance), self._expected_seconds * SPREAD_MIN)
        later = 0.5 * math.erfc((at - self.heard_at - self._mean) / (spread * math.sqrt(2)))
        return PHI_MAX if later <= 0.0 else min(-math.log10(later), PHI_MAX)
