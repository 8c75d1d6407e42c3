"""What came of a run: effects and dead letters against what was written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.event_faults.plan import Workload, expected


@dataclass
class Outcome:
    events: int
    seconds: float
    kills: dict[str, int]
    lost: int = 0
    applied_twice: int = 0
    out_of_order: int = 0
    """Executions whose effects came in another order than their stream's."""
    poison: int = 0
    poison_missing: int = 0
    letters: int = 0
    """Above the poison, those that were written twice, since a bridge died before it could acknowledge."""
    unwanted_letters: int = 0

    @property
    def sound(self) -> bool:
        return not (
            self.lost or self.applied_twice or self.out_of_order or self.poison_missing or self.unwanted_letters
        )


def judge(outcome: Outcome, work: Workload, found: Mapping[int, Sequence[str]], letters: Sequence[str | None]) -> None:
    """`found`: each execution's effects in their order; `letters`: the poison that each dead letter holds, if any."""
    poison: set[str] = set()
    for number in range(work.executions):
        wanted, poisoned = expected(work, number)
        poison |= poisoned
        effects = found[number]
        there = set(effects)
        outcome.lost += len(set(wanted) - there)
        outcome.applied_twice += len(effects) - len(there)
        if list(dict.fromkeys(effects)) != [task_id for task_id in wanted if task_id in there]:
            outcome.out_of_order += 1
    outcome.poison, outcome.letters = len(poison), len(letters)
    outcome.poison_missing = len(poison - set(letters))
    outcome.unwanted_letters = sum(tag not in poison for tag in letters)
