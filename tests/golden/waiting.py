"""What scenarios wait for."""

from uuid import UUID

from tests.integration.engine.bench import Bench


async def lengthen(bench: Bench, execution_id: UUID) -> None:
    """The history, by ticks in which nothing happens, until it goes on as a new run."""
    handle = bench.handle(execution_id)
    before = (await handle.describe()).run_id

    async def is_new() -> bool:
        await handle.signal("catch_up")
        return (await handle.describe()).run_id != before

    await bench.until(is_new, "a new run")
