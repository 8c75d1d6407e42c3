"""Each pattern's example while random processes are killed; `python -m benchmarks.pattern_kills` does it for longer."""

import pytest

from benchmarks import pattern_kills

KILLS = 3

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@pytest.mark.parametrize("pattern", sorted(pattern_kills.demonstrations()))
def test_the_outcome_is_right_whoever_was_killed(pattern: str) -> None:
    result = pattern_kills.campaign(
        pattern, seed=1, executions=1, every_seconds=pattern_kills.EVERY_SECONDS, kills_max=KILLS, tell=print
    )
    assert result.executions == 1


@pytest.mark.soak
@pytest.mark.timeout(0)
@pytest.mark.parametrize("seed", range(1, 6))
@pytest.mark.parametrize("pattern", sorted(pattern_kills.demonstrations()))
def test_killed_every_two_seconds_until_done_the_outcome_is_right(pattern: str, seed: int) -> None:
    result = pattern_kills.campaign(
        pattern, seed=seed, executions=3, every_seconds=pattern_kills.EVERY_SECONDS, tell=print
    )
    assert result.killed
