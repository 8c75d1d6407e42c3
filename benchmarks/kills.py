"""SIGKILL to every part of the engine, again and again, while one large execution runs: `python -m benchmarks.kills`.

The run must complete, and its audit log must show each task completed once, in an order that its dependencies allow.
Kills are spread over the run's progress, so that each meets work that is under way, and they come in rounds: first
each part once, then again. With `--kind` every task is also reviewed, or handed over through a gate, and each review
and each hand-over must count once.
"""

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import httpx

from benchmarks.shapes import Dependencies, definition, far_graph
from tests.acceptance.audit import assert_sound, of_type, status_changes, successes
from tests.acceptance.caller import Caller, Refused
from tests.acceptance.running import RunningEngine, running_engine

ROLES: Final = ("worker",)
"""The worker's process holds the bridge, too."""
SERVERS: Final = ("valkey", "temporal", "postgres")
VICTIMS: Final = (*ROLES, *SERVERS)
TASKS: Final = 10_000
ROUNDS: Final = 3
DURATION_MS: Final = 20
AGENTS: Final = 4
RUN_TIMEOUT_SECONDS: Final = 900.0
POLL_SECONDS: Final = 0.1
INTERNAL_ERROR: Final = -32603
"""What the gateway answers while a server is away."""
CLOSED: Final = frozenset({"completed", "failed", "cancelled"})

Tell = Callable[[str], None]


Definition = dict[str, Any]
Events = list[dict[str, Any]]

REVIEWS_EACH: Final = 2
"""The built-in agent's answer is no verdict: after as many of them the result is taken as it is."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a run is like besides its graph, and what its audit log must show of that."""

    change: Callable[[Definition], Definition]
    check: Callable[[Events, set[str]], None]


def _reviewed(made: Definition) -> Definition:
    review = {"agent": "lead", "bad_answers_max": REVIEWS_EACH - 1, "on_no_verdict": "accept"}
    agents = {**made["agents"], "lead": {"type": "synthetic", "count": 2}}
    return {**made, "agents": agents, "pattern_config": {"review": review}}


def _handed_over(made: Definition) -> Definition:
    result = {"context": {"hands": 1}}
    tasks = [{**task, "input": {**task.get("input", {}), "result": result}} for task in made["tasks"]]
    gate = {"json_schema": {"type": "object", "required": ["context"]}, "expressions": ["result.context.hands == 1"]}
    return {**made, "orchestration_pattern": "handoff", "tasks": tasks, "pattern_config": {"gate": gate}}


def _check_times(events: Events, event_type: str, tasks: set[str], times: int) -> None:
    found = Counter(event["payload"]["task_id"] for event in of_type(events, event_type))
    assert found == dict.fromkeys(tasks, times), found - Counter(dict.fromkeys(tasks, times))


KINDS: Final[dict[str, Kind]] = {
    "graph": Kind(lambda made: made, lambda _events, _tasks: None),
    "review": Kind(_reviewed, lambda events, tasks: _check_times(events, "review.refused", tasks, REVIEWS_EACH)),
    "handoff": Kind(_handed_over, lambda events, tasks: _check_times(events, "handoff.accepted", tasks, 1)),
}


@dataclass(frozen=True, slots=True)
class Campaign:
    """What was killed during a run, and how the run went."""

    tasks: int
    killed: tuple[str, ...]
    seconds: float
    attempts: int
    """Assignments of tasks: above the number of tasks where work was begun again."""


def campaign(
    engine: RunningEngine,
    caller: Caller,
    *,
    tasks: int,
    rounds: int,
    duration_ms: int,
    agents: int,
    tell: Tell,
    kind: str = "graph",
) -> Campaign:
    """Raises AssertionError when the run does not complete, or its audit log is not sound."""
    graph = far_graph(tasks)
    made = KINDS[kind].change(definition(graph, agents, duration_ms))
    workflow_id = caller.rpc("workflow.create", **made)["workflow_id"]
    began = time.monotonic()
    execution_id = caller.execute(workflow_id)
    killed = _kill_all(engine, caller, workflow_id, VICTIMS * rounds, tasks, tell)
    _until(caller, workflow_id, lambda run: run["status"] in CLOSED, "it ends")
    seconds = time.monotonic() - began
    events = caller.events(execution_id)
    dependencies = _by_name(graph)
    asked: dict[str, list[str]] = {event["payload"]["task_id"]: [] for event in of_type(events, "task.spawned")}
    assert_sound(events, {**asked, **dependencies})
    done = successes(events)
    assert {name: times for name, times in done.items() if name in dependencies} == dict.fromkeys(dependencies, 1)
    assert max(done.values()) == 1
    assert status_changes(events)[-1] == "completed"
    KINDS[kind].check(events, set(dependencies))
    return Campaign(tasks, tuple(killed), seconds, len(of_type(events, "agent.task_assigned")))


def _kill_all(
    engine: RunningEngine, caller: Caller, workflow_id: str, victims: Sequence[str], tasks: int, tell: Tell
) -> list[str]:
    """One after the other, each when its part of the tasks is done. Those that are left when the run ends are an
    error: the run was too short for them."""
    for number, victim in enumerate(victims):
        due = tasks * (number + 1) // (len(victims) + 2)
        run = _until(caller, workflow_id, partial(_has_done, due), f"{due} tasks are done")
        assert run["status"] == "executing", f"{run['status']} before {victim} was killed"
        tell(f"{run['tasks_completed']:,} of {tasks:,} tasks done: killing {victim}, {number + 1} of {len(victims)}")
        if victim in ROLES:
            engine.kill_role(victim)
        else:
            engine.kill_server(victim)
    return list(victims)


def _has_done(tasks: int, run: dict[str, Any]) -> bool:
    return bool(run["tasks_completed"] >= tasks)


def _until(caller: Caller, workflow_id: str, reached: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
    """The run in brief, once it is so. Answers that fail while a server is away are asked for again."""
    deadline = time.monotonic() + RUN_TIMEOUT_SECONDS
    last: Any = None
    while time.monotonic() < deadline:
        try:
            [last] = caller.rpc("execution.list", workflow_id=workflow_id, limit=1)["items"]
        except (httpx.TransportError, ValueError, Refused) as error:
            if isinstance(error, Refused) and error.code != INTERNAL_ERROR:
                raise
        else:
            if reached(last):
                return dict(last)
            assert last["status"] not in CLOSED, f"{last['status']} before {what}"
        time.sleep(POLL_SECONDS)
    raise AssertionError(f"not within {RUN_TIMEOUT_SECONDS:g} s: {what}; last seen: {last}")


def _by_name(graph: Dependencies) -> dict[str, list[str]]:
    return {f"task-{number}": [f"task-{before}" for before in befores] for number, befores in enumerate(graph)}


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    with running_engine() as engine:
        result = campaign(
            engine,
            engine.caller(),
            tasks=options.tasks,
            rounds=options.rounds,
            duration_ms=options.duration_ms,
            agents=options.agents,
            tell=tell,
            kind=options.kind,
        )
    kills = ", ".join(f"{victim} {times} times" for victim, times in Counter(result.killed).items())
    print(
        f"{result.tasks:,} tasks, each completed once and after its dependencies, in {result.seconds:.0f} s "
        f"with {result.attempts:,} assignments; killed: {kills}"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kills", description=__doc__)
    parser.add_argument("--tasks", type=int, default=TASKS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="how often each part is killed")
    parser.add_argument("--duration-ms", type=int, default=DURATION_MS, help="of a task")
    parser.add_argument("--agents", type=int, default=AGENTS)
    parser.add_argument("--kind", choices=sorted(KINDS), default="graph")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
