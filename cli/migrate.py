"""`migrate`: the database's schema."""

import asyncio
from typing import Annotated

import typer

from cli.configuration import load_settings
from cli.options import JsonOption
from cli.output import print_document
from engine.errors import ConfigurationError
from engine.postgres.migrate import migrate as migrate_database
from engine.postgres.migrate import newest_revision

app = typer.Typer()


@app.command()
def migrate(
    owner_url: Annotated[
        str | None,
        typer.Option(
            "--owner-url",
            envvar="DATABASE_OWNER_URL",
            show_envvar=True,
            show_default=False,
            help="Login of the role that owns the tables.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the database's schema to this version. Safe to run twice, or by several processes at once."""
    configured = load_settings().database_owner_url
    address = owner_url or (configured.get_secret_value() if configured is not None else None)
    if address is None:
        raise ConfigurationError(
            "migrations run as the role that owns the tables: set DATABASE_OWNER_URL, or give --owner-url"
        )
    changed = asyncio.run(migrate_database(address))
    revision = newest_revision()
    if as_json:
        print_document({"revision": revision, "changed": changed})
    else:
        print(f"schema {'brought to' if changed else 'is at'} revision {revision}")
