"""Undoing on a whole engine: SIGKILL in the middle of it, the operators' requests, and books that prove the outcome."""

import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from examples.bookings.ledger import Ledger
from tests.acceptance.audit import of_type
from tests.acceptance.caller import Caller, Refused
from tests.acceptance.journal import assert_journal_and_history_agree
from tests.acceptance.running import RunningEngine, running_engine, until

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
STEPS = 12
SEATS = 100

CATALOGUE = f"""
agents:
  booker:
    entry: python:examples.bookings.agents:serve
    python_path: {ROOT}
    capabilities: "*"
"""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningEngine]:
    catalogue = tmp_path_factory.mktemp("saga") / "catalogue.yaml"
    catalogue.write_text(CATALOGUE)
    with running_engine(catalogue=catalogue) as engine:
        yield engine


@pytest.fixture
def caller(engine: RunningEngine) -> Caller:
    return engine.caller()


class Trip:
    """A saga of many bookings whose last step cannot be done; `extra` goes into the steps' input."""

    def __init__(self, engine: RunningEngine, caller: Caller, **extra: Any) -> None:
        folder = engine.directory / f"ledgers-{uuid.uuid4().hex}"
        folder.mkdir()
        self.ledger = Ledger(folder / "seats.sqlite")
        self.ledger.open_account("free", SEATS)
        booking = {"service": "seats", "from": "free", "to": "booked", "amount": 1, **extra}
        steps = [
            {
                "id": f"s{n}",
                "depends_on": [f"s{n - 1}"] if n else [],
                "input": booking,
                "compensation_action": f"undo_s{n}",
                "retry_policy": {"max_attempts": 3, "initial_delay_seconds": 0.3},
            }
            for n in range(STEPS)
        ]
        last = {
            "id": "last",
            "depends_on": [f"s{STEPS - 1}"],
            "input": {"service": "nothing"},
            "retry_policy": "none",
        }
        workflow_id = caller.create(*steps, last, agent_type="booker", orchestration_pattern="saga")
        started = caller.rpc("workflow.execute", workflow_id=workflow_id, input_data={"ledgers": str(folder)})
        self.execution_id: str = started["execution_id"]

    def cancelled(self) -> int:
        return sum(entry.kind == "cancel" for entry in self.ledger.entries()) // 2

    def assert_undone(self, caller: Caller) -> None:
        """By the books, which know nothing of the engine; and the engine says the same."""
        assert self.ledger.balances()["free"] == SEATS
        kinds = Counter((entry.key.rpartition("/")[2], entry.kind) for entry in self.ledger.entries())
        assert {(f"s{n}", kind): 2 for n in range(STEPS) for kind in ("book", "cancel")}.items() <= kinds.items()
        completed = of_type(caller.events(self.execution_id), "saga.compensation_completed")
        assert [event["payload"]["task_id"] for event in completed] == [f"s{n}" for n in reversed(range(STEPS))]


@pytest.mark.parametrize("victim", ["worker", "hosts"])
def test_what_is_killed_while_it_undoes_goes_on_and_each_step_is_undone_once(
    engine: RunningEngine, caller: Caller, victim: str
) -> None:
    trip = Trip(engine, caller, busy_at_first=True)
    until(lambda: trip.cancelled() >= 3, "three steps are undone")
    engine.kill_role(victim)
    done = caller.until_status(trip.execution_id, "failed")
    assert done["error_details"]["failed_task"] == "last"
    assert done["error_details"]["compensation_status"] == "completed"
    trip.assert_undone(caller)
    assert_journal_and_history_agree(engine, caller.tenant, trip.execution_id)
    assert engine.replays(caller.tenant, trip.execution_id)


def test_a_cancellation_that_is_cut_off_by_a_kill_is_carried_out(engine: RunningEngine, caller: Caller) -> None:
    trip = Trip(engine, caller, busy_at_first=True)
    until(lambda: trip.cancelled() >= 1, "undoing has begun")
    with pytest.raises(Refused):  # it does not become cancelled: it is failing already, and undoing goes on
        caller.rpc("workflow.cancel", execution_id=trip.execution_id)
    engine.kill_role("worker")
    assert caller.until_status(trip.execution_id, "failed", "cancelled")["status"] == "failed"
    trip.assert_undone(caller)


def test_operators_see_what_is_left_and_have_it_retried_or_mark_it_as_done(
    engine: RunningEngine, caller: Caller
) -> None:
    cannot = {"compensation": {"fail": "the hotel has closed down"}}
    tasks: list[dict[str, Any]] = [
        {"id": "a", "compensation_action": "undo_a"},
        {"id": "b", "depends_on": ["a"], "compensation_action": "undo_b", "input": cannot, "retry_policy": "none"},
        {"id": "c", "depends_on": ["b"], "input": {"fail": "no"}, "retry_policy": "none"},
    ]
    execution_id = caller.execute(caller.create(*tasks, orchestration_pattern="saga"))
    done = caller.until_status(execution_id, "failed")
    assert done["error_details"]["compensation_status"] == "partial"
    assert done["error_details"]["details"]["left"] == ["b", "a"]
    path = f"/executions/{execution_id}/compensations"
    left = caller.rest("GET", path).json()["items"]
    assert [(item["task_id"], item["state"], item["error_message"]) for item in left] == [
        ("b", "failed", "the hotel has closed down"),
        ("a", "waiting", ""),
    ]
    assert caller.rest("POST", f"{path}/a/retry").status_code == 409
    assert caller.rest("POST", f"{path}/b/retry").status_code == 202
    until(lambda: caller.rest("GET", path).json()["items"][0]["attempts"] == 2, "tried once more")
    until(lambda: caller.rest("GET", path).json()["items"][0]["state"] == "failed", "in vain")
    marked = caller.rest("POST", f"{path}/b/mark-done", json={"reason": "settled in court"})
    assert marked.status_code == 200
    until(
        lambda: caller.status(execution_id)["error_details"]["compensation_status"] == "completed",
        "the rest is undone",
    )
    events = of_type(caller.events(execution_id), "saga.compensation_completed")
    assert [(e["payload"]["task_id"], e["payload"]["outcome"]) for e in events] == [
        ("b", "marked_done"),
        ("a", "compensated"),
    ]
    audit = caller.rest("GET", "/audit?limit=100").json()["items"]
    operations = [item["operation"] for item in audit if item["subject_id"] == execution_id]
    assert "execution.mark_compensation_done" in operations
    assert operations.count("execution.retry_compensation") == 2
