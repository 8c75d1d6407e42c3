"""`serve worker`, and its parts on their own."""

from typing import Annotated

import typer
import uvloop

from cli.configuration import load_settings
from cli.serve import run_role
from worker import serve as serve_worker

app = typer.Typer()

WORKER_ROLES = ("workflows", "bridge")


@app.command()
def worker(
    role: Annotated[
        list[str] | None, typer.Option("--role", help="workflows or bridge; repeat for several. Both when absent.")
    ] = None,
) -> None:
    """Workflows and activities, and the bridge from the event streams."""
    run_role(serve_worker(load_settings(), frozenset(role or WORKER_ROLES)), uvloop.new_event_loop)


@app.command()
def bridge() -> None:
    """The bridge from the event streams alone."""
    run_role(serve_worker(load_settings(), frozenset({"bridge"})), uvloop.new_event_loop)


@app.command()
def hooks() -> None:
    """Workers for asynchronous hooks."""
    run_role(serve_worker(load_settings(), frozenset({"hooks"})), uvloop.new_event_loop)
