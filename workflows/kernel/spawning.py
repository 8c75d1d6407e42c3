"""Tasks that an agent's result adds, checked against the graph as it is now: only what is new is looked at."""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final

from pydantic import ValidationError

from engine.contracts.definition import RETRY_POLICIES, RetryPolicy, TaskDefinition
from engine.contracts.dynamic import SpawnedBody
from engine.contracts.kernel import KernelTask, KernelTrigger, Spawned
from engine.contracts.limits import (
    NAME_PATTERN,
    SPAWN_BYTES_MAX,
    SPAWN_TASKS_MAX,
    TASKS_DYNAMIC_MAX,
)
from engine.hierarchy import resources_of
from workflows.kernel.chains import riders
from workflows.kernel.state import Phase, RunState

SPAWN_REFUSED: Final = "SPAWN_REFUSED"

_NAME: Final = re.compile(NAME_PATTERN)
_NOT_STARTED: Final = (Phase.PENDING, Phase.READY, Phase.HELD, Phase.AWAITING)
_GIVEN_UP: Final = (Phase.FAILED, Phase.CANCELLED)
ESTIMATE_DEFAULT_MS: Final = 1_000


class SpawnRefusedError(Exception):
    """The tasks cannot be added; the message says why."""


def plan_spawn(
    state: RunState, spawner: int, documents: Sequence[dict[str, Any]]
) -> tuple[Spawned, tuple[SpawnedBody, ...]]:
    """What to add to the graph, and the tasks' bodies for the dispatcher. Raises SpawnRefusedError."""
    _check_size(state, documents)
    return _Plan(state, spawner, documents).result()


def _check_size(state: RunState, documents: Sequence[dict[str, Any]]) -> None:
    if len(documents) > SPAWN_TASKS_MAX:
        raise SpawnRefusedError(f"{len(documents)} tasks: one result may add {SPAWN_TASKS_MAX}")
    size_bytes = len(json.dumps(documents, ensure_ascii=False).encode("utf-8", "replace"))
    if size_bytes > SPAWN_BYTES_MAX:
        raise SpawnRefusedError(f"{size_bytes} bytes: one result may add tasks of {SPAWN_BYTES_MAX} bytes")
    if state.added + len(documents) > TASKS_DYNAMIC_MAX:
        raise SpawnRefusedError(
            f"{len(documents)} tasks: with the {state.added} that were added before, "
            f"more than the {TASKS_DYNAMIC_MAX} that an execution may add"
        )


