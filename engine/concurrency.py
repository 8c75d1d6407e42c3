"""Running several jobs as one, and ending them for certain."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

CANCEL_AGAIN_SECONDS = 0.5


async def end_all(tasks: Iterable["asyncio.Future[Any]"]) -> list[BaseException | Any]:
    """Cancel until every task has ended; answers their results or exceptions.

    Once is not always enough: a client library that closes a connection while it is being cancelled may raise its own
    error instead, and a loop that sits out outages then takes the cancellation for one. Being cancelled does not break
    this off: whoever ends a job that ends others repeats its cancellation as well.
    """
    everyone = list(tasks)
    pending = {task for task in everyone if not task.done()}
    cancelled = False
    while pending:
        for task in pending:
            task.cancel()
        try:
            await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
        except asyncio.CancelledError:
            cancelled = True
        pending = {task for task in pending if not task.done()}
    results = await asyncio.gather(*everyone, return_exceptions=True)
    if cancelled:
        raise asyncio.CancelledError
    return results


async def run_together(jobs: Sequence[Callable[[], Awaitable[None]]]) -> None:
    """Run until the first job ends or this is cancelled; then end all, and raise what ended it."""
    running = [asyncio.ensure_future(job()) for job in jobs]
    try:
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    finally:
        results = await end_all(running)
    for result in results:
        if isinstance(result, Exception):
            raise result
