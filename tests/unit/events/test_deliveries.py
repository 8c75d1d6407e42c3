"""What the bridge may send, and when: the credit, the order, the repetition."""

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.limits import SIGNAL_BYTES_MAX, SIGNALS_UNCOVERED_BYTES_MAX, SIGNALS_UNCOVERED_MAX
from engine.contracts.streams import entry_order
from engine.events.deliveries import REPEAT_AFTER_SECONDS, UNHURRIED_SECONDS, Deliveries, Held


def held(n: int, *, size: int = 100, at: float = 0.0, kind: AgentEventType = AgentEventType.TASK_COMPLETED) -> Held:
    event = AgentEvent(type=kind, at_ms=1)
    return Held(InboxBatch(entry_id=f"{n}-0", partition=0, fence=1, low="0-0", events=(event,)), size, at)


def deliveries(*items: Held) -> Deliveries:
    made = Deliveries("t", "x", 0)
    for item in items:
        assert made.add(item)
    return made


def numbers(taken: list[Held]) -> list[int]:
    return [entry_order(h.batch.entry_id)[0] for h in taken]


def test_entries_are_in_the_order_of_their_ids_whatever_order_they_came_in() -> None:
    made = deliveries(held(10), held(9), held(100), held(2))
    assert numbers(made.due(1.0)) == [2, 9, 10, 100]
    assert made.low == "2-0"


def test_an_entry_is_held_once() -> None:
    made = deliveries(held(1))
    assert not made.add(held(1))
    made.covered(["1-0", "7-0"])
    assert made.add(held(1))


def test_low_is_the_oldest_entry_that_is_not_covered() -> None:
    made = deliveries(held(1), held(2), held(3))
    made.covered(["2-0"])
    assert made.low == "1-0"
    made.covered(["1-0"])
    assert made.low == "3-0"
    made.covered(["3-0"])
    assert made.low == "0-0"


def test_nothing_is_due_while_a_signal_is_being_sent_or_a_failed_one_waits() -> None:
    made = deliveries(held(1))
    made.sending = True
    assert made.due(1.0) == []
    made.sending, made.retry_at = False, 2.0
    assert made.due(1.9) == []
    assert numbers(made.due(2.0)) == [1]


def test_what_is_not_covered_in_time_is_due_again_each_time_later() -> None:
    made = deliveries(held(1))
    now, waits = 0.0, []
    for _ in range(4):
        made.mark_sent(made.due(now), now)
        sent_at = now
        while not made.due(now):
            now += 0.5
        waits.append(now - sent_at)
    assert waits == [5.5, 10.5, 20.5, 40.5]
    assert REPEAT_AFTER_SECONDS == 5.0


def test_waiting_never_grows_without_end() -> None:
    item = held(1)
    item.sends, item.delivered_at = 1_000_000, 0.0
    assert item.overdue(601.0)
    assert not item.overdue(599.0)


def test_what_was_handed_over_and_not_covered_is_due_after_five_seconds() -> None:
    item = held(1)
    item.delivered_at = 0.0
    made = deliveries(item)
    assert made.due(5.0) == []
    assert numbers(made.due(5.1)) == [1]


def test_started_alone_waits_a_tenth_of_a_second_unless_something_urgent_comes() -> None:
    first = held(1, kind=AgentEventType.TASK_STARTED, at=10.0)
    made = deliveries(first)
    assert UNHURRIED_SECONDS == 0.1
    assert made.due(10.09) == []
    assert numbers(made.due(10.11)) == [1]
    made.add(held(2, at=10.05))
    assert numbers(made.due(10.05)) == [1, 2]


def test_handing_over_is_for_when_nothing_is_under_way() -> None:
    made = deliveries()
    assert made.may_hand_over()
    made.sending = True
    assert not made.may_hand_over()
    made.sending = False
    item = held(1)
    made.add(item)
    assert not made.may_hand_over(), "it waits and would be overtaken"
    item.delivered_at = 1.0
    assert made.may_hand_over(), "it was handed over too"
    item.signal = 1
    assert not made.may_hand_over(), "its signal is not covered"


def test_a_signal_carries_at_most_its_bytes_and_an_entry_above_them_goes_alone() -> None:
    half = SIGNAL_BYTES_MAX // 2
    made = deliveries(held(1, size=half), held(2, size=half), held(3, size=1))
    assert numbers(made.due(1.0)) == [1, 2]
    large = deliveries(held(1, size=SIGNAL_BYTES_MAX + 1), held(2))
    assert numbers(large.due(1.0)) == [1]
    large.mark_sent(large.due(1.0), 1.0)
    assert numbers(large.due(1.0)) == [2]


