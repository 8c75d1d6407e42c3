"""Options that several commands share, spelled once."""

from pathlib import Path
from typing import Annotated

import typer

AllocatorOption = Annotated[
    str | None,
    typer.Option(help="Where agents run: process (host processes here) or kubernetes (a pod each)."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON document on stdout; messages go to stderr.")]

UrlOption = Annotated[
    str | None,
    typer.Option("--url", envvar="ORCHESTRATOR_URL", help="The engine's address, e.g. http://127.0.0.1:8002."),
]

TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="ORCHESTRATOR_TOKEN", show_envvar=True, help="Token of the caller; it names the tenant."
    ),
]

DataDirOption = Annotated[
    Path,
    typer.Option("--data-dir", envvar="ORCHESTRATOR_DATA_DIR", help="Data directory of the engine on this machine."),
]

DATA_DIR_DEFAULT = Path(".data")

ExecutionArgument = Annotated[str, typer.Argument(metavar="ID", help="The execution's id.")]

DefinitionArgument = Annotated[
    str, typer.Argument(metavar="FILE", help="Workflow definition, JSON or YAML; `-` reads stdin.")
]

TenantOption = Annotated[str, typer.Option("--tenant", help="The tenant.")]

LimitOption = Annotated[int, typer.Option("--limit", min=1, max=1000, help="Items on a page.")]

PageTokenOption = Annotated[
    str | None, typer.Option("--page-token", help="Where to go on: next_page_token of the last page.")
]
