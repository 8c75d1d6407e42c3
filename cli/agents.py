"""`agents`: the host processes that serve agents, how they are, and what became of one."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cli.options import JsonOption, LimitOption, PageTokenOption
from cli.output import print_document, print_more, printable
from cli.sharing import Connect, engine, shares
from cli.tables import local_time, plain

app = typer.Typer(no_args_is_help=True)

TypeOption = Annotated[str | None, typer.Option("--type", help="Of this agent type only.")]
StateOption = Annotated[
    str | None, typer.Option("--state", help="healthy, suspect or gone; without it, all that are not gone.")
]


@app.command("list")
@shares(connect=engine)
def list_agents(
    *,
    agent_type: TypeOption = None,
    state: StateOption = None,
    limit: LimitOption = 100,
    page_token: PageTokenOption = None,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """List host processes of agents with state, load and speed."""
    with connect() as client:
        page = client.get("/api/v1/agents", type=agent_type, state=state, limit=limit, page_token=page_token)
    if as_json:
        print_document(page)
        return
    table = Table(box=None, pad_edge=False)
    for column in ("host", "types", "state", "agents", "tasks", "slots", "speed", "heard"):
        table.add_column(column, no_wrap=column != "types", overflow="fold")
    for host in page["items"]:
        load = host["load"]
        row = (host["host_id"], ", ".join(host["types"]), host["state"], load["agents"], load["tasks_in_flight"])
        table.add_row(*map(plain, row), plain(host["slots"]), plain(_speed(host)), plain(_ago(host["last_seen"])))
    Console().print(table)
    print_more(page)


@app.command()
@shares(connect=engine)
def show(
    host_id: Annotated[str, typer.Argument(metavar="HOST", help="The host's id.")],
    *,
    connect: Connect,
    as_json: JsonOption = False,
) -> None:
    """Show a host process of agents with its history."""
    with connect() as client:
        host = client.call("agent.get", {"host_id": host_id})
    if as_json:
        print_document(host)
        return
    why = f" ({host['state_reason']})" if host["state_reason"] else ""
    load = host["load"]
    capabilities = "all" if host["capabilities"] == "*" else ", ".join(host["capabilities"])
    for line in (
        f"{host['host_id']}: {host['state']}{why}",
        f"types: {', '.join(host['types'])}; capabilities: {capabilities or 'none'}",
        f"load: {load['tasks_in_flight']} tasks of {host['slots']} slots, {load['agents']} agents "
        f"of {load['executions']} executions",
        f"speed: {_speed(host)}, measured with {host['measured_tasks']} tasks",
        f"here since {local_time(host['registered_at'])}, last heard {_ago(host['last_seen'])}",
    ):
        print(printable(line))
    table = Table(box=None, pad_edge=False)
    for column in ("at", "state", "speed", "why"):
        table.add_column(column, no_wrap=column != "why", overflow="fold")
    for change in host["history"]:
        table.add_row(
            *map(plain, (local_time(change["at"]), change["state"], f"{change['speed']:g}", change["reason"]))
        )
    Console().print(table)


def _speed(host: dict[str, Any]) -> str:
    measured = host["measured_speed"]
    return f"{host['speed']:g}" + ("" if measured is None else f" (measured {measured:.2g})")


def _ago(moment: str) -> str:
    seconds = (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds()
    return f"{max(seconds, 0):.0f} s ago"
