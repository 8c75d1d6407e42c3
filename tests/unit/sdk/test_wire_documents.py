import orjson
import pytest

from orchestration_agent.wire import Key, MalformedEntry, decode_entry, encode_event


def decode(document: object) -> object:
    return decode_entry({b"b": orjson.dumps(document)})


def test_absent_fields_mean_nothing_to_do() -> None:
    entry = decode_entry({b"b": b'{"v": 1, "execution_id": "x", "unknown": 1}'})
    assert (entry.assign, entry.consumed, entry.cancel, entry.control, entry.input) == ([], [], [], None, {})
    assert not entry.renew


def test_keys_carry_the_execution() -> None:
    entry = decode_entry({b"b": b'{"execution_id": "x", "consumed": [["a", 1, 2]], "cancel": [["b", 3, 4]]}'})
    assert entry.consumed == [Key("x", "a", 1, 2)]
    assert entry.cancel == [Key("x", "b", 3, 4)]


def test_pressure_needs_no_execution_and_must_be_whole() -> None:
    entry = decode_entry({b"b": b'{"v": 1, "pressure": {"level": "slow", "until_ms": 5}}'})
    assert entry.pressure == ("slow", 5)
    with pytest.raises(MalformedEntry):
        decode_entry({b"b": b'{"v": 1, "pressure": "high"}'})


def test_a_renewal_needs_no_execution() -> None:
    assert decode_entry({b"b": b'{"v": 1, "renew": true}'}).renew


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"v": 2, "execution_id": "x"},
        {"v": 1},
        {"execution_id": "x", "control": "stop"},
        {"execution_id": "x", "consumed": [["a"]]},
        {"execution_id": "x", "assign": [{"task_id": "a"}], "reply_to": "in"},
        {"execution_id": "x", "assign": [{"task_id": 1, "agent_id": "w", "epoch": 1, "attempt": 1}], "reply_to": "in"},
        {"execution_id": "x", "assign": [{"task_id": "a", "agent_id": "w", "epoch": 1, "attempt": 1}]},
        {
            "execution_id": "x",
            "reply_to": "in",
            "assign": [{"task_id": "b", "agent_id": "w", "epoch": 1, "attempt": 1, "after": "a"}],
        },
    ],
)
def test_what_is_not_understood_is_refused(document: object) -> None:
    with pytest.raises(MalformedEntry):
        decode(document)


def test_an_entry_without_its_field_is_refused() -> None:
    with pytest.raises(MalformedEntry):
        decode_entry({b"other": b"1"})
    with pytest.raises(MalformedEntry):
        decode_entry({b"b": b"{"})


def test_events_have_the_documented_fields() -> None:
    event = encode_event(
        "agent.task_completed", Key("x", "a", 2, 3), "w-1", 9, started_at_ms=8, result=b'{"n":1}', spawn=b"[]"
    )
    assert orjson.loads(event) == {
        "type": "agent.task_completed", "task_id": "a", "agent_id": "w-1", "epoch": 2, "attempt": 3, "at_ms": 9,
        "started_at_ms": 8, "result": {"n": 1}, "spawn": [],
    }  # fmt: skip
