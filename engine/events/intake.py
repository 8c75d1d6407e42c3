"""Entries that hold nothing but progress, read in bulk: most of what agents say, and no fact.

They need no workflow: the newest of each attempt goes to the board, the entry is done. Anything else, also what is not
quite as it should be, is left to the bridge, which reads it with care and says what is wrong.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec

from engine.contracts.streams import partition_of
from engine.events.progress import ProgressBoard, ProgressNote
from engine.events.wire import EVENTS_PER_ENTRY_MAX, PROGRESS

_PROGRESS: Final = PROGRESS.encode()
_MARK: Final = b'"agent.task_progress"'
ENTRY_BYTES_MAX: Final = 1024 * 1024
HOMES_MAX: Final = 100_000

Small = Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]


class _Packed(msgspec.Struct):
    """A report of progress as it stands in a packed entry; unknown fields are ignored, as everywhere."""

    type: Literal["agent.task_progress"]
    at_ms: Annotated[int, msgspec.Meta(ge=0, le=253_402_300_799_999)]
    task_id: Annotated[str, msgspec.Meta(max_length=255)] = ""
    agent_id: Annotated[str, msgspec.Meta(max_length=512)] = ""
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 1
    attempt: Small = 0
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


class _Single(msgspec.Struct):
    """The payload of a single one."""

    task_id: Annotated[str, msgspec.Meta(max_length=255)] = ""
    agent_id: Annotated[str, msgspec.Meta(max_length=512)] = ""
    epoch: Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)] = 1
    attempt: Small = 0
    progress: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None


_Stamp = Annotated[datetime, msgspec.Meta(tz=True)]
_packed: Final = msgspec.json.Decoder(Annotated[list[_Packed], msgspec.Meta(max_length=EVENTS_PER_ENTRY_MAX)])
_single: Final = msgspec.json.Decoder(_Single)


class ProgressIntake:
    """One bridge's."""

    def __init__(self, board: ProgressBoard, partitions: int) -> None:
        self._board = board
        self._partitions = partitions
        self._homes: dict[bytes, tuple[str, int]] = {}
        """(execution, partition) by how entries name the execution."""

    def take(
        self, tenant: str, partition: int, entries: Sequence[tuple[bytes, Mapping[bytes, bytes]]]
    ) -> tuple[list[bytes], list[tuple[bytes, Mapping[bytes, bytes]]]]:
        """(ids of entries that are done with, entries that the bridge is to read), each in order."""
        done: list[bytes] = []
        left: list[tuple[bytes, Mapping[bytes, bytes]]] = []
        for entry in entries:
            if entry[1] and self._took(tenant, partition, entry[1]):
                done.append(entry[0])
            else:
                left.append(entry)
        return done, left

    def _took(self, tenant: str, partition: int, fields: Mapping[bytes, bytes]) -> bool:
        body = fields.get(b"b")
        try:
            if body is not None:
                if _MARK not in body or len(body) > ENTRY_BYTES_MAX:
                    return False
                named, notes = fields.get(b"x", b""), self._read_packed(body)
            elif fields.get(b"event_type") == _PROGRESS:
                named, notes = fields.get(b"execution_id", b""), self._read_single(fields)
            else:
                return False
            execution_id, home = self._home(named)
        except (msgspec.DecodeError, ValueError):
            return False
        if home != partition:
            return False
        self._board.note_all(tenant, execution_id, notes)
        return True

    def _read_packed(self, body: bytes) -> list[ProgressNote]:
        return [
            (report.task_id, report.epoch, report.attempt, report.at_ms, report.agent_id, report.progress)
            for report in _packed.decode(body)
            if report.progress is not None
        ]

    def _read_single(self, fields: Mapping[bytes, bytes]) -> list[ProgressNote]:
        stamp = fields.get(b"timestamp", b"")
        report = _single.decode(fields.get(b"payload", b"{}"))
        if report.progress is None:
            return []
        at_ms = int(stamp) if stamp.isdigit() else round(_moment(stamp))
        return [(report.task_id, report.epoch, report.attempt, at_ms, report.agent_id, report.progress)]

    def _home(self, named: bytes) -> tuple[str, int]:
        found = self._homes.get(named)
        if found is None:
            execution_id = str(UUID(named.decode()))
            if len(self._homes) >= HOMES_MAX:
                self._homes.clear()
            found = self._homes[named] = (execution_id, partition_of(execution_id, self._partitions))
        return found


def _moment(stamp: bytes) -> float:
    """Milliseconds of an RFC 3339 timestamp. Raises msgspec.DecodeError where it is none."""
    moment: datetime = msgspec.convert(stamp.decode(), _Stamp)
    return moment.timestamp() * 1000
