"""The detector: what a silence means, given the heartbeats before it."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents.health import PHI_MAX, Rhythm

EXPECTED, GONE_AFTER = 2.0, 8.0
FLOOR_SECONDS = 4.0

intervals = st.lists(st.floats(0.0, 60.0, allow_nan=False), max_size=60)
silences = st.floats(0.0, 120.0, allow_nan=False)


def rhythm_of(gaps: list[float]) -> Rhythm:
    rhythm = Rhythm(0.0, expected_seconds=EXPECTED, gone_after_seconds=GONE_AFTER)
    at = 0.0
    for gap in gaps:
        at += gap
        rhythm.beat(at)
    return rhythm


@given(intervals, silences, silences)
def test_a_longer_silence_is_never_less_suspicious(gaps: list[float], one: float, other: float) -> None:
    rhythm = rhythm_of(gaps)
    shorter, longer = sorted((rhythm.heard_at + one, rhythm.heard_at + other))
    assert rhythm.phi(shorter) <= rhythm.phi(longer)
    assert rhythm.is_suspect(shorter) <= rhythm.is_suspect(longer)


@given(intervals, st.floats(0.0, FLOOR_SECONDS, allow_nan=False))
def test_no_silence_up_to_the_floor_is_suspicious_whatever_the_rhythm_was(gaps: list[float], silence: float) -> None:
    rhythm = rhythm_of(gaps)
    assert not rhythm.is_suspect(silence if not gaps else rhythm.heard_at + silence * 0.999)


@given(intervals)
def test_every_host_becomes_suspect_if_it_is_silent_for_long_enough(gaps: list[float]) -> None:
    """The outage before does not count for more than a host that just lived: 8 s each, at most."""
    rhythm = rhythm_of(gaps)
    assert rhythm.is_suspect(rhythm.heard_at + 60.0)


@given(intervals, silences)
def test_a_heartbeat_ends_all_suspicion(gaps: list[float], silence: float) -> None:
    rhythm = rhythm_of(gaps)
    at = rhythm.heard_at + silence
    rhythm.beat(at)
    assert not rhythm.is_suspect(at)


@given(intervals, silences)
def test_silence_while_nobody_listened_is_forgiven_and_teaches_nothing(gaps: list[float], away: float) -> None:
    rhythm, other = rhythm_of(gaps), rhythm_of(gaps)
    back = rhythm.heard_at + away
    rhythm.forgive(back)
    assert not rhythm.is_suspect(back + FLOOR_SECONDS * 0.999)
    assert rhythm.phi(back + 5.0) == pytest.approx(other.phi(other.heard_at + 5.0))


@given(st.integers(0, 2**32), st.floats(0.0, 3.0))
def test_the_jitter_of_a_busy_machine_hardly_ever_makes_a_host_suspect(seed: int, late_max: float) -> None:
    """Heartbeats every 2 s that come up to 3 s late: beyond the floor, but that is this host's way."""
    suspected = 0
    chance = random.Random(seed)
    rhythm = rhythm_of([])
    at = 0.0
    for n in range(200):
        gap = EXPECTED + chance.uniform(0.0, late_max)
        if n >= 30:
            suspected += rhythm.is_suspect(at + gap)
        at += gap
        rhythm.beat(at)
    assert suspected <= 3


def test_a_host_with_an_even_rhythm_is_suspect_soon_and_one_with_an_uneven_rhythm_later() -> None:
    even = rhythm_of([2.0] * 50)
    uneven = rhythm_of([2.0, 5.0] * 25)
    assert even.is_suspect(even.heard_at + 4.1)
    assert not uneven.is_suspect(uneven.heard_at + 6.0)


def test_an_unknown_host_is_expected_to_keep_the_configured_rhythm() -> None:
    new = rhythm_of([])
    assert not new.is_suspect(3.9)
    assert new.is_suspect(4.1)


def test_the_doubt_has_an_end_and_clocks_may_stand_still() -> None:
    rhythm = rhythm_of([2.0, 0.0, 0.0])
    assert rhythm.phi(1e9) == PHI_MAX
    rhythm.beat(1.0)
    assert rhythm.heard_at == 2.0
    rhythm.forgive(1.0)
    assert rhythm.heard_at == 2.0
