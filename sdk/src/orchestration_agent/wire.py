"""The stream protocol's documents: what a host reads and what it writes. See `docs/agent-protocol.md`."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import orjson

ENTRY_BYTES_MAX = 256 * 1024
"""One entry with several events; a single event may be larger and then goes alone."""

ENTRY_EVENTS_MAX = 500

RESULT_BYTES_MAX = 8 * 1024 * 1024

SPAWN_BYTES_MAX = 128 * 1024
"""The tasks that one result adds, as JSON."""

SPAWN_TASKS_MAX = 1_000

MESSAGE_LENGTH_MAX = 2_000

CODE_LENGTH_MAX = 100

Control = Literal["run", "pause", "cancel"]


class Key(NamedTuple):
    """What identifies an attempt: only the current one's result counts."""

    execution_id: str
    task_id: str
    epoch: int
    attempt: int


class Route(NamedTuple):
    """Where reports about an execution go."""

    reply_to: str
    execution_id: str


class Pressure(NamedTuple):
    """How full the streams are: `ok`, `slow` (report less often) or `stop` (start nothing new)."""

    level: str
    until_ms: int


@dataclass(slots=True, frozen=True)
class Entry:
    """One entry of the host's own stream, checked."""

    execution_id: str
    workflow_id: str
    trace_id: str
    reply_to: str
    input: dict[str, Any]
    assign: list[dict[str, Any]]
    consumed: list[Key]
    cancel: list[Key]
    control: Control | None
    accepts: tuple[str, ...] = ()
    """What the engine understands beyond plain reports: `zlib`."""
    renew: bool = False
    """The engine holds this host to be gone: drop everything and come back under a new id."""
    pressure: Pressure | None = None
    """The streams are filling up, until that time at most unless it is said again."""


class MalformedEntry(ValueError):
    """An entry that this version does not understand. It is logged and passed over."""


def decode_entry(fields: dict[bytes, bytes]) -> Entry:
    """Raises MalformedEntry."""
    try:
        document = orjson.loads(fields[b"b"])
        if document.get("v", 1) != 1:
            raise MalformedEntry(f"version {document['v']} of the protocol is not known here")
        if document.get("renew") is True:
            return Entry("", "", "", "", {}, [], [], [], None, renew=True)
        if "pressure" in document:
            pressure = Pressure(str(document["pressure"]["level"]), int(document["pressure"]["until_ms"]))
            return Entry("", "", "", "", {}, [], [], [], None, pressure=pressure)
        execution_id = str(document["execution_id"])
        control = document.get("control")
        if control not in (None, "run", "pause", "cancel"):
            raise MalformedEntry(f"control {control!r} is not known")
        assign = document.get("assign") or []
        for item in assign:
            _check_assignment(item)
        return Entry(
            execution_id=execution_id,
            workflow_id=document.get("workflow_id") or "",
            trace_id=document.get("trace_id") or "",
            reply_to=document["reply_to"] if assign else document.get("reply_to") or "",
            input=document.get("input") or {},
            assign=assign,
            consumed=[Key(execution_id, t, int(e), int(a)) for t, e, a in document.get("consumed") or ()],
            cancel=[Key(execution_id, t, int(e), int(a)) for t, e, a in document.get("cancel") or ()],
            control=control,
            accepts=tuple(map(str, document.get("accepts") or ())),
        )
    except MalformedEntry:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise MalformedEntry(f"{type(error).__name__}: {error}") from error


def _check_assignment(item: dict[str, Any]) -> None:
    if not (
        isinstance(item["task_id"], str)
        and isinstance(item["agent_id"], str)
        and isinstance(item["epoch"], int)
        and isinstance(item["attempt"], int)
    ):
        raise MalformedEntry("an assignment needs task_id, agent_id, epoch and attempt")
    undone = item.get("compensates")
    if undone is not None and not (isinstance(undone["task_id"], str) and isinstance(undone["key"], str)):
        raise MalformedEntry("compensates needs task_id and key")
    after = item.get("after") or []
    if not isinstance(after, list) or not all(isinstance(task_id, str) for task_id in after):
        raise MalformedEntry("after is a list of tasks' ids")


def encode_event(
    kind: str,
    key: Key,
    agent_id: str,
    at_ms: int,
    *,
    started_at_ms: int | None = None,
    result: bytes | None = None,
    spawn: bytes | None = None,
    error: dict[str, Any] | None = None,
    progress: float | None = None,
    timeout_seconds: float | None = None,
) -> bytes:
    """One event as JSON. `result` and `spawn` are JSON already."""
    event: dict[str, Any] = {
        "type": kind,
        "task_id": key.task_id,
        "agent_id": agent_id,
        "epoch": key.epoch,
        "attempt": key.attempt,
        "at_ms": at_ms,
    }
    if started_at_ms is not None:
        event["started_at_ms"] = started_at_ms
    if timeout_seconds is not None:
        event["timeout_seconds"] = timeout_seconds
    if result is not None:
        event["result"] = orjson.Fragment(result)
    if spawn is not None:
        event["spawn"] = orjson.Fragment(spawn)
    if error is not None:
        event["error"] = error
    if progress is not None:
        event["progress"] = progress
    return orjson.dumps(event)


def pack(events: list[bytes]) -> list[bytes]:
    """JSON lists of events, in order, each within an entry's limits."""
    packed: list[bytes] = []
    batch: list[bytes] = []
    size = 2
    for event in events:
        if batch and (size + len(event) + 1 > ENTRY_BYTES_MAX or len(batch) >= ENTRY_EVENTS_MAX):
            packed.append(b"[" + b",".join(batch) + b"]")
            batch, size = [], 2
        batch.append(event)
        size += len(event) + 1
    if batch:
        packed.append(b"[" + b",".join(batch) + b"]")
    return packed
