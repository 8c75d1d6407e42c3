"""What each pattern adds to its agents' work: how long after the end of one piece of work the next one begins.

A hundred executions at once, whose tasks take seconds, as those of language models do. An interaction is the start of
an attempt at its agent. What is timed is from the end of the last attempt reported before it was assigned, both by the
agents' clocks. Raw Temporal beside it: as many workflows with one activity after another, of the same length.

Executions begin one after the other, so that they do not all want the same moment.
"""

import time
from collections.abc import Callable
from typing import Any, Final

from benchmarks.engine import BrokenError, moment
from benchmarks.processes import spent
from benchmarks.results import CPU_SECONDS, Row, Target
from benchmarks.session import Session

EXECUTIONS: Final = (100, 4)
BETWEEN_SECONDS: Final = (0.2, 0.05)
STEPS: Final = 5
STEP_MS: Final = (5_000, 200)
MEMBERS: Final = 3
TIMEOUT_SECONDS: Final = 240.0
MS_PER_SECOND: Final = 1_000
TARGET: Final = Target("p95", 100)
ENDS: Final = frozenset({"task.completed", "task.submitted"})

Definition = dict[str, Any]


def patterns(session: Session) -> list[Row]:
    count, step_ms = session.scaled(*EXECUTIONS), session.scaled(*STEP_MS)
    between_seconds = session.scaled(*BETWEEN_SECONDS)
    _register_program(session)
    theirs = tuple(session.baseline.paced(count, STEPS, step_ms, between_seconds))
    rows = []
    for pattern, made in DEFINITIONS.items():
        workflow_id = session.api.create(made(step_ms)).result["workflow_id"]
        for _ in session.warm_up(f"patterns: {pattern}"):
            session.api.execute(workflow_id, allow_concurrent=True)
            session.api.all_completed(workflow_id, 1, TIMEOUT_SECONDS)
        before = session.engine.processes.cpu_seconds()
        waits = _waits_ms(session, workflow_id, count, between_seconds)
        cpu_seconds = spent(before, session.engine.processes.cpu_seconds())
        name = f"{pattern}: from one agent's end to the next one's start"
        note = f"{count} executions at once"
        rows.append(Row(name, tuple(waits), theirs, session.target(TARGET), note, "ms", cpu_seconds, CPU_SECONDS))
    return rows


def _waits_ms(session: Session, workflow_id: str, count: int, between_seconds: float) -> list[float]:
    started = []
    for _ in range(count):
        started.append(session.api.execute(workflow_id, allow_concurrent=True).result["execution_id"])
        time.sleep(between_seconds)
    session.api.all_completed(workflow_id, count + 1, TIMEOUT_SECONDS)
    waits = [wait for execution_id in started for wait in interactions_ms(session.api.events(execution_id))]
    if not waits:
        raise BrokenError("no agent began after another")
    return waits


def interactions_ms(events: list[dict[str, Any]]) -> list[float]:
    """From the last end before an attempt's assignment to its start; the very first ones have none."""
    last_end: float | None = None
    since: dict[tuple[str, int], float] = {}
    waits = []
    for event in events:
        payload = event["payload"]
        key = (payload.get("task_id", ""), payload.get("attempt", 0))
        if event["event_type"] == "agent.task_assigned" and last_end is not None:
            since[key] = last_end
        elif event["event_type"] == "agent.task_started" and key in since:
            waits.append((moment(event["timestamp"]) - since.pop(key)) * MS_PER_SECOND)
        elif event["event_type"] in ENDS and payload.get("agent_id"):
            last_end = max(last_end or 0.0, moment(event["timestamp"]))
    return waits


def _chain(pattern: str, step_ms: int, config: dict[str, Any] | None = None, **task: Any) -> Definition:
    """Two roles in turn, so that nothing can be sent ahead."""
    tasks = [
        {
            "id": f"t{n}", "agent": ("a", "b")[n % 2], "depends_on": [f"t{n - 1}"] if n else [],
            "input": {"duration_ms": step_ms}, **task,
        }
        for n in range(STEPS)
    ]  # fmt: skip
    roles = {name: {"type": "synthetic", "count": 1} for name in ("a", "b")}
    return _definition(pattern, roles, tasks, config)


def _definition(
    pattern: str, roles: dict[str, Any], tasks: list[dict[str, Any]], config: dict[str, Any] | None
) -> Definition:
    return {
        "name": f"coordination-{pattern}", "version": "1", "orchestration_pattern": pattern, "agents": roles,
        "tasks": tasks, "coordination": {"type": "hybrid"}, **({"pattern_config": config} if config else {}),
    }  # fmt: skip


def _hierarchical(step_ms: int) -> Definition:
    made = _chain("hierarchical", step_ms, {"teams": {"all": {"lead": "lead", "members": ["a", "b"]}}})
    made["agents"]["lead"] = {"type": "synthetic", "count": 1}
    return made


def _swarm(step_ms: int) -> Definition:
    """A question after the other, each decided in one round."""
    tasks = [
        {
            "id": f"q{n}", "agent": "member", "depends_on": [f"q{n - 1}"] if n else [],
            "input": {"duration_ms": step_ms * MEMBERS, "result": {"vote": "yes"}},
        }
        for n in range(STEPS)
    ]  # fmt: skip
    roles = {"member": {"type": "synthetic", "count": MEMBERS}}
    return _definition("swarm", roles, tasks, {"options": ["yes", "no"]})


def _network(step_ms: int) -> Definition:
    """A message that goes round a ring."""
    said = {"state": {}, "messages": [{"to": "*", "body": 1}]}
    task = {"id": "talk", "agent": "peer", "input": {"duration_ms": step_ms, "result": said}}
    config = {"topology": {"kind": "ring"}, "start": "first", "turns_max": STEPS + 1}
    return _definition("network", {"peer": {"type": "synthetic", "count": 2}}, [task], config)


def _custom(step_ms: int) -> Definition:
    roles = {"a": {"type": "synthetic", "count": 1}}
    made = _definition("custom", roles, [{"id": "run", "agent": "a", "input": {}}], {"step_ms": step_ms})
    return {**made, "pattern": {"name": PROGRAM, "version": "1.0.0"}}


PROGRAM: Final = "coordination-benchmark"


def _register_program(session: Session) -> None:
    states: dict[str, Any] = {
        f"s{n}": {
            "do": "gather", "each": "[1]", "role": "'a'", "action": "'work'",
            "input": "{duration_ms: config.step_ms}", "save": f"r{n}", "next": f"s{n + 1}" if n + 1 < STEPS else "end",
        }
        for n in range(STEPS)
    }  # fmt: skip
    states["end"] = {"do": "finish", "result": "true"}
    schema = {"type": "object", "properties": {"step_ms": {"type": "integer"}}, "required": ["step_ms"]}
    session.api.call(
        "pattern.register",
        {
            "name": PROGRAM, "version": "1.0.0", "pattern_type": "custom", "configuration_schema": schema,
            "coordination_logic": {"language": 1, "start": "s0", "states": states},
        },
    )  # fmt: skip


DEFINITIONS: Final[dict[str, Callable[[int], Definition]]] = {
    "supervisor": lambda step_ms: _chain("supervisor", step_ms),
    "hierarchical": _hierarchical,
    "handoff": lambda step_ms: _chain("handoff", step_ms),
    "swarm": _swarm,
    "network": _network,
    "saga": lambda step_ms: _chain("saga", step_ms, compensation_action="undo"),
    "custom": _custom,
}
