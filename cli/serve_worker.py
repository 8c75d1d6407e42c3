"""`serve worker`, and its parts on their own."""

from typing import Annotated

import typer
import uvloop

from cli.configuration import load_settings
from cli.options import AllocatorOption
from cli.probe_server import probed
from cli.serve import run_role
from worker import serve as serve_worker

app = typer.Typer()

WORKER_ROLES = ("workflows", "bridge")


@app.command()
def worker(
    role: Annotated[
        list[str] | None, typer.Option("--role", help="workflows or bridge; repeat for several. Both when absent.")
    ] = None,
    allocator: AllocatorOption = None,
) -> None:
    """Workflows and activities, and the bridge from the event streams."""
    _run(frozenset(role or WORKER_ROLES), allocator)


@app.command()
def bridge() -> None:
    """The bridge from the event streams alone."""
    _run(frozenset({"bridge"}))


@app.command()
def hooks() -> None:
    """Workers for asynchronous hooks."""
    _run(frozenset({"hooks"}))


def _run(roles: frozenset[str], allocator: str | None = None) -> None:
    settings = load_settings(allocator=allocator)
    run_role(probed(settings, lambda: serve_worker(settings, roles)), uvloop.new_event_loop)
