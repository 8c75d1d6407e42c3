"""Redis comes back without its last second, as after a power cut: nothing that counted is lost, and the streams of
published events say again exactly what the log says."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.concurrency import end_all, run_together
from engine.contracts.execution import ExecutionStatus
from engine.embedded.valkey import ValkeyServer
from engine.postgres.stores import Stores
from engine.settings import Settings
from tests.integration.engine.bench import Bench, definition, open_bench
from tests.integration.engine.test_published_events import assert_published
from worker import ROLES, build

TASKS = 60
TASK_MS = 600


@dataclass
class Cut:
    bench: Bench
    valkey: ValkeyServer
    sizes: list[tuple[float, int]]
    """When the append-only file had which size."""

    @property
    def file(self) -> Path:
        [found] = self.valkey.directory.glob("appendonlydir/*.incr.aof")
        return found

    async def note_sizes(self) -> None:
        while True:
            self.sizes.append((asyncio.get_running_loop().time(), self.file.stat().st_size))
            await asyncio.sleep(0.05)

    async def covers(self, seconds: float) -> bool:
        """Whether it has been looked at for so long."""
        return bool(self.sizes) and self.sizes[0][0] < asyncio.get_running_loop().time() - seconds

    async def lose(self, seconds: float) -> int:
        """Stop the server, cut its file back to what it was so long ago, start it again; answers the bytes lost."""
        await self.valkey.stop()
        before = asyncio.get_running_loop().time() - seconds
        kept = max(size for at, size in self.sizes if at <= before)
        lost = self.file.stat().st_size - kept
        with self.file.open("r+b") as file:
            file.truncate(kept)
        await self.valkey.start()
        return lost


@pytest.fixture
async def cut(engine_settings: Settings, stores: Stores, server_directory: Path, tenant: str) -> AsyncIterator[Cut]:
    valkey = ValkeyServer(server_directory / f"cut-{tenant}")
    await valkey.start()
    changes: dict[str, Any] = {"redis_url": valkey.url, "task_queue": "lost-second"}
    settings = Settings.model_validate(engine_settings.model_dump() | changes)
    async with AsyncExitStack() as stack:
        jobs = await build(settings, ROLES, stack)
        running = asyncio.create_task(run_together(jobs))
        bench = await stack.enter_async_context(open_bench(settings, stores, tenant, resend_seconds=2.0))
        await bench.start_host()
        cut = Cut(bench, valkey, [])
        noting = asyncio.create_task(cut.note_sizes())
        yield cut
        await end_all([noting])
        await bench.stop()
        await end_all([running])
    await valkey.stop()


async def test_nothing_that_counted_is_lost_with_the_last_second_of_redis(cut: Cut) -> None:
    bench = cut.bench
    tasks = [{"id": f"t{n}", "input": {"duration_ms": TASK_MS, "result": n}} for n in range(TASKS)]
    await bench.until(lambda: cut.covers(1.5), "the file has been looked at")
    execution_id = await bench.start(definition(*tasks))
    for done in (TASKS // 4, TASKS // 2):

        async def far_enough(done: int = done) -> bool:
            view = await bench.status(execution_id)
            return view.performance_metrics.tasks_completed >= done

        await bench.until(far_enough, f"{done} tasks are done")
        assert await cut.lose(1.0) > 0
    view = await bench.until_closed(execution_id)
    assert view.status is ExecutionStatus.COMPLETED
    events = await bench.events(execution_id)
    completed = [e.payload["task_id"] for e in events if e.event_type == "task.completed"]
    assert sorted(completed) == sorted(f"t{n}" for n in range(TASKS))
    await assert_published(bench, execution_id)