class _Plan:
    def __init__(self, state: RunState, spawner: int, documents: Sequence[dict[str, Any]]) -> None:
        self.state = state
        self.spawner = state.specs[spawner]
        self.behind = frozenset(riders(state, spawner))
        """They are with the same host and have not started: a host ends its chain where tasks are added."""
        self.tasks: dict[str, TaskDefinition] = {}
        self.blocks: dict[str, tuple[str, ...]] = {}
        for n, document in enumerate(documents):
            self._read(n, document)
        self._check_references()
        self.order = self._ordered()
        if any(self.blocks.values()):
            self._check_cycles()

    def result(self) -> tuple[Spawned, tuple[SpawnedBody, ...]]:
        state = self.state
        first = len(state.specs)
        place = {task_id: first + n for n, task_id in enumerate(self.order)}
        slacks = self._slacks()
        specs = tuple(
            kernel_task(self.tasks[task_id], {**state.index, **place}, slacks[task_id], self.spawner.retry)
            for task_id in self.order
        )
        pairs = [(state.index[y], place[x]) for x in self.order for y in self.blocks[x]]
        bodies = tuple(
            SpawnedBody(
                task_id=task_id,
                spawned_by=self.spawner.id,
                body=self.tasks[task_id].model_dump(mode="json"),
                blocks=self.blocks[task_id],
            )
            for task_id in self.order
        )
        return Spawned(task_id=self.spawner.id, tasks=specs, blocks=tuple(pairs)), bodies

    def _read(self, n: int, document: dict[str, Any]) -> None:
        blocks = document.get("blocks", [])
        if not isinstance(blocks, list) or not all(isinstance(name, str) for name in blocks):
            raise SpawnRefusedError(f"spawn[{n}].blocks is not a list of task ids")
        try:
            task = TaskDefinition.model_validate({k: v for k, v in document.items() if k != "blocks"})
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in ("", *first["loc"]))
            raise SpawnRefusedError(f"spawn[{n}]{where}: {first['msg']}") from error
        if task.id in self.tasks or task.id in self.state.index:
            raise SpawnRefusedError(f"spawn[{n}].id: there is a task {task.id} already")
        if task.agent not in self.state.plan.roles:
            raise SpawnRefusedError(f"spawn[{n}].agent: the definition has no role {task.agent}")
        self.tasks[task.id] = task
        self.blocks[task.id] = tuple(dict.fromkeys(blocks))

    def _check_references(self) -> None:
        state = self.state
        for task_id, task in self.tasks.items():
            for name in task.depends_on:
                if name in self.tasks:
                    continue
                if name not in state.index:
                    raise SpawnRefusedError(f"{task_id} depends on {name}, which is not there")
                if _given_up(state, state.index[name]):
                    raise SpawnRefusedError(f"{task_id} depends on {name}, which was given up")
            for name in self.blocks[task_id]:
                if not _NAME.match(name) or name not in state.index:
                    raise SpawnRefusedError(f"{task_id} blocks {name}, which was not there before")
                i = state.index[name]
                if state.tasks[i].phase not in _NOT_STARTED and i not in self.behind:
                    raise SpawnRefusedError(f"{task_id} blocks {name}, which has started")

    def _ordered(self) -> list[str]:
        """The new tasks in topological order, as they were named where there is a choice."""
        waiting = {task_id: {d for d in task.depends_on if d in self.tasks} for task_id, task in self.tasks.items()}
        followers: dict[str, list[str]] = {task_id: [] for task_id in waiting}
        for task_id, needed in waiting.items():
            for name in sorted(needed):
                followers[name].append(task_id)
        order = [task_id for task_id, needed in waiting.items() if not needed]
        for task_id in order:
            for follower in followers[task_id]:
                waiting[follower].discard(task_id)
                if not waiting[follower]:
                    order.append(follower)
        if len(order) < len(waiting):
            raise _cycle(task_id for task_id, needed in waiting.items() if needed)
        return order

    def _check_cycles(self) -> None:
        """A cycle can only go through a task that is blocked: look at what can be reached from those."""
        edges = self._edges_behind_blocked()
        degree = dict.fromkeys(edges, 0)
        for followers in edges.values():
            for name in followers:
                degree[name] += 1
        free = [name for name, n in degree.items() if not n]
        for name in free:
            for follower in edges[name]:
                degree[follower] -= 1
                if not degree[follower]:
                    free.append(follower)
        if len(free) < len(edges):
            raise _cycle(name for name, n in degree.items() if n)

    def _edges_behind_blocked(self) -> dict[str, list[str]]:
        state = self.state
        waiting_for: dict[str, list[str]] = {}
        for task_id, task in self.tasks.items():
            for name in dict.fromkeys(task.depends_on):
                waiting_for.setdefault(name, []).append(task_id)
        edges: dict[str, list[str]] = {}
        reached = list(dict.fromkeys(name for names in self.blocks.values() for name in names))
        for name in reached:
            if name in edges:
                continue
            followers = list(waiting_for.get(name, ()))
            if name in self.tasks:
                followers.extend(self.blocks[name])
            else:
                followers.extend(state.specs[j].id for j in state.dependents[state.index[name]])
            edges[name] = list(dict.fromkeys(followers))
            reached.extend(edges[name])
        return edges

    def _slacks(self) -> dict[str, int]:
        """A new task is as urgent as the most urgent of those that wait for it; else as what added it."""
        state = self.state
        slacks: dict[str, int] = {}
        urgent: dict[str, list[int]] = {
            task_id: [state.specs[state.index[name]].slack_ms for name in self.blocks[task_id]]
            for task_id in self.order
        }
        for task_id in reversed(self.order):
            slacks[task_id] = min(urgent[task_id], default=self.spawner.slack_ms)
            for name in self.tasks[task_id].depends_on:
                if name in urgent:
                    urgent[name].append(slacks[task_id])
        return slacks


def _cycle(names: Iterable[str]) -> SpawnRefusedError:
    members = sorted(names)
    more = f" and {len(members) - 10} more" if len(members) > 10 else ""
    return SpawnRefusedError(f"tasks would wait for each other: {', '.join(members[:10])}{more}")


def kernel_task(task: TaskDefinition, index: dict[str, int], slack_ms: int, retry: RetryPolicy) -> KernelTask:
    """The task in the form that the kernel runs; `retry` is for one without a policy of its own."""
    policy = task.retry_policy
    if isinstance(policy, str):
        retry = RETRY_POLICIES[policy]
    elif policy is not None:
        retry = policy
    estimate = task.estimated_seconds
    return KernelTask(
        id=task.id,
        role=task.agent,
        deps=tuple(sorted({index[name] for name in task.depends_on})),
        slack_ms=slack_ms,
        estimate_ms=ESTIMATE_DEFAULT_MS if estimate is None else round(estimate * 1000),
        timeout_ms=task.timeout_seconds * 1000,
        retry=retry,
        alone=task.parallel is False,
        action=task.action,
        resources=resources_of(task.input) or (),
        on_failure=task.on_failure,
        when=task.when is not None,
        for_each=task.for_each is not None,
        triggers=tuple(
            KernelTrigger(
                event=trigger.event,
                conditional=trigger.when is not None,
                timeout_ms=None if trigger.timeout_seconds is None else trigger.timeout_seconds * 1000,
                on_timeout=trigger.on_timeout,
            )
            for trigger in task.triggers
        ),
        reuse=task.reuse,
        compensation=task.compensation_action,
    )


def _given_up(state: RunState, i: int) -> bool:
    """It failed, or it was skipped because something before it failed and not because of a condition."""
    seen: set[int] = set()
    look = [i]
    while look:
        at = look.pop()
        phase = state.tasks[at].phase
        if phase in _GIVEN_UP:
            return True
        if phase is Phase.SKIPPED and at not in seen:
            seen.add(at)
            look.extend(d for d in state.specs[at].deps if state.tasks[d].phase in (*_GIVEN_UP, Phase.SKIPPED))
    return False
