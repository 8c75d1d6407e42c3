"""Every part of the engine is killed while each task of a graph is reviewed, or handed over through a gate.

`python -m benchmarks.kills --kind review` does it at full size.
"""

import pytest

from benchmarks import kills
from tests.acceptance.running import running_engine

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


@pytest.mark.parametrize("kind", ["review", "handoff"])
def test_each_review_and_each_hand_over_counts_once_whoever_is_killed(kind: str) -> None:
    with running_engine() as engine:
        result = kills.campaign(
            engine, engine.caller(), tasks=250, rounds=1, duration_ms=60, agents=3, tell=print, kind=kind
        )
    assert sorted(result.killed) == sorted(kills.VICTIMS)
