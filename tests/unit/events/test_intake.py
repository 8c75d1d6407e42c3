"""What the bulk reader takes is what the careful reader would have taken; all else it leaves."""

from collections.abc import Mapping
from typing import Any, cast
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.streams import partition_of
from engine.events.feed import RedisFeed
from engine.events.intake import ENTRY_BYTES_MAX, ProgressIntake
from engine.events.progress import ProgressBoard, ProgressNote
from engine.events.wire import EVENTS_PER_ENTRY_MAX, WireError, decode_report
from engine.ports import MaintenanceStore

PARTITIONS = 4
EXECUTION = "00000000-0000-4000-8000-000000000001"
HOME = partition_of(EXECUTION, PARTITIONS)
Fields = Mapping[bytes, bytes]


class Notes(ProgressBoard):
    """Keeps all that is noted."""

    def __init__(self) -> None:
        super().__init__(cast(MaintenanceStore, None), cast(RedisFeed, None))
        self.noted: list[tuple[str, str, ProgressNote]] = []

    def note_all(self, tenant: str, execution_id: str, notes: Any) -> None:
        self.noted += [(tenant, execution_id, note) for note in notes]


def take(*entries: Fields, partition: int = HOME) -> tuple[list[bytes], list[bytes], Notes]:
    """Ids of those that are done, ids of those that are left, and what was noted."""
    notes = Notes()
    numbered = [(str(n).encode(), fields) for n, fields in enumerate(entries)]
    done, left = ProgressIntake(notes, PARTITIONS).take("t", partition, numbered)
    assert sorted([*done, *(entry_id for entry_id, _ in left)]) == [entry_id for entry_id, _ in numbered]
    return done, [entry_id for entry_id, _ in left], notes


def event(**fields: Any) -> dict[str, Any]:
    return {"type": "agent.task_progress", "task_id": "a", "agent_id": "w-1", "attempt": 1, "at_ms": 7, **fields}


def packed(*events: Any, execution_id: str = EXECUTION) -> Fields:
    return {b"x": execution_id.encode(), b"b": orjson.dumps(list(events))}


def single(timestamp: str = "7", **payload: Any) -> Fields:
    return {
        b"event_type": b"agent.task_progress",
        b"execution_id": EXECUTION.encode(),
        b"timestamp": timestamp.encode(),
        b"payload": orjson.dumps(payload),
    }


def test_packed_progress_is_taken_whole() -> None:
    done, left, notes = take(packed(event(progress=0.5), event(task_id="b", progress=1)))
    assert (done, left) == ([b"0"], [])
    assert notes.noted == [("t", EXECUTION, ("a", 1, 1, 7, "w-1", 0.5)), ("t", EXECUTION, ("b", 1, 1, 7, "w-1", 1.0))]


@pytest.mark.parametrize("timestamp", ["7", "1970-01-01T00:00:00.007Z", "1970-01-01T01:00:00.007+01:00"])
def test_single_progress_is_taken_with_either_form_of_time(timestamp: str) -> None:
    done, _, notes = take(single(timestamp, task_id="a", agent_id="w-1", attempt=1, progress=0.25))
    assert done == [b"0"]
    assert notes.noted == [("t", EXECUTION, ("a", 1, 1, 7, "w-1", 0.25))]


def test_reports_without_a_figure_are_done_with_and_noted_by_nobody() -> None:
    done, _, notes = take(packed(event()), single(task_id="a"))
    assert len(done) == 2
    assert notes.noted == []


@pytest.mark.parametrize(
    "fields",
    [
        packed(event(progress=0.5), {"type": "agent.task_started", "task_id": "a", "at_ms": 1}),
        packed({"type": "agent.task_completed", "task_id": "a", "at_ms": 1}),
        packed(event(progress=1.5)),
        packed(event(progress="half")),
        packed(event(at_ms=-1)),
        packed(event(at_ms="1970-01-01T00:00:00Z", progress=0.5)),
        packed(event(task_id="x" * 256)),
        packed(*[event()] * (EVENTS_PER_ENTRY_MAX + 1)),
        packed(event(agent="x" * ENTRY_BYTES_MAX)),
        packed(event(), execution_id="nobody"),
        {b"b": b"[not json", b"x": EXECUTION.encode()},
        {b"b": b'["agent.task_progress"]', b"x": EXECUTION.encode()},
        {b"x": b"\xff", b"b": orjson.dumps([event()])},
        single("yesterday", progress=0.5),
        single("1970-01-01T00:00:00", progress=0.5),
        single(progress=-1),
        {**single(), b"payload": b"[]"},
        {**single(), b"event_type": b"agent.task_started"},
        {},
    ],
)
def test_what_is_not_plain_progress_is_left_to_the_careful_reader(fields: Fields) -> None:
    done, left, notes = take(packed(event(progress=0.5)), fields, packed(event(progress=0.75)))
    assert (done, left) == ([b"0", b"2"], [b"1"])
    assert [note[5] for _, _, note in notes.noted] == [0.5, 0.75]


def test_an_entry_in_another_executions_partition_is_left() -> None:
    assert take(packed(event(progress=0.5)), partition=(HOME + 1) % PARTITIONS)[0] == []


VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 2**33),
    st.floats(-1, 2),
    st.text(max_size=5),
    st.lists(st.none(), max_size=1),
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "type": st.sampled_from(["agent.task_progress"] * 9 + ["agent.task_started"]),
                "at_ms": st.integers(0, 99),
            },
            optional=dict.fromkeys(("task_id", "agent_id", "epoch", "attempt", "progress", "other"), VALUES),
        ),
        max_size=4,
    )
)
def test_whatever_it_takes_the_careful_reader_reads_alike(events: list[dict[str, Any]]) -> None:
    fields = packed(*events)
    done, _, notes = take(fields)
    if not done:
        return
    try:
        report = decode_report(fields)
    except WireError as error:
        raise AssertionError(f"taken, and {error}") from error
    careful = [
        ("t", str(UUID(report.execution_id)), (e.task_id, e.epoch, e.attempt, e.at_ms, e.agent_id, e.progress))
        for e in report.events
        if e.progress is not None
    ]
    assert notes.noted == careful
