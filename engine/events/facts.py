"""Published facts: the packed form in which a tick appends them, and reading it again.

A pack is a stream entry with the fields `x` (execution), `w` (workflow), `t` (trace), `n` (sequence of its first fact)
and `b`: a line a fact, `<type> TAB <time> TAB <epoch> TAB <payload>`, in the order of the audit log. Lines are split by
the server itself, which is why the payload stands in them as JSON and nothing else does.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple

import orjson

from engine.contracts.events import AuditEvent
from engine.contracts.views import ExecutionEvent

PACK_FACTS_MAX: Final = 500
"""The server expands one pack in one step, during which it does nothing else."""

PACK_BYTES_MAX: Final = 512 * 1024


class Pack(NamedTuple):
    """Facts that follow each other."""

    first_sequence: int
    body: bytes


@dataclass(frozen=True, slots=True)
class Fact:
    """One published fact, read from a pack."""

    execution_id: str
    workflow_id: str
    trace_id: str
    sequence: int
    epoch: int
    event_type: str
    timestamp: str
    payload: dict[str, Any]

    @property
    def event_id(self) -> str:
        """The same however often it is published."""
        return f"{self.execution_id}:{self.sequence}"


def lines_of(events: Sequence[AuditEvent], payloads: Sequence[bytes], epoch: int) -> list[bytes]:
    """Facts that a tick has committed, with their payloads as they were stored."""
    # A tick's facts are of few types and moments: what stands before the payload is made once for each.
    return [
        b"%b%b\n" % (_head(event.type, event.at_ms, epoch), payload)
        for event, payload in zip(events, payloads, strict=True)
    ]


def stored_lines(events: Iterable[ExecutionEvent]) -> list[bytes]:
    """Facts as the store answers them."""
    return [
        b"%b%b\n" % (_head(event.event_type, _milliseconds(event.timestamp), event.epoch), orjson.dumps(event.payload))
        for event in events
    ]


def packs_of(first_sequence: int, lines: Sequence[bytes]) -> list[Pack]:
    """In packs of bounded size; a single fact above it stands alone."""
    packs: list[Pack] = []
    held: list[bytes] = []
    size_bytes = 0
    for offset, line in enumerate(lines):
        if held and (len(held) == PACK_FACTS_MAX or size_bytes + len(line) > PACK_BYTES_MAX):
            packs.append(Pack(first_sequence + offset - len(held), b"".join(held)))
            held, size_bytes = [], 0
        held.append(line)
        size_bytes += len(line)
    if held:
        packs.append(Pack(first_sequence + len(lines) - len(held), b"".join(held)))
    return packs


def facts_of(fields: Mapping[bytes, bytes]) -> list[Fact]:
    """The facts of a pack's entry. Raises KeyError or ValueError for what is no pack."""
    execution_id, workflow_id, trace_id = (fields[name].decode() for name in (b"x", b"w", b"t"))
    first = int(fields[b"n"])
    facts = []
    for offset, line in enumerate(fields[b"b"].split(b"\n")[:-1]):
        kind, at, epoch, payload = line.split(b"\t", 3)
        facts.append(
            Fact(
                execution_id, workflow_id, trace_id, first + offset, int(epoch), kind.decode(), at.decode(),
                orjson.loads(payload),
            )
        )  # fmt: skip
    return facts


def rfc3339(at_ms: int) -> str:
    seconds, ms = divmod(at_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=16_384)
def _head(kind: str, at_ms: int, epoch: int) -> bytes:
    return f"{kind}\t{rfc3339(at_ms)}\t{epoch}\t".encode()


@lru_cache(maxsize=4_096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000
