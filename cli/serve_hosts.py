"""`serve hosts`."""

import typer

from cli.configuration import load_settings
from cli.serve import run_role
from engine.embedded.host_fleet import serve_hosts

app = typer.Typer()


@app.command()
def hosts() -> None:
    """Host processes of agents: started when they are wanted, watched, and stopped when idle."""
    run_role(serve_hosts(load_settings()))
