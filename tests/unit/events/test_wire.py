"""Whatever stands in an entry, decoding answers a report or says why not: a reader that any agent can stop is none."""

import contextlib
import string
import zlib
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.events import AgentEvent, AgentEventType
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX
from engine.events import wire
from engine.events.wire import (
    ENTRY_BYTES_MAX,
    EVENTS_PER_ENTRY_MAX,
    NESTING_MAX,
    WireError,
    decode_report,
    encode_events,
    encode_host_entry,
)

EXECUTION = str(uuid4())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(string.ascii_letters, max_size=5), inner),
    max_leaves=15,
)  # fmt: skip
events = st.fixed_dictionaries(
    {
        "type": st.sampled_from([t.value for t in AgentEventType]),
        "at_ms": st.integers(0, 253_402_300_799_999),
        "task_id": st.text(string.ascii_letters + "äß→", max_size=50),
        "agent_id": st.text(string.ascii_letters, max_size=50),
        "epoch": st.integers(1, 2**31 - 1),
        "attempt": st.integers(0, 2**31 - 1),
        "result": json_values,
    },
    optional={"host_id": st.text(string.ascii_letters, max_size=20), "started_at_ms": st.integers(0, 10**12)},
)


def packed(*documents: dict[str, Any], execution_id: str = EXECUTION) -> dict[bytes, bytes]:
    return {b"x": execution_id.encode(), b"b": encode_events(list(documents))}


def single(payload: Any, **fields: str) -> dict[bytes, bytes]:
    base = {"event_type": "agent.task_completed", "execution_id": EXECUTION, "timestamp": "2026-01-02T03:04:05Z"}
    encoded = {name.encode(): value.encode() for name, value in {**base, **fields}.items()}
    return {**encoded, b"payload": payload if isinstance(payload, bytes) else orjson.dumps(payload)}


def reason(fields: dict[bytes, bytes]) -> str:
    with pytest.raises(WireError) as caught:
        decode_report(fields)
    return str(caught.value)


@given(st.lists(events, max_size=5), st.uuids())
def test_packed_reports_come_back_as_they_were_written(documents: list[dict[str, Any]], execution_id: UUID) -> None:
    report = decode_report(packed(*documents, execution_id=str(execution_id)))
    assert report.execution_id == str(execution_id)
    for document, event in zip(documents, report.events, strict=True):
        slim = event.to_event()
        assert {name: getattr(slim, name) for name in document} == document


@given(events)
def test_single_reports_say_the_same_as_packed_ones(document: dict[str, Any]) -> None:
    payload = {name: value for name, value in document.items() if name not in ("type", "at_ms")}
    report = decode_report(single(payload, event_type=document["type"], timestamp=str(document["at_ms"])))
    assert report.events == decode_report(packed(document)).events


@given(st.dictionaries(
    st.sampled_from([b"x", b"b", b"event_type", b"execution_id", b"timestamp", b"payload", b"other"]),
    st.binary(max_size=60)
    | st.just(EXECUTION.encode())
    | json_values.map(orjson.dumps)
    | st.sampled_from([b"NaN", b"[1e999]", b'[{"at_ms":1e308}]', b'{"at_ms":"9999-99-99"}', b"agent.task_failed"]),
))  # fmt: skip
def test_no_entry_raises_anything_but_a_refusal(fields: dict[bytes, bytes]) -> None:
    with contextlib.suppress(WireError):
        assert UUID(decode_report(fields).execution_id)


spoilt_events = events.flatmap(
    lambda event: st.dictionaries(st.sampled_from(list(event)), json_values).map(lambda other: {**event, **other})
)


