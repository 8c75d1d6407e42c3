"""`serve gateway`."""

from typing import Annotated

import typer
import uvloop

from cli.configuration import load_settings
from cli.options import AllocatorOption
from cli.serve import run_role
from gateway.serve import serve_gateway

app = typer.Typer()


@app.command()
def gateway(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port to listen on.")] = None,
    allocator: AllocatorOption = None,
) -> None:
    """The HTTP and WebSocket interface."""
    run_role(serve_gateway(load_settings(host=host, port=port, allocator=allocator)), uvloop.new_event_loop)
