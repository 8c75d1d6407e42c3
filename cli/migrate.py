"""`migrate`: the database's roles and schema."""

import asyncio
from typing import Annotated
from urllib.parse import unquote, urlsplit

import typer

from cli.configuration import load_settings
from cli.options import JsonOption
from cli.output import print_document
from engine.errors import ConfigurationError
from engine.postgres.cluster import prepare_cluster
from engine.postgres.migrate import migrate as migrate_database
from engine.postgres.migrate import newest_revision

app = typer.Typer()

DATABASE_DEFAULT = "orchestrator"


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
    superuser_url: Annotated[
        str | None,
        typer.Option(
            "--superuser-url",
            envvar="DATABASE_SUPERUSER_URL",
            show_envvar=True,
            show_default=False,
            help="First make roles and database, with the passwords of DATABASE_OWNER_URL and DATABASE_URL.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Bring the database's schema to this version. Safe to run twice, or by several processes at once."""
    settings = load_settings()
    configured = settings.database_owner_url
    address = owner_url or (configured.get_secret_value() if configured is not None else None)
    if address is None:
        raise ConfigurationError(
            "migrations run as the role that owns the tables: set DATABASE_OWNER_URL, or give --owner-url"
        )
    changed = asyncio.run(prepare_and_migrate(address, settings.database_url.get_secret_value(), superuser_url))
    revision = newest_revision()
    if as_json:
        print_document({"revision": revision, "changed": changed})
    else:
        print(f"schema {'brought to' if changed else 'is at'} revision {revision}")


async def prepare_and_migrate(owner_url: str, app_url: str, superuser_url: str | None) -> bool:
    """Whether the schema changed."""
    if superuser_url is not None:
        await prepare_cluster(
            superuser_url,
            owner_password=_password(owner_url, "DATABASE_OWNER_URL"),
            app_password=_password(app_url, "DATABASE_URL"),
            database=unquote(urlsplit(owner_url).path.lstrip("/")) or DATABASE_DEFAULT,
        )
    return await migrate_database(owner_url)


def _password(url: str, variable: str) -> str:
    password = urlsplit(url).password
    if not password:
        raise ConfigurationError(f"{variable} has no password; the role cannot be made without one")
    return unquote(password)
