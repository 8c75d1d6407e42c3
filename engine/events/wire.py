"""The wire format of agents' reports: stream entries to typed events. Described in `docs/agent-protocol.md`."""

import zlib
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from engine.contracts.dynamic import ExternalEvent
from engine.contracts.events import AgentEvent, AgentEventType, TaskError
from engine.contracts.limits import (
    ERROR_MESSAGE_LENGTH_MAX,
    EXTERNAL_EVENT_BYTES_MAX,
    NAME_LENGTH_MAX,
    RESULT_BYTES_MAX,
    SIGNAL_BYTES_MAX,
    SPAWN_BYTES_MAX,
)

PROGRESS = "agent.task_progress"
EXTERNAL_TYPES: Final = frozenset({b"session.saved", b"session.resumed"})
"""What the keeper of sessions tells: an external event of the execution, as if it had come over HTTP."""

ACCEPTS: Final = ("zlib",)
"""What hosts may use in their reports: said with assignments."""

THREAD_ABOVE_BYTES: Final = 256 * 1024
"""So much that is compressed is not read on the event loop."""

EVENTS_PER_ENTRY_MAX = 2_000
ENTRY_BYTES_MAX = 2 * RESULT_BYTES_MAX
NESTING_MAX = 100
"""Deeper documents could be read, but not written again by everything on their way."""

_INT32_MAX = 2**31 - 1


class WireError(Exception):
    """An entry that no repetition makes better: it goes to the dead-letter stream with this reason."""


class _Error(BaseModel):
    model_config = ConfigDict(extra="ignore")

    code: str = Field("AGENT_ERROR", max_length=100)
    message: str = ""
    retryable: bool = True


def _ms(value: Any) -> Any:
    """Milliseconds as a number or its text, or RFC 3339 text."""
    if isinstance(value, str):
        if value.isascii() and value.isdigit():
            return int(value)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError as error:
            raise ValueError("timestamps are RFC 3339 or milliseconds since the epoch") from error
        return int(moment.timestamp() * 1000) if moment.tzinfo else value
    return int(value) if isinstance(value, float) else value


Milliseconds = Annotated[int, BeforeValidator(_ms), Field(ge=0, le=253_402_300_799_999)]


class WireEvent(BaseModel):
    """One report as it stands in an entry. Unknown fields are ignored: agents may be newer than the engine."""

    model_config = ConfigDict(extra="ignore")

    type: AgentEventType
    at_ms: Milliseconds
    task_id: str = Field("", max_length=255)
    agent_id: str = Field("", max_length=512)
    epoch: int = Field(1, ge=1, le=_INT32_MAX)
    attempt: int = Field(0, ge=0, le=_INT32_MAX)
    started_at_ms: Milliseconds | None = None
    result: Any = None
    spawn: Any = None
    error: _Error | None = None
    progress: float | None = Field(None, ge=0, le=1)
    timeout_seconds: float | None = Field(None, gt=0, description="of the attempt that has started")
    host_id: str = Field("", max_length=255)
    reason: str = ""
    speed: float = Field(1.0, ge=0.01, le=1)
    service: str = Field("", max_length=512)

    def to_event(self) -> AgentEvent:
        error: TaskError | None = None
        if self.error is not None:
            message = self.error.message[:ERROR_MESSAGE_LENGTH_MAX]
            error = TaskError(code=self.error.code, message=message, retryable=self.error.retryable)
        event = AgentEvent.trusted(
            type=self.type,
            at_ms=self.at_ms,
            task_id=self.task_id,
            agent_id=self.agent_id,
            epoch=self.epoch,
            attempt=self.attempt,
            started_at_ms=self.started_at_ms,
            result=self.result,
            error=error,
            spawn=tuple(self.spawn) if self.spawn else None,
            host_id=self.host_id,
            reason=self.reason[:ERROR_MESSAGE_LENGTH_MAX],
            speed=self.speed,
        )
        # Set only where it says something: what is set is written into every signal.
        return event.model_copy(update={"service": self.service}) if self.service else event

    def fail(self, code: str, message: str, *, retryable: bool = False) -> None:
        """The report cannot be taken as it is: its attempt fails."""
        self.type, self.result, self.spawn = AgentEventType.TASK_FAILED, None, None
        self.error = _Error(code=code, message=message, retryable=retryable)


class Report(BaseModel):
    """One stream entry, decoded."""

    execution_id: str
    events: list[WireEvent]
    external: ExternalEvent | None = None
    """What a system outside tells the execution, instead of an agent's reports."""


_EVENTS: TypeAdapter[list[WireEvent]] = TypeAdapter(Annotated[list[WireEvent], Field(max_length=EVENTS_PER_ENTRY_MAX)])
_EVENT: TypeAdapter[WireEvent] = TypeAdapter(WireEvent)
_MOMENT: TypeAdapter[int] = TypeAdapter(Milliseconds)


