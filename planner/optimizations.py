"""Where time could be saved, with the seconds that it would save.

Each suggestion is tried on paper first; those that gain next to nothing are left out.
"""

from collections.abc import Iterator
from typing import Final

from engine.contracts.limits import AGENTS_MAX
from engine.contracts.plan import Problem
from planner.draft import Draft
from planner.schedule import MICROSECONDS, length_us

ROLES_TRIED_MAX: Final = 3
TASKS_TRIED_MAX: Final = 3
GAIN_SHARE_MIN: Final = 0.01
"""Part of the whole that a change must save to be worth a line."""


def optimizations(draft: Draft) -> tuple[Problem, ...]:
    """More instances, tasks to split, tasks that need not run alone: the largest gains first in each kind."""
    return (*_more_instances(draft), *_tasks_to_split(draft), *_need_not_run_alone(draft))


def _worth(gain_us: int, whole_us: int) -> bool:
    return gain_us > 0 and gain_us >= whole_us * GAIN_SHARE_MIN


def _seconds(microseconds: int) -> str:
    return f"{round(microseconds / MICROSECONDS, 2):g} s"


def _more_instances(draft: Draft) -> Iterator[Problem]:
    if draft.duration_us <= draft.schedule.length_us:
        return  # The dependencies alone take as long.
    load_us = {
        role: sum(draft.estimates_us[index] for index in tasks) // draft.counts[role]
        for role, tasks in draft.tasks_of_role.items()
        if len(tasks) > draft.counts[role]
    }
    found: list[tuple[int, Problem]] = []
    for role in sorted(load_us, key=lambda role: (-load_us[role], role))[:ROLES_TRIED_MAX]:
        count = draft.counts[role]
        enough = min(draft.most_at_once(draft.tasks_of_role[role]), AGENTS_MAX)
        for more in sorted({count + 1, enough}):
            if more <= count:
                continue
            duration = draft.duration_with({**draft.counts, role: more}, draft.alone)
            gain = draft.duration_us - duration
            if _worth(gain, draft.duration_us):
                message = (
                    f'{more} instead of {count} instances of "{role}" would end the whole after '
                    f"{_seconds(duration)} instead of {_seconds(draft.duration_us)}, {_seconds(gain)} sooner"
                )
                problem = Problem(code="ADD_INSTANCES", location=f"agents.{role}.count", message=message)
                found.append((-gain, problem))
                break
    for _, problem in sorted(found, key=lambda item: (item[0], item[1].location)):
        yield problem


def _tasks_to_split(draft: Draft) -> Iterator[Problem]:
    """Long tasks on the critical path whose halves, side by side, would shorten it."""
    estimated = [index for index in draft.schedule.critical_path if draft.tasks[index].estimated_seconds]
    whole = draft.schedule.length_us
    found: list[tuple[int, Problem]] = []
    for index in sorted(estimated, key=lambda index: (-draft.estimates_us[index], index))[:TASKS_TRIED_MAX]:
        halved = list(draft.estimates_us)
        halved[index] //= 2
        gain = whole - length_us(draft.graph, halved)
        if _worth(gain, whole):
            message = (
                f'"{draft.tasks[index].id}" takes {_seconds(draft.estimates_us[index])} of the critical path of '
                f"{_seconds(whole)}; split into two tasks side by side, it would shorten it by {_seconds(gain)}"
            )
            problem = Problem(code="SPLIT_TASK", location=draft.location(index), message=message)
            found.append((-gain, problem))
    for _, problem in sorted(found, key=lambda item: item[0]):
        yield problem


def _need_not_run_alone(draft: Draft) -> Iterator[Problem]:
    if not draft.alone:
        return
    gain = draft.duration_us - draft.duration_with(draft.counts, frozenset())
    if _worth(gain, draft.duration_us):
        first = min(draft.alone, key=lambda index: draft.graph.positions[index])
        message = (
            f"{len(draft.alone)} tasks run alone; if they need not, without parallel: false the whole would end "
            f"{_seconds(gain)} sooner"
        )
        yield Problem(code="ALLOW_PARALLEL", location=f"{draft.location(first)}.parallel", message=message)