@given(st.lists(spoilt_events, max_size=3))
def test_fields_of_any_type_are_taken_or_refused(documents: list[dict[str, Any]]) -> None:
    with contextlib.suppress(WireError):
        report = decode_report(packed(*documents))
        assert orjson.dumps([event.to_event().model_dump(mode="json") for event in report.events])


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, "execution_id"),
        ({b"x": b"123", b"b": b"[]"}, "execution_id is missing or not a UUID"),
        ({b"x": b"\xff\xfe", b"b": b"[]"}, "execution_id is missing or not a UUID"),
        ({b"x": EXECUTION.encode(), b"b": b"{"}, "b is not JSON"),
        ({b"x": EXECUTION.encode(), b"b": b"{}"}, "valid list"),
        ({b"x": EXECUTION.encode(), b"b": b"[NaN]"}, "b is not JSON"),
        (packed({"type": "agent.task_completed"}), "0.at_ms: Field required"),
        (packed({"type": "agent.task_invented", "at_ms": 1}), "0.type"),
        (packed({"type": "agent.task_completed", "at_ms": 1, "attempt": 2**31}), "0.attempt"),
        (packed({"type": "agent.task_completed", "at_ms": -1}), "0.at_ms"),
        (packed({"type": "agent.task_completed", "at_ms": "2026-01-01T00:00:00"}), "0.at_ms"),
        (packed({"type": "agent.task_progress", "at_ms": 1, "progress": 1.5}), "0.progress"),
        (single(b"{"), "payload is not JSON"),
        (single([]), "payload is not a JSON object"),
        (single({}, event_type="nonsense"), "type"),
        (single({}, timestamp="yesterday"), "at_ms"),
        (single({}, execution_id="nobody"), "execution_id"),
    ],
)
def test_a_refusal_says_where_and_why(fields: dict[bytes, bytes], expected: str) -> None:
    if not fields:
        assert reason(fields)
    else:
        assert expected in reason(fields)


def test_more_events_than_an_entry_may_hold_are_refused() -> None:
    event = {"type": "agent.task_started", "at_ms": 1}
    assert len(decode_report(packed(*[event] * EVENTS_PER_ENTRY_MAX)).events) == EVENTS_PER_ENTRY_MAX
    assert "at most" in reason(packed(*[event] * (EVENTS_PER_ENTRY_MAX + 1)))


def test_an_entry_of_monstrous_size_is_refused_unread() -> None:
    assert "bytes: at most" in reason({b"x": EXECUTION.encode(), b"b": b"[" * (ENTRY_BYTES_MAX + 1)})


def nested(levels: int) -> Any:
    value: Any = []
    for _ in range(levels - 1):
        value = [value]
    return value


@pytest.mark.parametrize("form", ["packed", "single"])
def test_a_result_nested_too_deep_fails_its_attempt_and_spares_the_reports_beside_it(form: str) -> None:
    deep = {"type": "agent.task_completed", "at_ms": 1, "task_id": "deep", "result": nested(NESTING_MAX + 1)}
    if form == "packed":
        sound = {"type": "agent.task_completed", "at_ms": 1, "task_id": "sound", "result": nested(NESTING_MAX)}
        bad, good = decode_report(packed(deep, sound)).events
        assert good.result == nested(NESTING_MAX)
    else:
        [bad] = decode_report(single({"task_id": "deep", "result": deep["result"]})).events
    assert bad.type is AgentEventType.TASK_FAILED
    assert bad.result is None
    assert bad.error is not None
    assert (bad.error.code, bad.error.retryable) == ("RESULT_TOO_DEEP", False)


def test_many_flat_brackets_are_not_depth() -> None:
    result: list[list[int]] = [[] for _ in range(1000)]
    [event] = decode_report(packed({"type": "agent.task_completed", "at_ms": 1, "result": result})).events
    assert event.result == result


def test_a_failure_keeps_its_code_and_a_message_of_bounded_length() -> None:
    document = {"type": "agent.task_failed", "at_ms": 1, "error": {"code": "X", "message": "m" * 9_000, "more": 1}}
    [event] = decode_report(packed(document)).events
    error = event.to_event().error
    assert error is not None
    assert (error.code, error.message, error.retryable) == ("X", "m" * ERROR_MESSAGE_LENGTH_MAX, True)


