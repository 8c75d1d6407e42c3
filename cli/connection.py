"""Which engine a command talks to: the one that is named, or the one that runs on this machine's data directory."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.errors import ConfigurationError, UnavailableError

ENGINE_FILE = "engine.json"
"""What `orchestrator up` prints once ready, kept in the data directory while it runs."""


TOKEN_KEY_FILE = "token-key.pem"  # noqa: S105  a file's name
"""Signs and verifies the tokens of the engine on that data directory."""


@dataclass(frozen=True, slots=True)
class Connection:
    """Address and token of an engine."""

    url: str
    token: str


def read_engine_file(data_dir: Path) -> dict[str, Any] | None:
    """What the engine on that data directory says of itself; None when none runs there."""
    path = data_dir / ENGINE_FILE
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"cannot read {path}: {error}; stop the engine and start it again") from error
    if not isinstance(document, dict) or not isinstance(document.get("pid"), int):
        raise ConfigurationError(f"{path} is not what `orchestrator up` writes; stop the engine and start it again")
    return document if _is_alive(document["pid"]) else None


def find_connection(url: str | None, token: str | None, data_dir: Path) -> Connection | None:
    """The engine that options or environment name, else the one on the data directory; None when there is none."""
    if url is not None:
        if token is None:
            raise ConfigurationError("--url needs a token: give --token, or set ORCHESTRATOR_TOKEN")
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(f"--url {url!r} is not an address: write http://HOST:PORT")
        return Connection(url.rstrip("/"), token)
    engine = read_engine_file(data_dir)
    if engine is None:
        return None
    return Connection(str(engine["url"]).rstrip("/"), token or str(engine["token"]))


def require_connection(url: str | None, token: str | None, data_dir: Path) -> Connection:
    connection = find_connection(url, token, data_dir)
    if connection is None:
        raise UnavailableError(
            f"no engine runs on {data_dir}: start one with `orchestrator up`, or name one with --url and --token"
        )
    return connection


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
