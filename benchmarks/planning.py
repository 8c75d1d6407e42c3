"""Validating and planning, without server and network."""

import gc
import time
from typing import Final

from benchmarks.results import NANOSECONDS_PER_MS, Row, Target
from benchmarks.session import Session
from benchmarks.shapes import definition, random_graph
from planner.parse import parse_definition
from planner.planner import Planner

AGENTS: Final = 16


def planning(session: Session) -> list[Row]:
    return [*_of_size(session, 1_000, None), *_of_size(session, 10_000, Target("p95", 1_000))]


def _of_size(session: Session, tasks: int, target: Target | None) -> list[Row]:
    """A fresh planner each time, so that nothing is cached; garbage of the round before is collected first."""
    document = definition(random_graph(tasks), AGENTS)
    validated: list[float] = []
    planned: list[float] = []
    both: list[float] = []
    for _ in session.rounds(f"planning {tasks:,} tasks", 15, 5):
        gc.collect()
        began = time.perf_counter_ns()
        parsed = parse_definition(document)
        between = time.perf_counter_ns()
        Planner().plan(parsed)
        ended = time.perf_counter_ns()
        validated.append((between - began) / NANOSECONDS_PER_MS)
        planned.append((ended - between) / NANOSECONDS_PER_MS)
        both.append((ended - began) / NANOSECONDS_PER_MS)
    return [
        Row(f"validate, {tasks:,} tasks", tuple(validated)),
        Row(f"plan, {tasks:,} tasks", tuple(planned), target=target),
        Row(f"validate and plan, {tasks:,} tasks", tuple(both), target=target),
    ]
