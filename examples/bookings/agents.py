"""The four services. Each books a step into its own ledger, and cancels it again; two of them are not at their best.

The car rental books and then loses its answer, so that nobody knows whether it did. The hotel is busy when it is asked
to cancel for the first time.
"""

import time
from pathlib import Path
from typing import Any, Final

from examples.bookings.ledger import CancelledBeforeError, Ledger
from orchestration_agent import NeverHappened, Task, TaskFailed

SILENCE_SECONDS: Final = 30.0
"""Longer than anybody waits for the lost answer."""


def serve(task: Task) -> dict[str, Any]:
    """Every action of every service: `<service>` books, and its compensation cancels."""
    ledger = Ledger(Path(task.execution_input["ledgers"]) / f"{task.input['service']}.sqlite")
    if task.compensates is not None:
        return cancel(task, ledger, task.compensates.key)
    return book(task, ledger)


def book(task: Task, ledger: Ledger) -> dict[str, Any]:
    key = f"{task.execution_id}/{task.task_id}"
    try:
        first = ledger.book(key, task.input["from"], task.input["to"], task.input["amount"])
    except CancelledBeforeError as error:
        raise TaskFailed("it was cancelled before it came", code="CANCELLED_BEFORE") from error
    if task.input.get("loses_its_answer"):
        task.cancelled.wait(SILENCE_SECONDS)
    return {"booking": key, "first": first, "at": time.time()}


def cancel(task: Task, ledger: Ledger, key: str) -> dict[str, Any]:
    if task.input.get("busy_at_first") and task.attempt == 1:
        raise TaskFailed("busy, call again", code="BUSY", retryable=True)
    if not ledger.cancel(key):
        raise NeverHappened(f"nothing is booked under {key}, or it was cancelled before")
    return {"cancelled": key}
