"""A hook's command that runs as a Kubernetes Job of its own: what is to run, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

JobStopReason = Literal["time", "memory", "disk"]


@dataclass(frozen=True, slots=True)
class HookJob:
    """A checked command. The same `key` of a tenant is the same Job, however often and wherever it is asked for."""

    tenant: str
    key: str
    argv: tuple[str, ...]
    environment: Mapping[str, str]
    timeout_seconds: float
    memory_bytes_max: int
    disk_bytes_max: int
    output_bytes_max: int
    """How much is kept of the output."""
    work_inside: str
    """Where the working directory stands in the container."""
    owner: tuple[int, int] | None = None
    """User and group to whom the working directory belongs; None for nobody in particular."""
    hook: str = ""
    """The hook's id, for people who look at the cluster."""
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables whose values nobody but the command may see."""


@dataclass(frozen=True, slots=True)
class HookJobEnded:
    """`exit_code` is absent when it was stopped for a `reason`."""

    exit_code: int | None
    reason: JobStopReason | None
    output: bytes
    truncated: bool
    duration_ms: int