def decode_report(fields: Mapping[bytes, bytes]) -> Report:
    """Decode a partition stream's entry, packed (`x`, `b`) or single. Raises WireError with the reason."""
    size_bytes = sum(map(len, fields.values()))
    if size_bytes > ENTRY_BYTES_MAX:
        raise WireError(f"an entry of {size_bytes} bytes: at most {ENTRY_BYTES_MAX} are taken")
    try:
        if b"b" in fields:
            return Report.model_construct(
                execution_id=_execution_id(fields.get(b"x")),
                events=_checked(_EVENTS.validate_python(_document(fields[b"b"], "b")), fields[b"b"]),
            )
        return _decode_single(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise WireError(f"{where}: {first['msg']}" if where else first["msg"]) from error


def inflated(fields: Mapping[bytes, bytes]) -> Mapping[bytes, bytes]:
    """With `b` where the entry has it compressed (`z`). Raises WireError."""
    packed = fields.get(b"z")
    if packed is None or b"b" in fields:
        return fields
    reader = zlib.decompressobj()
    try:
        body = reader.decompress(packed, ENTRY_BYTES_MAX + 1)
    except zlib.error as error:
        raise WireError(f"z is not what zlib has compressed: {error}") from error
    if len(body) > ENTRY_BYTES_MAX:
        raise WireError(f"z has more than {ENTRY_BYTES_MAX} bytes in it")
    if not reader.eof or reader.unused_data:
        raise WireError("z is cut off, or goes on behind its end")
    return {**{name: value for name, value in fields.items() if name != b"z"}, b"b": body}


def _document(raw: bytes, name: str) -> Any:
    """Strict JSON: pydantic's own reader takes NaN and numbers that nothing behind it can write again."""
    try:
        return orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise WireError(f"{name} is not JSON: {error}") from error


def _checked(events: list[WireEvent], raw: bytes) -> list[WireEvent]:
    """Results that are too deep, and added tasks that cannot be taken, are refused; the reports beside them are not."""
    if raw.count(b"[") + raw.count(b"{") > NESTING_MAX:
        for event in events:
            if _deeper(event.result, NESTING_MAX):
                event.fail("RESULT_TOO_DEEP", f"the result is nested more than {NESTING_MAX} deep")
    if b'"spawn"' in raw:
        _check_spawns(events)
    return events


def _check_spawns(events: list[WireEvent]) -> None:
    """They travel in the signal: each is limited, and all of an entry together."""
    room = SIGNAL_BYTES_MAX
    for event in events:
        if event.spawn is None:
            continue
        if event.type is not AgentEventType.TASK_COMPLETED:
            event.spawn = None
            continue
        if not isinstance(event.spawn, list) or not all(isinstance(task, dict) for task in event.spawn):
            event.fail("SPAWN_REFUSED", "spawn is not a list of tasks")
            continue
        size_bytes = len(orjson.dumps(event.spawn))
        if size_bytes > SPAWN_BYTES_MAX:
            event.fail("SPAWN_REFUSED", f"spawn has {size_bytes} bytes as JSON, at most {SPAWN_BYTES_MAX} are taken")
        elif _deeper(event.spawn, NESTING_MAX):
            event.fail("SPAWN_REFUSED", f"spawn is nested more than {NESTING_MAX} deep")
        elif size_bytes > room:
            event.fail("SPAWN_REFUSED", "too many added tasks in one entry: report them in several", retryable=True)
        else:
            room -= size_bytes


def _deeper(document: Any, levels: int) -> bool:
    inside = [document]
    for _ in range(levels):
        inside = [item for value in inside if isinstance(value, dict | list)
                  for item in (value.values() if isinstance(value, dict) else value)]  # fmt: skip
        if not inside:
            return False
    return any(isinstance(value, dict | list) for value in inside)


def _execution_id(raw: bytes | None) -> str:
    try:
        return str(UUID((raw or b"").decode()))
    except ValueError as error:
        raise WireError("execution_id is missing or not a UUID") from error


def _decode_single(fields: Mapping[bytes, bytes]) -> Report:
    payload = _document(fields.get(b"payload", b"{}"), "payload")
    if fields.get(b"event_type") in EXTERNAL_TYPES:
        return _decode_external(fields, payload)
    if not isinstance(payload, dict):
        raise WireError("payload is not a JSON object")
    document = {
        **payload,
        "type": fields.get(b"event_type", b"").decode(errors="replace"),
        "at_ms": fields.get(b"timestamp", b"").decode(errors="replace"),
    }
    return Report.model_construct(
        execution_id=_execution_id(fields.get(b"execution_id")),
        events=_checked([_EVENT.validate_python(document)], fields.get(b"payload", b"")),
    )


def _decode_external(fields: Mapping[bytes, bytes], payload: Any) -> Report:
    size_bytes = len(fields.get(b"payload", b""))
    if size_bytes > EXTERNAL_EVENT_BYTES_MAX or _deeper(payload, NESTING_MAX):
        raise WireError(f"a payload of {size_bytes} bytes: at most {EXTERNAL_EVENT_BYTES_MAX}, {NESTING_MAX} deep")
    event_id = fields.get(b"event_id", b"").decode(errors="replace")
    if len(event_id) > NAME_LENGTH_MAX or not event_id.isprintable():
        raise WireError(f"event_id is not printable, or longer than {NAME_LENGTH_MAX}")
    at_ms = _MOMENT.validate_python(fields.get(b"timestamp", b"").decode(errors="replace"))
    kind = fields[b"event_type"].decode()
    external = ExternalEvent.trusted(event_id=event_id, type=kind, at_ms=at_ms, payload=payload)
    return Report.model_construct(execution_id=_execution_id(fields.get(b"execution_id")), events=[], external=external)


def encode_events(events: list[dict[str, Any]]) -> bytes:
    """The packed form's `b`, for what the engine itself reports to an execution."""
    return orjson.dumps(events)


Control = Literal["run", "pause", "cancel"]


def encode_host_entry(document: dict[str, Any]) -> bytes:
    """The `b` of an entry in a host's stream."""
    return orjson.dumps(document)
