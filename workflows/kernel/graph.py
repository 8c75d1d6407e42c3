"""The shape of the graph and how it grows: elements of `for_each` tasks, and tasks that agents' results added.

The plan itself never changes. What was added since stands behind it, in the order in which it came, so that a state
can be rebuilt from the plan and the list of additions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.contracts.dynamic import Arrival
from engine.contracts.kernel import KernelTask

if TYPE_CHECKING:
    from workflows.kernel.state import RunState


class Group:
    """A `for_each` task that stands for its elements."""

    __slots__ = ("failed", "first", "remaining", "size")

    def __init__(self, first: int, size: int) -> None:
        self.first = first
        self.size = size
        self.remaining = size
        """Elements that are not over."""
        self.failed = 0

    @property
    def elements(self) -> range:
        return range(self.first, self.first + self.size)


@dataclass(frozen=True)
class Expansion:
    """One task became many. `owner` is its index."""

    owner: int
    first: int
    size: int

    def to_list(self) -> list[Any]:
        return ["elements", self.owner, self.size]


@dataclass(frozen=True)
class Addition:
    """A result added tasks. `owner` is the index of the task whose result it was."""

    owner: int
    first: int
    tasks: tuple[KernelTask, ...]
    blocks: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        return len(self.tasks)

    def to_list(self) -> list[Any]:
        tasks = [task.model_dump(mode="json", exclude_defaults=True) for task in self.tasks]
        return ["spawned", self.owner, tasks, [list(pair) for pair in self.blocks]]


Growth = Expansion | Addition


def is_gated(spec: KernelTask) -> bool:
    """Whether more than its dependencies decides if and how the task runs."""
    return bool(spec.when or spec.for_each or spec.triggers or spec.reuse or spec.guarded)


def is_guarded(state: "RunState", i: int) -> bool:
    """Whether blocking hooks are asked before it starts."""
    hooks = state.launch.hooks
    return hooks is not None and (state.specs[i].guarded or (hooks.added_tasks and i >= len(state.plan.tasks)))


def needs_evaluation(spec: KernelTask) -> bool:
    return spec.when or spec.for_each or spec.reuse


def trigger_due_ms(spec: KernelTask, at_ms: int) -> int:
    """When the first of its triggers gives up; 0 when none does."""
    limits = [trigger.timeout_ms for trigger in spec.triggers if trigger.timeout_ms is not None]
    return at_ms + min(limits) if limits else 0


def element_specs(spec: KernelTask, size: int) -> list[KernelTask]:
    """What a `for_each` task stands for."""
    shared = {"deps": (), "when": False, "for_each": False, "triggers": (), "fused": False}
    return [spec.model_copy(update={**shared, "id": f"{spec.id}[{n}]"}) for n in range(size)]


def followers_of(specs: Sequence[KernelTask]) -> dict[int, int]:
    """For each task of a chain the one that goes out behind it."""
    return {spec.deps[0]: i for i, spec in enumerate(specs) if spec.fused}


def append_specs(state: "RunState", specs: Sequence[KernelTask]) -> None:
    first = len(state.specs)
    for i, spec in enumerate(specs, first):
        state.specs.append(spec)
        state.index[spec.id] = i
        state.dependents.append([])
        if is_gated(spec) or is_guarded(state, i):
            state.gated.add(i)
        if spec.agent is not None:
            state.pinned.add(i)
    for i, spec in enumerate(specs, first):
        for dependency in spec.deps:
            state.dependents[dependency].append(i)


def remove_specs(state: "RunState", first: int) -> None:
    """Take back the last `append_specs`."""
    for i in range(len(state.specs) - 1, first - 1, -1):
        for dependency in state.specs[i].deps:
            state.dependents[dependency].pop()
    for spec in state.specs[first:]:
        del state.index[spec.id]
    state.gated.difference_update(range(first, len(state.specs)))
    state.pinned.difference_update(range(first, len(state.specs)))
    del state.specs[first:], state.dependents[first:]


def link(state: "RunState", blocked: int, new: int) -> None:
    """`blocked` now waits for `new` too, and cannot follow its predecessor unseen any more."""
    spec = state.specs[blocked]
    if spec.fused:
        del state.followers[spec.deps[0]]
    state.specs[blocked] = spec.model_copy(update={"deps": (*spec.deps, new), "fused": False})
    state.dependents[new].append(blocked)


# Snapshots -------------------------------------------------------------------------------------------------------


def graph_snapshot(state: "RunState") -> dict[str, Any]:
    """Empty for a graph that is what was planned."""
    if not (state.growth or state.arrivals or state.triggered or state.grown):
        return {}
    return {
        "growth": [growth.to_list() for growth in state.growth],
        "kept": [_arrival(state.kept[event_id]) for event_id in sorted(state.kept)],
        "arrivals": state.arrivals,
        "remembered": [[event_id, state.remembered[event_id]] for event_id in sorted(state.remembered)],
        "triggered": [[i, _arrival(state.triggered[i])] for i in sorted(state.triggered)],
        "looked": [[i, state.awaiting[i]] for i in sorted(state.awaiting) if state.awaiting[i]],
        "grown": state.grown,
    }


def _arrival(arrival: Arrival | None) -> list[Any] | None:
    return None if arrival is None else [arrival.event_id, arrival.type, arrival.at_ms, arrival.number]


def _read_arrival(values: list[Any] | None) -> Arrival | None:
    if values is None:
        return None
    event_id, kind, at_ms, number = values
    return Arrival(event_id=event_id, type=kind, at_ms=at_ms, number=number)


def restore_graph(state: "RunState", data: dict[str, Any]) -> None:
    """Make the fresh state's graph what it was. The tasks' own states are restored afterwards."""
    growth: list[Growth] = []
    first = len(state.plan.tasks)
    for kind, owner, content, *blocks in data.get("growth", ()):
        if kind == "elements":
            growth.append(Expansion(owner, first, content))
        else:
            tasks = tuple(KernelTask.model_validate(document) for document in content)
            growth.append(Addition(owner, first, tasks, tuple((y, x) for y, x in blocks[0])))
        first += growth[-1].size
    if growth:
        rebuild(state, growth)
    kept = [_read_arrival(values) for values in data.get("kept", ())]
    state.kept = {arrival.event_id: arrival for arrival in kept if arrival is not None}
    state.arrivals = data.get("arrivals", 0)
    state.remembered = dict(data.get("remembered", ()))
    state.triggered = {i: _read_arrival(values) for i, values in data.get("triggered", ())}
    state.awaiting = dict(data.get("looked", ()))
    state.grown = data.get("grown", 0)


def rebuild(state: "RunState", growth: list[Growth]) -> None:
    """The graph anew: the plan, and these additions. Nothing is changed in place."""
    plan = state.plan
    state.specs, state.index, state.dependents, state.gated, state.pinned = [], {}, [], set(), set()
    append_specs(state, plan.tasks)
    state.followers = followers_of(plan.tasks)
    state.growth = growth
    for item in growth:
        if isinstance(item, Expansion):
            append_specs(state, element_specs(state.specs[item.owner], item.size))
        else:
            append_specs(state, item.tasks)
            for blocked, new in item.blocks:
                link(state, blocked, new)


def without(state: "RunState", dropped: Sequence[str]) -> None:
    """Rebuild the graph without these tasks; the others' states move to their new places."""
    gone = {state.index[task_id] for task_id in dropped}
    place = {i: n for n, i in enumerate(i for i in range(len(state.specs)) if i not in gone)}
    growth: list[Growth] = []
    first = len(state.plan.tasks)
    for item in state.growth:
        if item.owner in gone or item.first in gone:
            continue
        owner = place[item.owner]
        if isinstance(item, Expansion):
            growth.append(Expansion(owner, first, item.size))
        else:
            tasks = tuple(_moved(task, place) for task in item.tasks)
            blocks = tuple((place[y], place[x]) for y, x in item.blocks if y in place)
            growth.append(Addition(owner, first, tasks, blocks))
        first += item.size
    state.tasks = [state.tasks[i] for i in place]
    state.triggered = {place[i]: arrival for i, arrival in state.triggered.items() if i in place}
    rebuild(state, growth)


def _moved(task: KernelTask, place: dict[int, int]) -> KernelTask:
    return task.model_copy(update={"deps": tuple(place[d] for d in task.deps if d in place)})
