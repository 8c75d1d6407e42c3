"""What the run under faults writes, and that its judge sees what went wrong."""

from collections import Counter

import pytest

from benchmarks.event_faults.judging import Outcome, judge
from benchmarks.event_faults.plan import Workload, entries, expected

WORK = Workload(seed=5, events=4_000, executions=4)


def judged(found: dict[int, list[str]], letters: list[str | None]) -> Outcome:
    outcome = Outcome(WORK.events, 1.0, {})
    judge(outcome, WORK, found, letters)
    return outcome


@pytest.fixture
def right() -> tuple[dict[int, list[str]], list[str | None]]:
    wanted = {number: expected(WORK, number) for number in range(WORK.executions)}
    letters = sorted(tag for _, poison in wanted.values() for tag in poison)
    return {number: tasks for number, (tasks, _) in wanted.items()}, [*letters]


def test_every_event_is_written_a_tenth_twice_a_tenth_later_and_some_poison() -> None:
    assert sum(WORK.count(number) for number in range(WORK.executions)) == WORK.events
    for number in range(WORK.executions):
        written = Counter(event for entry in entries(WORK, number) for event in entry.events)
        count = WORK.count(number)
        assert set(written) == set(range(count))
        assert 0.07 < (written.total() - count) / count < 0.13
        order, poison = expected(WORK, number)
        assert sorted(order, key=lambda name: int(name[1:])) != order
        assert max(abs(int(name[1:]) - place) for place, name in enumerate(order)) <= 60
        assert count // 100 <= len(poison) <= (count + 200) // 100
    assert list(entries(WORK, 1)) == list(entries(WORK, 1))
    assert list(entries(WORK, 1)) != list(entries(Workload(6, 4_000, 4), 1))


def test_what_is_right_is_sound_also_with_a_letter_written_twice(
    right: tuple[dict[int, list[str]], list[str | None]],
) -> None:
    found, letters = right
    outcome = judged(found, [*letters, letters[0]])
    assert outcome.sound
    assert outcome.letters == outcome.poison + 1


def test_what_is_wrong_is_seen(right: tuple[dict[int, list[str]], list[str | None]]) -> None:
    found, letters = right
    lost = judged({**found, 2: found[2][:-1]}, letters)
    assert (lost.lost, lost.sound) == (1, False)
    doubled = judged({**found, 0: [*found[0], found[0][3]]}, letters)
    assert (doubled.applied_twice, doubled.out_of_order, doubled.sound) == (1, 0, False)
    swapped = judged({**found, 1: [found[1][1], found[1][0], *found[1][2:]]}, letters)
    assert (swapped.out_of_order, swapped.lost, swapped.sound) == (1, 0, False)
    assert judged(found, letters[1:]).poison_missing == 1
    assert not judged(found, letters[1:]).sound
    assert not judged(found, [*letters, None]).sound
