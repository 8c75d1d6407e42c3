"""`python -m examples.bookings`: a trip that cannot be completed, and four services' books that prove it undone."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from examples.bookings.ledger import Entry, Ledger
from examples.running import Demonstration, Run, main

HERE: Final = Path(__file__).parent
OPENING: Final = {
    "bank": {"customer": 250_000, "set aside": 0},
    "airline": {"free seats": 12, "booked seats": 0},
    "hotel": {"free nights": 30, "booked nights": 0},
    "rental": {"free cars": 4, "rented cars": 0},
}
STEPS: Final = {"bank": "money", "airline": "flight", "hotel": "hotel", "rental": "car"}


def ledgers_of(run: Run) -> Path:
    """New books for each run: what an earlier one booked is none of its business."""
    return run.data_dir / "ledgers" / str(run.definition["name"])


def open_books(run: Run) -> None:
    folder = ledgers_of(run)
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.sqlite*"):
        file.unlink()
    for service, accounts in OPENING.items():
        ledger = Ledger(folder / f"{service}.sqlite")
        for account, amount in accounts.items():
            ledger.open_account(account, amount)


def input_data(run: Run) -> Mapping[str, Any]:
    return {"ledgers": str(ledgers_of(run))}


def show(run: Run) -> bool:
    books = {service: Ledger(ledgers_of(run) / f"{service}.sqlite") for service in OPENING}
    details = run.status["error_details"]
    run.say(f"The trip failed at {details['failed_task']}: {details['error_message']}.")
    _show_entries(run, books)
    undone = [e["payload"] for e in run.events() if e["event_type"] == "saga.compensation_completed"]
    run.say(f"\nUndone, in this order: {', '.join(item['task_id'] for item in undone)}.")
    for event in run.events():
        if event["event_type"] == "saga.compensation_retry_scheduled":
            run.say(f"{event['payload']['task_id']} had to be tried again: {event['payload']['error']['message']}.")
    run.say("\nservice  account        before     after")
    same = True
    for service, ledger in books.items():
        after = ledger.balances()
        for account, before in OPENING[service].items():
            run.say(f"{service:<9}{account:<13}{before:>8,}{after[account]:>10,}")
            same &= before == after[account]
    once = all(_cancelled_once(service, ledger.entries()) for service, ledger in books.items())
    run.say(f"\nCompensation: {details['compensation_status']}.")
    run.say("Every balance is what it was, and each booking was cancelled exactly once." if same and once
            else "The books do not agree!")  # fmt: skip
    order = [item["task_id"] for item in undone]
    return same and once and details["compensation_status"] == "completed" and (order[0], order[-1]) == ("car", "money")


def _show_entries(run: Run, books: Mapping[str, Ledger]) -> None:
    lines = [(entry.at_ns, service, entry) for service, ledger in books.items() for entry in ledger.entries()
             if entry.kind != "open" and entry.amount > 0]  # fmt: skip
    first = min((at_ns for at_ns, _, _ in lines), default=0)
    run.say("\nWhat stands in the four ledgers, in order:")
    for at_ns, service, entry in sorted(lines, key=lambda line: line[0]):
        what = "booked" if entry.kind == "book" else "cancelled"
        run.say(f"{(at_ns - first) / 1e9:>7.2f} s  {service:<9}{what:<11}{entry.amount:>8,} to {entry.account}")


def _cancelled_once(service: str, entries: list[Entry]) -> bool:
    """A booking and its cancellation, nothing else; what follows the step that failed was never begun."""
    kinds = [entry.kind for entry in entries if entry.key.endswith(f"/{STEPS[service]}")]
    return kinds == ["book", "book", "cancel", "cancel"] and not any(e.key.endswith("/tickets") for e in entries)


DEMONSTRATION: Final = Demonstration(
    title="A trip is booked with four services. One loses its answer, and everything is undone.",
    workflow=HERE / "workflow.yaml",
    catalogue=HERE / "catalogue.yaml",
    prepare=open_books,
    input_data=input_data,
    show=show,
    ends=frozenset({"failed"}),
)

if __name__ == "__main__":
    sys.exit(main(DEMONSTRATION))
