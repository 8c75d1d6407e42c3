"""Published facts: packed in order, bounded, and read again as they were."""

from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.views import ExecutionEvent
from engine.events import facts
from engine.events.facts import Pack, facts_of, lines_of, packs_of, rfc3339, stored_lines

Json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab\t\n\\", max_size=4), inner, max_size=3),
    max_leaves=10,
)
Payloads = st.lists(st.dictionaries(st.text("abc\t\n", max_size=4), Json, max_size=4), max_size=30)


def entry(pack: Pack) -> dict[bytes, bytes]:
    return {b"x": b"e", b"w": b"w", b"t": b"t", b"n": str(pack.first_sequence).encode(), b"b": pack.body}


@given(Payloads, st.integers(1, 7), st.integers(1, 400), st.integers(1, 10**9))
def test_what_is_packed_is_read_again_in_order_and_numbered(
    payloads: list[dict[str, object]], facts_max: int, bytes_max: int, first: int
) -> None:
    events = [AuditEvent(type=AuditEventType.TASK_STARTED, at_ms=1_700_000_000_000 + n, payload=payload)
              for n, payload in enumerate(payloads)]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(facts, "PACK_FACTS_MAX", facts_max)
        patch.setattr(facts, "PACK_BYTES_MAX", bytes_max)
        packs = packs_of(first, lines_of(events, [orjson.dumps(event.payload) for event in events], 3))
    read = [fact for pack in packs for fact in facts_of(entry(pack))]
    assert [fact.sequence for fact in read] == list(range(first, first + len(events)))
    assert [fact.payload for fact in read] == payloads
    assert {(fact.epoch, fact.event_type) for fact in read} <= {(3, "agent.task_started")}
    assert all(len(facts_of(entry(pack))) <= facts_max for pack in packs)
    assert all(len(pack.body) <= bytes_max or len(facts_of(entry(pack))) == 1 for pack in packs)


def test_a_stored_fact_has_the_line_that_its_tick_has_written() -> None:
    moment = datetime(2026, 2, 3, 4, 5, 6, 789_999, tzinfo=UTC)
    stored = ExecutionEvent(
        sequence=4, epoch=2, event_type="task.completed", timestamp=moment, recorded_at=moment, payload={"a": [1.5]},
        trace_id=uuid4(),
    )  # fmt: skip
    event = AuditEvent(type=AuditEventType.TASK_COMPLETED, at_ms=int(moment.timestamp() * 1000), payload={"a": [1.5]})
    assert stored_lines([stored]) == lines_of([event], [b'{"a":[1.5]}'], 2)
    assert stored_lines([stored]) == [b'task.completed\t2026-02-03T04:05:06.789Z\t2\t{"a":[1.5]}\n']


def test_an_events_id_names_execution_and_sequence() -> None:
    [fact] = facts_of(entry(Pack(7, b"a\t2026-01-01T00:00:00.000Z\t1\t{}\n")))
    assert fact.event_id == "e:7"


@pytest.mark.parametrize("body", [b"only two\tparts\n", b"a\tb\tno number\t{}\n", b"a\tb\t1\tnot json\n"])
def test_what_is_no_pack_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        facts_of(entry(Pack(1, body)))


def test_times_are_written_to_the_millisecond() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert rfc3339(4_102_444_799_007) == "2099-12-31T23:59:59.007Z"
