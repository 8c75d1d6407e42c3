"""`doctor`: what is missing on this machine, and what to do about it."""

import asyncio
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import httpx
import typer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from cli.configuration import load_settings
from cli.connection import read_engine_file
from cli.options import DATA_DIR_DEFAULT, DataDirOption, JsonOption
from cli.outcome import ExitCode
from cli.output import print_document
from cli.tables import plain
from engine.embedded.addresses import is_free
from engine.embedded.binaries import postgres_directory, temporal_program, valkey_program
from engine.errors import EngineError
from engine.events.partitions import look_at_shares
from engine.installation import check_packages

app = typer.Typer()

PORT_DEFAULT = 8002
DISK_FREE_BYTES_MIN = 1024**3
TIMEOUT_SECONDS = 3.0
PYTHON_MIN = (3, 11)

_SERVERS = (("DATABASE_URL", 5432), ("REDIS_URL", 6379), ("TEMPORAL_ADDRESS", 7233))
_STYLES = {"ok": "green", "warning": "yellow", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: Literal["ok", "warning", "failed"]
    detail: str
    remedy: str = ""


@app.command()
def doctor(
    data_dir: DataDirOption = DATA_DIR_DEFAULT,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port that the engine is to listen on.")] = PORT_DEFAULT,
    as_json: JsonOption = False,
) -> None:
    """Check Python, packages, the servers' programs, the data directory, ports and the running engine.

    Exit code 1 when something failed; warnings are no failures.
    """
    checks = list(examine(data_dir, port))
    failed = any(check.state == "failed" for check in checks)
    if as_json:
        print_document({"ok": not failed, "checks": [asdict(check) for check in checks]})
    else:
        table = Table(box=None, pad_edge=False)
        for heading in ("check", "state", "detail", "remedy"):
            table.add_column(heading, overflow="fold")
        for check in checks:
            state = plain(check.state)
            state.stylize(_STYLES[check.state])
            table.add_row(plain(check.name), state, plain(check.detail), plain(check.remedy))
        Console().print(table)
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def examine(data_dir: Path, port: int) -> Iterator[Check]:
    yield check_python(sys.version_info[:2])
    yield _guarded("packages", _describe_packages)
    if not all(os.environ.get(variable) for variable, _ in _SERVERS):
        # With all three servers named, as in a container, nothing is started here.
        yield _guarded("postgresql", lambda: str(postgres_directory()))
        yield _guarded("valkey", lambda: str(valkey_program()))
        yield _guarded("temporal", lambda: str(temporal_program()))
    yield check_data_dir(data_dir)
    yield from check_servers(os.environ)
    running = check_engine(data_dir)
    redis_url = os.environ.get("REDIS_URL") or _redis_of(data_dir)
    if redis_url:
        yield check_workers(redis_url)
    if running is not None:
        yield running
    else:
        yield check_port(port)


def check_python(version: tuple[int, ...]) -> Check:
    found = f"{platform.python_implementation()} {'.'.join(map(str, version))}"
    if version >= PYTHON_MIN:
        return Check("python", "ok", found)
    return Check("python", "failed", found, "install Python 3.11 or later and run `make setup`")


def _describe_packages() -> str:
    check_packages()
    return "each of ours is imported from our own tree"


def _guarded(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, "ok", look())
    except EngineError as error:
        what, _, remedy = error.message.partition("; ")
        return Check(name, "failed", what, remedy)


def check_data_dir(data_dir: Path) -> Check:
    existing = next((path for path in (data_dir, *data_dir.resolve().parents) if path.exists()), Path("/"))
    if not existing.is_dir():
        return Check("data directory", "failed", f"{existing} is not a directory", "choose another with --data-dir")
    if not os.access(existing, os.W_OK | os.X_OK):
        return Check("data directory", "failed", f"{existing} is not writable", "choose another with --data-dir")
    free_bytes = shutil.disk_usage(existing).free
    detail = f"{data_dir}, {free_bytes / 1024**3:.1f} GiB free"
    if free_bytes < DISK_FREE_BYTES_MIN:
        return Check("data directory", "warning", detail, "make room: the engine needs about 1 GiB to start")
    return Check("data directory", "ok", detail)


def check_servers(environment: "os._Environ[str] | dict[str, str]") -> Iterator[Check]:
    """Servers that the environment names must be there: `serve` will use them."""
    for variable, port_default in _SERVERS:
        address = environment.get(variable)
        if not address:
            continue
        parts = urlsplit(address if "://" in address else f"//{address}")
        place = f"{parts.hostname}:{parts.port or port_default}"
        try:
            socket.create_connection((parts.hostname or "", parts.port or port_default), TIMEOUT_SECONDS).close()
        except OSError as error:
            yield Check(variable, "failed", f"{place}: {error}", f"start that server, or correct {variable}")
        else:
            yield Check(variable, "ok", f"{place} takes connections")


def _redis_of(data_dir: Path) -> str | None:
    try:
        engine = read_engine_file(data_dir)
    except EngineError:
        return None  # said by the check of the engine
    return None if engine is None else str(engine.get("redis_url") or "") or None


def check_workers(redis_url: str) -> Check:
    """The processes that bring events to executions, and their shares of the event streams' partitions."""
    try:
        settings = load_settings().model_copy(update={"redis_url": SecretStr(redis_url)})
        shares = asyncio.run(look_at_shares(settings))
    except (EngineError, ValueError) as error:
        return Check("workers", "failed", str(error), "start Redis, or correct REDIS_URL")
    if not shares:
        return Check("workers", "warning", "none is running", "start one: orchestrator serve worker")
    listed = ", ".join(f"{owner} ({len(partitions)})" for owner, partitions in sorted(shares.items()))
    unread = settings.event_partitions - sum(len(partitions) for partitions in shares.values())
    detail = f"{len(shares)} with a bridge, and their shares of {settings.event_partitions} partitions: {listed}"
    if unread:
        return Check("workers", "warning", f"{detail}; {unread} are read by nobody", "look again in a few seconds")
    return Check("workers", "ok", detail)


def check_port(port: int) -> Check:
    if is_free(port):
        return Check("port", "ok", f"{port} is free")
    return Check("port", "warning", f"{port} is taken", "use another: orchestrator up --port PORT (0: any)")


def check_engine(data_dir: Path, transport: httpx.BaseTransport | None = None) -> Check | None:
    """None when no engine runs on the data directory, which is no fault."""
    try:
        engine = read_engine_file(data_dir)
    except EngineError as error:
        return Check("engine", "failed", error.message)
    if engine is None:
        return None
    url = str(engine["url"])
    with httpx.Client(transport=transport, timeout=TIMEOUT_SECONDS) as http:
        try:
            answer = http.get(f"{url}/ready")
        except httpx.TransportError as error:
            return Check("engine", "failed", f"{url} does not answer: {error}", "stop it and start it again")
    if answer.is_success:
        return Check("engine", "ok", f"ready at {url}, process {engine['pid']}")
    return Check("engine", "failed", f"{url} is not ready: {answer.text[:500]}", "see the engine's messages")
