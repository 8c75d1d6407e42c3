"""`serve`: one role of the engine in this process, against servers that run elsewhere.

The servers are named by DATABASE_URL, REDIS_URL, TEMPORAL_ADDRESS and TEMPORAL_NAMESPACE; docs/operations.md lists
the rest. SIGTERM and SIGINT stop a role in order.
"""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Annotated, Any

import typer

from cli.configuration import load_settings
from engine.embedded.host_fleet import serve_hosts
from gateway.serve import serve_gateway
from worker import serve as serve_worker

app = typer.Typer(help="Run one role of the engine against servers that run elsewhere.", no_args_is_help=True)

WORKER_ROLES = ("workflows", "bridge")


@app.command()
def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")] = None,
) -> None:
    """The HTTP and WebSocket interface."""
    run_role(serve_gateway(load_settings(host=host, port=port)))


@app.command()
def worker(
    role: Annotated[
        list[str] | None, typer.Option("--role", help="workflows or bridge; repeat for several. Both when absent.")
    ] = None,
) -> None:
    """Workflows and activities, and the bridge from the event streams."""
    run_role(serve_worker(load_settings(), frozenset(role or WORKER_ROLES)))


@app.command()
def bridge() -> None:
    """The bridge from the event streams alone."""
    run_role(serve_worker(load_settings(), frozenset({"bridge"})))


@app.command()
def hooks() -> None:
    """Workers for asynchronous hooks."""
    run_role(serve_worker(load_settings(), frozenset({"hooks"})))


@app.command()
def hosts() -> None:
    """Host processes of agents: started when they are wanted, watched, and stopped when idle."""
    run_role(serve_hosts(load_settings()))


def run_role(role: Coroutine[Any, Any, None]) -> None:
    """Run until the role ends or a signal asks it to."""
    asyncio.run(_until_signalled(role))


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