def test_times_may_be_rfc_3339() -> None:
    document = {"type": "agent.task_started", "at_ms": "2026-01-02T03:04:05.678+01:00", "started_at_ms": 7.0}
    [event] = decode_report(packed(document)).events
    assert (event.at_ms, event.started_at_ms) == (1_767_319_445_678, 7)


def test_a_hosts_entry_is_json() -> None:
    assert orjson.loads(encode_host_entry({"v": 1})) == {"v": 1}


def packed_spawn(*spawns: Any) -> list[AgentEvent]:
    events = [
        {"type": "agent.task_completed", "at_ms": 1, "task_id": f"t{n}", "agent_id": "a", "attempt": 1, "spawn": spawn}
        for n, spawn in enumerate(spawns)
    ]
    fields = {b"x": b"00000000-0000-4000-8000-000000000001", b"b": orjson.dumps(events)}
    return [event.to_event() for event in decode_report(fields).events]


def test_added_tasks_come_with_the_completion() -> None:
    (event,) = packed_spawn([{"id": "n"}])
    assert event.spawn == ({"id": "n"},)
    (event,) = packed_spawn([])
    assert event.spawn is None


@pytest.mark.parametrize(
    ("spawn", "reason"),
    [
        ("n", "not a list of tasks"),
        ([1], "not a list of tasks"),
        ([{"id": "x" * 200_000}], "at most 131072 are taken"),
    ],
)
def test_added_tasks_that_cannot_be_taken_fail_the_attempt_for_good(spawn: Any, reason: str) -> None:
    (event,) = packed_spawn(spawn)
    assert event.type is AgentEventType.TASK_FAILED
    assert event.error is not None
    assert (event.error.code, event.error.retryable) == ("SPAWN_REFUSED", False)
    assert reason in event.error.message
    assert event.spawn is None


def test_added_tasks_that_are_nested_too_deep_fail_the_attempt() -> None:
    deep: Any = []
    for _ in range(120):
        deep = [deep]
    (event,) = packed_spawn([{"id": deep}])
    assert event.error is not None
    assert "nested" in event.error.message


def test_of_too_many_added_tasks_in_one_entry_the_last_are_to_be_reported_again() -> None:
    events = packed_spawn(*([{"id": "x" * 100_000}] for _ in range(3)))
    assert [event.type for event in events] == [
        AgentEventType.TASK_COMPLETED,
        AgentEventType.TASK_COMPLETED,
        AgentEventType.TASK_FAILED,
    ]
    assert events[2].error is not None
    assert events[2].error.retryable


def test_only_a_completion_adds_tasks() -> None:
    event = {"type": "agent.task_started", "at_ms": 1, "task_id": "t", "agent_id": "a", "spawn": [{"id": "n"}]}
    fields = {b"x": b"00000000-0000-4000-8000-000000000001", b"b": orjson.dumps([event])}
    assert decode_report(fields).events[0].to_event().spawn is None


def test_a_compressed_list_is_read_as_a_plain_one() -> None:
    body = b'[{"type":"agent.task_started","task_id":"a","at_ms":1}]'
    fields = {b"x": EXECUTION.encode(), b"z": zlib.compress(body)}
    assert wire.inflated(fields) == {b"x": EXECUTION.encode(), b"b": body}
    assert wire.inflated({b"b": body}) == {b"b": body}
    assert decode_report(wire.inflated(fields)).events[0].task_id == "a"


@pytest.mark.parametrize(
    ("packed", "reason"),
    [
        (b"nothing", "not what zlib"), (zlib.compress(b"[]")[:-3], "cut off"), (zlib.compress(b"[]") + b"x", "goes on"),
        (zlib.compress(b" " * (wire.ENTRY_BYTES_MAX + 1)), "more than"),
    ],
)  # fmt: skip
def test_what_is_badly_compressed_or_swells_up_is_refused(packed: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        wire.inflated({b"x": EXECUTION.encode(), b"z": packed})
