"""`token` and `agent-url`: what the operator hands out, made from keys and secrets in the data directory."""

from pathlib import Path
from typing import Annotated

import typer

from cli.configuration import load_settings
from cli.connection import TOKEN_KEY_FILE
from cli.options import DATA_DIR_DEFAULT, DataDirOption, JsonOption
from cli.output import print_document
from engine.errors import ConfigurationError
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
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Issue a token, signed with the key of the engine on --data-dir (or with ORCHESTRATOR_TOKEN_KEY_FILE)."""
    settings = load_settings()
    issuer = TokenIssuer.from_file(key_file(settings, data_dir), settings.token_issuer, settings.token_audience)
    issued = issuer.issue(tenant=tenant, roles=role or ["viewer"], subject=subject, lifetime_seconds=lifetime_seconds)
    if as_json:
        print_document({"token": issued})
    else:
        print(issued)


def key_file(settings: Settings, data_dir: Path) -> Path:
    path = settings.token_key_file or data_dir / TOKEN_KEY_FILE
    if not path.is_file():
        raise ConfigurationError(
            f"there is no signing key at {path}: `orchestrator up --data-dir {data_dir}` makes one, "
            "or set ORCHESTRATOR_TOKEN_KEY_FILE"
        )
    return path