def test_a_large_entry_waits_until_nothing_is_under_way() -> None:
    made = deliveries(held(1), held(2, size=SIGNAL_BYTES_MAX + 1))
    made.mark_sent(made.due(1.0), 1.0)
    assert made.due(1.0) == []
    made.covered(["1-0"])
    assert numbers(made.due(1.0)) == [2]


def test_sixteen_signals_are_the_most_that_may_be_uncovered() -> None:
    made = deliveries()
    for n in range(1, 40):
        made.add(held(n))
        if taken := made.due(1.0):
            made.mark_sent(taken, 1.0)
    assert made.signals == SIGNALS_UNCOVERED_MAX
    made.covered(["1-0"])
    assert numbers(made.due(1.0)) == list(range(17, 40))


def test_without_credit_it_does_not_count_again_for_every_new_entry() -> None:
    made = deliveries()
    for n in range(1, 17):
        made.add(held(n))
        made.mark_sent(made.due(1.0), 1.0)
    made.add(held(17))
    assert made.due(1.0) == []
    assert made.full_until > 1.0
    assert made.due(7.0), "overdue by then"


class Credit(RuleBasedStateMachine):
    """Entries come, are sent, are covered; time passes; whatever happens, the credit and the order are kept."""

    def __init__(self) -> None:
        super().__init__()
        self.made = Deliveries("t", "x", 0)
        self.next = 1
        self.now = 100.0
        self.sizes: dict[str, int] = {}
        self.covered: set[str] = set()

    @rule(size=st.integers(1, 400_000), kind=st.sampled_from(AgentEventType))
    def arrive(self, size: int, kind: AgentEventType) -> None:
        item = held(self.next, size=size, at=self.now, kind=kind)
        self.sizes[item.batch.entry_id] = size
        self.next += 1
        self.made.add(item)

    @rule()
    def send(self) -> None:
        taken = self.made.due(self.now)
        if not taken:
            return
        ids = [entry_order(h.batch.entry_id) for h in taken]
        assert ids == sorted(set(ids))
        assert len(taken) == 1 or sum(h.size_bytes for h in taken) <= SIGNAL_BYTES_MAX
        fresh = [h for h in self.made.held.values() if h.delivered_at is None and h not in taken]
        assert all(entry_order(h.batch.entry_id) > ids[0] for h in fresh), "no new entry overtakes an older one"
        self.made.mark_sent(taken, self.now)

    @rule(seconds=st.floats(0.01, 8.0))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule(data=st.data())
    def cover(self, data: Any) -> None:
        sent = [h.batch.entry_id for h in self.made.held.values() if h.delivered_at is not None]
        if sent:
            entry_id = data.draw(st.sampled_from(sent))
            self.covered.add(entry_id)
            self.made.covered([entry_id])

    @invariant()
    def credit_is_kept(self) -> None:
        under_way = [h for h in self.made.held.values() if h.signal is not None and not h.overdue(self.now)]
        assert len({h.signal for h in under_way}) <= SIGNALS_UNCOVERED_MAX
        total = sum(h.size_bytes for h in under_way)
        assert total <= SIGNALS_UNCOVERED_BYTES_MAX or len({h.signal for h in under_way}) == 1

    @invariant()
    def low_is_sound_and_nothing_is_forgotten(self) -> None:
        open_ids = [entry_id for entry_id in self.sizes if entry_id not in self.covered]
        assert list(self.made.held) == open_ids
        assert self.made.low == (open_ids[0] if open_ids else "0-0")


TestCredit = Credit.TestCase
TestCredit.settings = settings(max_examples=60, stateful_step_count=60, deadline=None)


def test_a_start_whose_timeout_is_far_waits_as_long_as_it_may() -> None:
    patient = held(1, kind=AgentEventType.TASK_STARTED, at=10.0)
    patient.patience_seconds = 8.0
    made = deliveries(patient)
    assert made.due(17.9) == []
    assert numbers(made.due(18.1)) == [1]
    assert made.due(18.1, unhurried_seconds=11.0) == [], "there is much to do"
    made.add(held(2, kind=AgentEventType.TASK_STARTED, at=12.0))
    assert numbers(made.due(12.2)) == [1, 2], "one that cannot wait takes the other along"
