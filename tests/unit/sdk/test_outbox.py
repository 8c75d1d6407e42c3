import orjson
from hypothesis import given
from hypothesis import strategies as st

from orchestration_agent.outbox import Outbox
from orchestration_agent.wire import ENTRY_BYTES_MAX, ENTRY_EVENTS_MAX, Key, Route, encode_event, pack

ROUTE = Route("in:1", "x")


def key(task_id: str, execution_id: str = "x") -> Key:
    return Key(execution_id, task_id, 1, 1)


def completed(task_id: str) -> bytes:
    return encode_event("agent.task_completed", key(task_id), "w-1", 5, started_at_ms=4, result=b"1")


def events(outbox: Outbox, now: float) -> list[tuple[str, str]]:
    found = []
    for entry in outbox.collect(now):
        found += [(event["type"].removeprefix("agent.task_"), event["task_id"]) for event in orjson.loads(entry.body)]
    return found


def test_the_start_of_a_fast_task_is_not_sent_separately() -> None:
    outbox = Outbox()
    outbox.started(key("a"), ROUTE, "w-1", 1, now=0.0)
    outbox.finished(key("a"), ROUTE, completed("a"), now=0.01)
    assert events(outbox, 0.01) == [("completed", "a")]
    assert events(outbox, 1.0) == []


def test_the_start_of_a_slow_task_goes_out_after_20_ms() -> None:
    outbox = Outbox()
    outbox.started(key("a"), ROUTE, "w-1", 1, now=0.0)
    assert events(outbox, 0.019) == []
    assert outbox.next_due() == 0.02
    assert events(outbox, 0.02) == [("started", "a")]


def test_progress_goes_out_four_times_a_second_with_the_last_value() -> None:
    outbox = Outbox()
    outbox.progressed(key("a"), ROUTE, "w-1", 1, 0.1, now=0.0)
    assert events(outbox, 0.0) == [("progress", "a")]
    outbox.progressed(key("a"), ROUTE, "w-1", 2, 0.2, now=0.01)
    outbox.progressed(key("a"), ROUTE, "w-1", 3, 0.3, now=0.02)
    assert events(outbox, 0.2) == []
    (entry,) = outbox.collect(0.25)
    assert [event["progress"] for event in orjson.loads(entry.body)] == [0.3]


def test_while_the_engine_asks_for_less_reports_wait_for_company_and_progress_longer() -> None:
    outbox = Outbox()
    outbox.unhurried_until = 10.0
    outbox.progressed(key("a"), ROUTE, "w-1", 1, 0.1, now=0.0)
    assert events(outbox, 0.0) == [("progress", "a")]
    outbox.progressed(key("a"), ROUTE, "w-1", 2, 0.2, now=1.0)
    outbox.finished(key("b"), ROUTE, completed("b"), now=1.0)
    assert not outbox.urgent(1.0)
    assert outbox.next_due() == 1.25
    outbox.finished(key("c"), ROUTE, completed("c"), now=1.2)
    assert events(outbox, 1.25) == [("completed", "b"), ("completed", "c")]
    assert events(outbox, 5.0) == [("progress", "a")]


def test_progress_never_overtakes_the_start() -> None:
    outbox = Outbox()
    outbox.started(key("a"), ROUTE, "w-1", 1, now=0.0)
    outbox.progressed(key("a"), ROUTE, "w-1", 1, 0.5, now=0.001)
    assert events(outbox, 0.001) == [("started", "a"), ("progress", "a")]


def test_a_result_is_sent_again_until_it_is_consumed() -> None:
    outbox = Outbox(resend_seconds=10)
    outbox.finished(key("a"), ROUTE, completed("a"), now=0.0)
    assert events(outbox, 0.0) == [("completed", "a")]
    assert events(outbox, 9.9) == []
    assert outbox.next_due() == 10.0
    assert events(outbox, 10.0) == [("completed", "a")]
    assert events(outbox, 15.0) == []
    assert outbox.kept == 1
    outbox.consumed(key("a"))
    assert events(outbox, 30.0) == []
    assert (outbox.kept, outbox.kept_bytes) == (0, 0)


def test_a_result_is_kept_for_an_hour_at_most() -> None:
    outbox = Outbox(resend_seconds=10, kept_seconds=20)
    outbox.finished(key("a"), ROUTE, completed("a"), now=0.0)
    assert events(outbox, 10.0) == [("completed", "a"), ("completed", "a")]
    assert events(outbox, 20.0) == []
    assert outbox.kept == 0


def test_a_result_that_is_asked_for_goes_out_at_once() -> None:
    outbox = Outbox(resend_seconds=10)
    for task_id in "ab":
        outbox.finished(key(task_id), ROUTE, completed(task_id), now=0.0)
    outbox.collect(0.0)
    outbox.send_again(key("b"), 1.0)
    outbox.send_again(key("unknown"), 1.0)
    assert events(outbox, 1.0) == [("completed", "b")]
    outbox.send_all_again(2.0)
    assert sorted(events(outbox, 2.0)) == [("completed", "a"), ("completed", "b")]


