"""`serve hosts`."""

import typer

from cli.configuration import load_settings
from cli.options import AllocatorOption
from cli.probe_server import probed
from cli.serve import run_role
from engine.embedded.host_fleet import serve_hosts

app = typer.Typer()


@app.command()
def hosts(allocator: AllocatorOption = None) -> None:
    """Host processes of agents: started when they are wanted, watched, and stopped when idle."""
    settings = load_settings(allocator=allocator)
    run_role(probed(settings, lambda: serve_hosts(settings)))
