"""`serve`: one role of the engine in this process, against servers that run elsewhere.

The servers are named by DATABASE_URL, REDIS_URL, TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE; docs/operations.md lists
the rest. SIGTERM and SIGINT stop a role in order.
"""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

import typer

from cli.lazy import LazyCommand, LazyGroup

ROLES: Final = {
    "gateway": LazyCommand("cli.serve_gateway", "The HTTP and WebSocket interface."),
    "worker": LazyCommand("cli.serve_worker", "Workflows and activities, and the bridge from the event streams."),
    "bridge": LazyCommand("cli.serve_worker", "The bridge from the event streams alone."),
    "hooks": LazyCommand("cli.serve_worker", "Workers for asynchronous hooks."),
    "hosts": LazyCommand(
        "cli.serve_hosts", "Host processes of agents: started when wanted, watched, stopped when idle."
    ),
}


class Roles(LazyGroup):
    table = ROLES


app = typer.Typer(cls=Roles, no_args_is_help=True)


@app.callback()
def serve() -> None:
    """Run one role of the engine against servers that run elsewhere."""


def run_role(
    role: Coroutine[Any, Any, None], loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None
) -> None:
    """Run until the role ends or a signal asks it to, on an event loop of the given kind."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_until_signalled(role))


async def _until_signalled(role: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(role)
    asked: list[int] = []

    def stop(number: int) -> None:
        asked.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        await task
    except asyncio.CancelledError:
        if not asked:
            raise
