"""An engine of the command's own, for as long as the command runs: `orchestrator up` as a child process."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.connection import Connection
from engine.embedded import spawn
from engine.errors import UnavailableError

READY_TIMEOUT_SECONDS = 300.0
"""A cold start unpacks servers and initialises a database; a slow disk makes that long."""

STOP_TIMEOUT_SECONDS = 40.0
READ_BYTES = 65536


@contextmanager
def own_engine(
    data_dir: Path,
    catalogue: Path | None,
    *,
    command: tuple[str, ...] = (sys.executable, "-m", "cli"),
    ready_timeout_seconds: float = READY_TIMEOUT_SECONDS,
) -> Iterator[Connection]:
    """Start an engine on the data directory, yield its address once it is ready, stop it afterwards."""
    # By way of a program that has the engine stopped when this process is killed: nobody else would stop it.
    bound = [sys.executable, spawn.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "-"]
    arguments = [*bound, *command, "up", "--data-dir", str(data_dir), "--port", "0", "--json"]
    if catalogue is not None:
        arguments += ["--catalogue", str(catalogue)]
    # A session of its own: Ctrl-C reaches this command alone, which then stops the engine in order.
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, start_new_session=True)
    try:
        yield _await_ready(process, time.monotonic() + ready_timeout_seconds)
    finally:
        _stop(process)


def _await_ready(process: subprocess.Popen[bytes], deadline: float) -> Connection:
    assert process.stdout is not None  # it is a pipe  # noqa: S101
    line = b""
    while not line.endswith(b"\n"):
        readable, _, _ = select.select([process.stdout], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            raise UnavailableError("the engine did not get ready in time; its messages stand above")
        chunk = process.stdout.read1(READ_BYTES)  # type: ignore[attr-defined]
        if not chunk:
            raise UnavailableError(f"the engine ended while it started (exit code {process.wait()}); see above")
        line += chunk
    document = json.loads(line)
    return Connection(str(document["url"]).rstrip("/"), str(document["token"]))


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            # Its servers and agents die with it: they are bound to their supervisor.
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
