"""`token` and `agent-url`: what the operator hands out, made from keys and secrets in the data directory."""

import asyncio
import re
from pathlib import Path
from typing import Annotated

import typer

from cli.configuration import load_settings
from cli.connection import TOKEN_KEY_FILE, read_engine_file
from cli.options import DATA_DIR_DEFAULT, DataDirOption, JsonOption
from cli.output import print_document
from engine.contracts.limits import TENANT_PATTERN
from engine.embedded.host_fleet import tenant_agent_url
from engine.errors import ConfigurationError, InvalidParametersError
from engine.security.keys import create_key_file
from engine.security.tokens import TOKEN_LIFETIME_DEFAULT_SECONDS, TokenIssuer
from engine.settings import Settings

app = typer.Typer()


@app.command()
def token(
    tenant: Annotated[str, typer.Option(help="Tenant that the token's holder belongs to.")] = "default",
    role: Annotated[
        list[str] | None, typer.Option("--role", help="admin, operator, developer or viewer; repeat for several.")
    ] = None,
    subject: Annotated[str, typer.Option(help="Who it is for: the actor in the audit log.")] = "local",
    lifetime_seconds: Annotated[int, typer.Option(min=1, help="How long it is valid.")] = (
        TOKEN_LIFETIME_DEFAULT_SECONDS
    ),
    create_key: Annotated[
        bool, typer.Option("--create-key", help="Make the signing key first when there is none yet.")
    ] = False,
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Issue a token, signed with the key of the engine on --data-dir (or with ORCHESTRATOR_TOKEN_KEY_FILE)."""
    settings = load_settings()
    if create_key:
        create_key_file(settings.token_key_file or data_dir / TOKEN_KEY_FILE)
    issuer = TokenIssuer.from_file(key_file(settings, data_dir), settings.token_issuer, settings.token_audience)
    issued = issuer.issue(tenant=tenant, roles=role or ["viewer"], subject=subject, lifetime_seconds=lifetime_seconds)
    if as_json:
        print_document({"token": issued})
    else:
        print(issued)


@app.command("agent-url")
def agent_url(
    tenant: Annotated[str, typer.Option(help="Tenant that the agents work for.")] = "default",
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Show the Redis address with which a tenant's agents log in; the login is made if need be.

    For the engine on --data-dir, or for REDIS_URL when none runs there. Keep it secret: it holds the password.
    """
    engine = read_engine_file(data_dir)
    redis_url = str(engine["redis_url"]) if engine is not None else None
    settings = load_settings(redis_url=redis_url, data_dir=data_dir)
    if not re.fullmatch(TENANT_PATTERN, tenant):
        raise InvalidParametersError(f"the tenant must match {TENANT_PATTERN}")
    url = asyncio.run(tenant_agent_url(settings, tenant))
    if as_json:
        print_document({"tenant": tenant, "url": url})
    else:
        print(url)


def key_file(settings: Settings, data_dir: Path) -> Path:
    path = settings.token_key_file or data_dir / TOKEN_KEY_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"there is no signing key at {path}: `orchestrator up --data-dir {data_dir}` makes one, "
            "or set ORCHESTRATOR_TOKEN_KEY_FILE"
        )
    return path
