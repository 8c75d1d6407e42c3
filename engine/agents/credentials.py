"""Logins with which a tenant's agents reach Redis: one for each tenant, limited to what agents need of its keys.

Passwords are derived from one secret, so that they need no store of their own and come back after Redis has lost
its users.
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path
from typing import Final
from urllib.parse import quote, urlsplit, urlunsplit

from engine.errors import ConfigurationError
from engine.settings import Settings

SECRET_FILE: Final = "agent-secret"  # noqa: S105 - a file's name
SECRET_BYTES: Final = 32


def load_agent_secret(settings: Settings) -> bytes:
    """The secret in `agent_secret_file` or the data directory; made on first use. Raises ConfigurationError."""
    path = settings.agent_secret_file or settings.data_dir / SECRET_FILE
    try:
        if not path.exists():
            _create(path)
        secret = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"the agents' secret at {path} cannot be read or made: {error}") from error
    if len(secret) < SECRET_BYTES:
        raise ConfigurationError(f"the agents' secret at {path} is too short: remove it, and a new one is made")
    return secret


def agent_user(tenant: str) -> str:
    return f"agent-{tenant}"


def agent_password(secret: bytes, tenant: str) -> str:
    return hmac.new(secret, f"agent:{tenant}".encode(), hashlib.sha256).hexdigest()


def agent_url(engine_url: str, secret: bytes, tenant: str) -> str:
    """The engine's Redis address with the tenant's login instead of the engine's own."""
    parts = urlsplit(engine_url)
    address = parts.netloc.rpartition("@")[2]
    login = f"{quote(agent_user(tenant))}:{agent_password(secret, tenant)}"
    return urlunsplit(parts._replace(netloc=f"{login}@{address}"))


def _create(path: Path) -> None:
    """Whole or not at all: another process may be doing the same."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
