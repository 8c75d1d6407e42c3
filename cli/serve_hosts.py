"""`serve hosts`."""

import typer

from cli.configuration import load_settings
from cli.probe_server import probed
from cli.serve import run_role
from engine.embedded.host_fleet import serve_hosts

app = typer.Typer()


@app.command()
def hosts() -> None:
    """Host processes of agents: started when they are wanted, watched, and stopped when idle."""
    settings = load_settings()
    run_role(probed(settings, lambda: serve_hosts(settings)))
