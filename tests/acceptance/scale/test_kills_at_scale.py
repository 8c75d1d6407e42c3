"""Every part of the engine is killed during one large execution. `python -m benchmarks.kills` does it at full size."""

import pytest

from benchmarks import kills
from tests.acceptance.caller import Caller
from tests.acceptance.running import RunningEngine, running_engine

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


def test_each_task_completes_once_and_in_order_though_every_part_is_killed(
    engine: RunningEngine, caller: Caller
) -> None:
    result = kills.campaign(engine, caller, tasks=600, rounds=1, duration_ms=60, agents=1, tell=print)
    assert result.killed == ("worker", "valkey", "temporal", "postgres")


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_ten_thousand_tasks_survive_every_part_being_killed_several_times() -> None:
    with running_engine() as engine:
        result = kills.campaign(
            engine,
            engine.caller(),
            tasks=kills.TASKS,
            rounds=kills.ROUNDS,
            duration_ms=kills.DURATION_MS,
            agents=kills.AGENTS,
            tell=print,
        )
    assert len(result.killed) == kills.ROUNDS * len(kills.VICTIMS)