def test_nothing_of_a_cancelled_attempt_is_sent_any_more() -> None:
    outbox = Outbox()
    outbox.started(key("a"), ROUTE, "w-1", 1, now=0.0)
    outbox.progressed(key("a"), ROUTE, "w-1", 1, 0.5, now=0.0)
    outbox.finished(key("b"), ROUTE, completed("b"), now=0.0)
    outbox.collect(0.0)
    outbox.started(key("c"), ROUTE, "w-1", 1, now=0.0)
    outbox.dropped(key("c"))
    outbox.execution_dropped("x")
    assert outbox.next_due() is None
    assert events(outbox, 100.0) == []


def test_dropping_one_execution_leaves_the_others() -> None:
    outbox = Outbox(resend_seconds=1)
    outbox.finished(key("a"), ROUTE, completed("a"), now=0.0)
    outbox.finished(key("b", "y"), Route("in:2", "y"), completed("b"), now=0.0)
    outbox.collect(0.0)
    outbox.execution_dropped("x")
    assert events(outbox, 1.0) == [("completed", "b")]


def test_clearing_leaves_nothing() -> None:
    outbox = Outbox()
    outbox.finished(key("a"), ROUTE, completed("a"), now=0.0)
    outbox.returned(key("b"), ROUTE, "w-1", 1)
    assert outbox.urgent(0.0)
    outbox.clear()
    assert not outbox.urgent(1e9)
    assert (outbox.collect(1e9), outbox.kept, outbox.kept_bytes) == ([], 0, 0)


def test_a_completion_in_a_chain_waits_a_moment_for_company() -> None:
    outbox = Outbox()
    outbox.finished(key("a"), ROUTE, completed("a"), now=1.0, held_seconds=0.005)
    assert not outbox.urgent(1.004)
    assert outbox.next_due() == 1.005
    assert outbox.urgent(1.005)
    outbox.finished(key("b"), ROUTE, completed("b"), now=1.001, held_seconds=0.005)
    assert outbox.next_due() == 1.005
    outbox.finished(key("c"), ROUTE, completed("c"), now=1.002)
    assert outbox.urgent(1.002)
    assert events(outbox, 1.002) == [("completed", "a"), ("completed", "b"), ("completed", "c")]
    assert not outbox.urgent(2.0)


def test_a_kept_result_can_be_looked_up_until_it_is_consumed() -> None:
    outbox = Outbox()
    outbox.finished(key("a"), ROUTE, completed("a"), now=0.0)
    failed = encode_event("agent.task_failed", key("b"), "w-1", 5, error={"code": "X"})
    outbox.finished(key("b"), ROUTE, failed, now=0.0, completed=False)
    assert [outbox.kept_result(key(task_id)) for task_id in "abc"] == [b"1", None, None]
    outbox.consumed(key("a"))
    assert outbox.kept_result(key("a")) is None


def test_events_of_one_execution_share_an_entry_and_executions_do_not() -> None:
    outbox = Outbox()
    for task_id in "abc":
        outbox.finished(key(task_id), ROUTE, completed(task_id), now=0.0)
    outbox.returned(key("d", "y"), Route("in:2", "y"), "w-1", 1)
    entries = outbox.collect(0.0)
    assert [(e.reply_to, e.execution_id, len(orjson.loads(e.body))) for e in entries] == [
        ("in:1", "x", 3),
        ("in:2", "y", 1),
    ]


@given(st.lists(st.integers(1, 200_000), max_size=30), st.integers(0, 1200))
def test_packing_keeps_every_event_in_order_within_the_limits(sizes: list[int], small: int) -> None:
    given_events = [b'"' + b"x" * size + b'"' for size in sizes] + [b"1"] * small
    packed = pack(given_events)
    assert [item for body in packed for item in orjson.loads(body)] == [orjson.loads(e) for e in given_events]
    for body in packed:
        count = len(orjson.loads(body))
        assert count <= ENTRY_EVENTS_MAX
        assert count == 1 or len(body) <= ENTRY_BYTES_MAX


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "finish", "consume", "wait", "progress"]), st.sampled_from("abc")),
        max_size=40,
    )
)
def test_every_result_that_is_not_consumed_goes_out_and_kept_bytes_add_up(steps: list[tuple[str, str]]) -> None:
    outbox, now, sent, finished, consumed = Outbox(resend_seconds=10), 0.0, set(), set(), set()
    for kind, task_id in steps:
        now += 0.5
        if kind == "start" and task_id not in finished:
            outbox.started(key(task_id), ROUTE, "w-1", 1, now)
        elif kind == "progress" and task_id not in finished:
            outbox.progressed(key(task_id), ROUTE, "w-1", 1, 0.5, now)
        elif kind == "finish" and task_id not in finished:
            finished.add(task_id)
            outbox.finished(key(task_id), ROUTE, completed(task_id), now)
        elif kind == "consume" and task_id in sent:
            consumed.add(task_id)
            outbox.consumed(key(task_id))
        elif kind == "wait":
            now += 10
        collected = events(outbox, now)
        sent |= {t for k, t in collected if k == "completed"}
        assert not {t for k, t in collected if k == "completed"} & consumed
        due = outbox.next_due()
        assert due is None or due > now
    assert sent == finished
    assert outbox.kept_bytes == sum(len(completed(t)) for t in finished - consumed)
