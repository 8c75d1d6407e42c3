"""What is to run in a sandbox, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

SandboxMode = Literal["namespaces", "bubblewrap", "limits"]
StopReason = Literal["time", "memory", "processes", "disk", "output", "stopped"]

WORK_INSIDE: Final = "/hookwork"
"""Where the working directory stands in the sandbox: the same for every tenant, so that outputs name no host path."""

TMP_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Limits:
    timeout_seconds: float
    memory_bytes_max: int
    processes_max: int
    file_bytes_max: int
    written_bytes_max: int
    output_bytes_max: int
    """How much is kept of each of the two outputs."""
    output_read_bytes_max: int
    """How much may be written before the command is killed."""


@dataclass(frozen=True, slots=True)
class Command:
    """A program that is on the allow-list, with arguments that have been checked."""

    program: Path
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    work_dir: Path | None
    """Free of links. None gives an empty one that is gone afterwards."""
    limits: Limits
    network: bool = False
    stdin: bytes = b""
    masks: Mapping[str, bytes] = field(default_factory=dict)
    """Files of the working directory that the command sees with another content."""


@dataclass(frozen=True, slots=True)
class Ended:
    """`exit_code` is negative for a signal, and absent when the command was stopped for a `reason`."""

    exit_code: int | None
    reason: StopReason | None
    stdout: bytes
    stderr: bytes
    truncated: bool
    duration_ms: int
