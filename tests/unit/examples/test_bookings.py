"""The services' books: bookings and cancellations by key, once each, in whatever order and however often they come."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.bookings import __main__ as demo
from examples.bookings.agents import serve
from examples.bookings.ledger import CancelledBeforeError, Ledger
from orchestration_agent import Compensates, NeverHappened, Task, TaskFailed
from planner.parse import parse_definition


def opened(folder: Path) -> Ledger:
    ledger = Ledger(folder / "airline.sqlite")
    ledger.open_account("free seats", 12)
    ledger.open_account("booked seats", 0)
    return ledger


def task(folder: Path, *, attempt: int = 1, undo: bool = False, **extra: Any) -> Task:
    given_input = {"service": "airline", "from": "free seats", "to": "booked seats", "amount": 2, **extra}
    return Task(
        task_id="compensate:flight" if undo else "flight",
        agent_id="airline-1",
        action="flight",
        execution_id="e",
        report=lambda _: None,
        input=given_input,
        execution_input={"ledgers": str(folder)},
        attempt=attempt,
        compensates=Compensates(task_id="flight", key="e/flight") if undo else None,
    )


def test_a_booking_and_its_cancellation_take_effect_once(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    assert serve(task(tmp_path))["first"] is True
    assert serve(task(tmp_path))["first"] is False
    assert ledger.balances() == {"booked seats": 2, "free seats": 10, "opening": -12}
    serve(task(tmp_path, undo=True))
    with pytest.raises(NeverHappened):
        serve(task(tmp_path, undo=True))
    assert ledger.balances() == {"booked seats": 0, "free seats": 12, "opening": -12}


def test_a_booking_that_comes_after_its_cancellation_is_refused(tmp_path: Path) -> None:
    opened(tmp_path)
    with pytest.raises(NeverHappened):
        serve(task(tmp_path, undo=True))
    with pytest.raises(TaskFailed) as refused:
        serve(task(tmp_path))
    assert refused.value.code == "CANCELLED_BEFORE"


def test_a_busy_service_cancels_when_it_is_asked_again(tmp_path: Path) -> None:
    opened(tmp_path)
    serve(task(tmp_path, busy_at_first=True))
    with pytest.raises(TaskFailed) as busy:
        serve(task(tmp_path, undo=True, busy_at_first=True))
    assert busy.value.retryable
    serve(task(tmp_path, undo=True, attempt=2, busy_at_first=True))


def test_a_service_that_loses_its_answer_has_booked_all_the_same(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    silent = task(tmp_path, loses_its_answer=True)
    silent.cancel()
    serve(silent)
    assert ledger.balances()["booked seats"] == 2


def test_what_fails_within_a_transaction_leaves_nothing(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    before = ledger.entries()
    with pytest.raises(OverflowError):
        ledger.book("k", "free seats", "booked seats", 2**70)
    assert ledger.entries() == before
    assert ledger.book("k", "free seats", "booked seats", 1)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["book", "cancel"]), st.sampled_from("abc")), max_size=12))
def test_whatever_comes_in_whatever_order_the_books_agree(calls: list[tuple[str, str]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ledger = opened(Path(folder))
        cancelled: set[str] = set()
        booked: set[str] = set()
        for what, key in calls:
            if what == "cancel":
                assert ledger.cancel(key) is (key in booked and key not in cancelled)
                cancelled.add(key)
                continue
            try:
                ledger.book(key, "free seats", "booked seats", 1)
                booked.add(key)
            except CancelledBeforeError:
                assert key in cancelled
        assert sum(ledger.balances().values()) == 0
        assert ledger.balances()["booked seats"] == len(booked - cancelled)


def test_the_workflow_is_valid_and_the_demo_looks_at_its_services() -> None:
    document = yaml.safe_load((demo.HERE / "workflow.yaml").read_text())
    parsed = parse_definition(document)
    services = {task.input["service"]: task.id for task in parsed.tasks if task.compensation_action}
    assert services == demo.STEPS
    assert set(demo.OPENING) == set(demo.STEPS)


class FinishedRun:
    """What `show` looks at, of a run that has ended; it stands for `examples.running.Run`."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.definition = {"name": "bookings"}
        self.said: list[str] = []
        self.undone = ["car", "flight", "hotel", "money"]
        details = {"failed_task": "car", "error_message": "not done", "compensation_status": "completed"}
        self.status = {"error_details": details}

    def say(self, text: str = "") -> None:
        self.said.append(text)

    def events(self) -> list[dict[str, Any]]:
        busy = {"task_id": "hotel", "error": {"message": "busy"}}
        completed = [("saga.compensation_completed", {"task_id": name}) for name in self.undone]
        events = [*completed, ("saga.compensation_retry_scheduled", busy)]
        return [{"event_type": kind, "payload": payload} for kind, payload in events]


@pytest.mark.parametrize("forgotten", [None, "hotel"])
def test_the_demo_ends_well_only_when_the_books_agree(tmp_path: Path, forgotten: str | None) -> None:
    run: Any = FinishedRun(tmp_path)
    demo.open_books(run)
    demo.open_books(run)  # a second demo on the same data begins with new books
    folder = Path(demo.input_data(run)["ledgers"])
    for service, step in demo.STEPS.items():
        source, target = list(demo.OPENING[service])
        ledger = Ledger(folder / f"{service}.sqlite")
        ledger.book(f"x/{step}", source, target, 1)
        if service != forgotten:
            ledger.cancel(f"x/{step}")
    assert demo.show(run) is (forgotten is None)
    assert ("The books do not agree!" in run.said) is (forgotten is not None)
    assert "hotel had to be tried again: busy." in run.said
