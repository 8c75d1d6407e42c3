"""Changes of the graph while it runs: tasks that conditions skip, that become many, that results add; going back."""

from collections.abc import Iterable
from functools import partial
from typing import Any

from engine.contracts.dynamic import Expanded
from engine.contracts.kernel import KernelTask, Rewind, Spawned
from workflows.kernel.coordination import forget_repeated
from workflows.kernel.graph import Addition, Expansion, Group, append_specs, element_specs, link, remove_specs, without
from workflows.kernel.moves import Moves
from workflows.kernel.state import Phase, RunState, TaskRun
from workflows.kernel.undoing import DOUBTFUL


class GraphTransitions(Moves):
    """One method for each kind of change of the graph in a `Delta`."""

    def admit(self, task_id: str) -> None:
        """Evaluated, and to be run."""
        i = self.state.index[task_id]
        self._stop_waiting(i)
        self._make_ready(i)
        self._record("admitted", task_id)

    def guard(self, task_id: str) -> None:
        """Evaluated, and to be run if blocking hooks let it."""
        i = self.state.index[task_id]
        self._stop_waiting(i)
        self.undo.set(self.state.tasks[i], "phase", Phase.GUARDED)
        self.undo.put(self.state.guarded, i, None)
        self._record("guarded", task_id)

    def reuse(self, task_id: str) -> None:
        """Completed with the result of an equal task."""
        self._complete_without_agent(task_id)
        self._record("reused", task_id)

    def gather(self, task_id: str) -> None:
        """All its elements are completed."""
        self._complete_without_agent(task_id)
        self._record("gathered", task_id)

    def _complete_without_agent(self, task_id: str) -> None:
        state = self.state
        i = state.index[task_id]
        self._leave_flight(i, Phase.COMPLETED)
        self.undo.set(state, "completed", state.completed + 1)
        self._release(i)

    def pass_over(self, task_id: str) -> None:
        """Skipped, and its dependents go on; those that have nothing but skipped dependencies are `idle`."""
        state, undo = self.state, self.undo
        i = state.index[task_id]
        self._leave_flight(i, Phase.SKIPPED)
        for j in state.dependents[i]:
            run = state.tasks[j]
            undo.set(run, "remaining", run.remaining - 1)
            if run.remaining == 0 and run.phase is Phase.PENDING:
                self._unblock_unless_idle(j)
        self._record("passed", task_id)

    def _unblock_unless_idle(self, j: int) -> None:
        deps = self.state.specs[j].deps
        if deps and all(self.state.tasks[d].phase is Phase.SKIPPED for d in deps):
            self.idle.append(j)
        else:
            self._unblock(j)

    # Growing -------------------------------------------------------------------------------------------------

    def expand(self, item: Expanded) -> None:
        state, undo = self.state, self.undo
        i, first = state.index[item.task_id], len(state.specs)
        self._stop_waiting(i)
        undo.set(state.tasks[i], "phase", Phase.EXPANDED)
        if item.size == 0:
            self.gatherable.append(i)
        else:
            self._append(Expansion(i, first, item.size), element_specs(state.specs[i], item.size))
            group = Group(first, item.size)
            undo.put(state.groups, i, group)
            state.parent.update(dict.fromkeys(group.elements, i))
            undo.on_rollback(lambda: _orphan(state, group))
            self._begin(group.elements)
        self._record("expanded", item)

    def spawn(self, item: Spawned) -> None:
        self._add_tasks(item)
        self._record("spawned", item)

    def ask(self, item: Spawned) -> None:
        """The pattern's own."""
        self._add_tasks(item)
        self._record("asked", item)

    def _add_tasks(self, item: Spawned) -> None:
        state, undo = self.state, self.undo
        first = len(state.specs)
        self._append(Addition(state.index[item.task_id], first, item.tasks, item.blocks), list(item.tasks))
        for blocked, new in item.blocks:
            self._hold_back(blocked)
            before = state.specs[blocked]
            link(state, blocked, new)
            undo.on_rollback(partial(_unlink, state, blocked, new, before))
        for i in range(first, len(state.specs)):
            run = state.tasks[i]
            run.remaining = sum(not _settled(state.tasks[d].phase) for d in state.specs[i].deps)
            if run.remaining == 0:
                self._unblock_unless_idle(i)

    def _append(self, growth: Expansion | Addition, specs: list[Any]) -> None:
        state, undo = self.state, self.undo
        append_specs(state, specs)
        state.tasks.extend(TaskRun(0) for _ in specs)
        state.growth.append(growth)
        undo.on_rollback(lambda: _shrink(state, growth.first))
        undo.set(state, "open_tasks", state.open_tasks + len(specs))
        undo.set(state, "grown", state.grown + 1)

    def _begin(self, elements: range) -> None:
        """Elements are ready together: one by one they would be sorted in one by one."""
        state, undo = self.state, self.undo
        if not elements:
            return
        spec = state.specs[elements.start]
        if elements.start in state.gated:
            for i in elements:
                self._gate(i)
            return
        for i in elements:
            state.tasks[i].phase = Phase.READY
        ready = sorted([*self._ready_list(elements.start), *((spec.slack_ms, i) for i in elements)])
        if spec.alone:
            undo.set(state, "ready_alone", ready)
        else:
            undo.put(state.ready, spec.role, ready)

    def _hold_back(self, i: int) -> None:
        """One more dependency, that is not done."""
        run = self.state.tasks[i]
        self.undo.set(run, "remaining", run.remaining + 1)
        if run.phase.in_flight:
            return  # it was to follow its predecessor at the same host, and is taken back
        if run.phase is Phase.READY:
            self._leave_ready(i)
        self._stop_waiting(i)
        self.undo.set(run, "phase", Phase.PENDING)
        self.undo.set(run, "due_ms", 0)

    def _element_over(self, i: int) -> None:
        owner = self.state.parent.get(i)
        if owner is None:
            return
        group = self.state.groups[owner]
        self.undo.set(group, "remaining", group.remaining - 1)
        if self.state.tasks[i].phase is Phase.FAILED:
            self.undo.set(group, "failed", group.failed + 1)
        if group.remaining == 0:
            self.gatherable.append(owner)

    # Going back ----------------------------------------------------------------------------------------------

    def rewind(self, item: Rewind) -> None:
        """Go back to a checkpoint: the named tasks and all that was in flight run again, in a new epoch."""
        state = self.state
        saved, loads = dict(state.__dict__), {agent_id: a.load for agent_id, a in state.agents.items()}
        self.undo.on_rollback(lambda: _restore(state, saved, loads))
        again = {state.index[task_id] for task_id in item.tasks}
        settled = _settled_with_owner(state, again)
        state.tasks = [TaskRun.from_list(run.to_list()) for run in state.tasks]
        for i, run in enumerate(state.tasks):
            if (i in again or run.phase is not Phase.COMPLETED) and i not in settled:
                run.phase, run.failures, run.losses, run.agent_id = Phase.PENDING, 0, 0, None
                run.riding = False
        state.triggered, state.kept = dict(state.triggered), dict(state.kept)
        if item.dropped:
            without(state, item.dropped)
        self._return_events()
        forget_repeated(state)
        repeated = {*item.tasks, *item.dropped}
        state.registered = {t: DOUBTFUL if n > 0 and t in repeated else n for t, n in state.registered.items()}
        expanded = {growth.owner for growth in state.growth if isinstance(growth, Expansion)}
        for i, run in enumerate(state.tasks):
            done = (state.tasks[d].phase is Phase.COMPLETED for d in state.specs[i].deps)
            run.remaining = sum(not d for d in done)
            if run.phase is Phase.PENDING and run.remaining == 0:
                run.phase = Phase.READY
                if i in expanded:
                    run.phase = Phase.EXPANDED
                elif i in state.gated:
                    run.phase, run.due_ms = state.gated_phase(i, self.at_ms)
        state.epoch = item.epoch
        state.grown += 1 if state.gated or state.grown else 0
        state.pace_ms = dict(state.pace_ms)
        state.awaiting = {}
        state.reindex()
        self.gatherable.extend(i for i, group in state.groups.items()
                               if group.remaining == 0 and state.tasks[i].phase is Phase.EXPANDED)  # fmt: skip
        self.recorded["rewind"] = item

    def _return_events(self) -> None:
        """What a task took that runs again, it may take again."""
        state = self.state
        for i, arrival in list(state.triggered.items()):
            if state.tasks[i].phase is Phase.PENDING:
                del state.triggered[i]
                if arrival is not None:
                    state.kept[arrival.event_id] = arrival


def dropped_by_rewind(state: RunState, again: Iterable[str]) -> tuple[str, ...]:
    """Added tasks that are no more when these tasks run again.

    What a kept result added stays. A `for_each` task whose dependencies are kept would give the same elements again:
    they stay too, and only those run again that must.
    """
    repeated = {state.index[task_id] for task_id in again}
    dropped: set[int] = set()

    def kept(i: int) -> bool:
        return state.tasks[i].phase is Phase.COMPLETED and i not in repeated and i not in dropped

    for growth in state.growth:
        spec = state.specs[growth.owner]
        if growth.owner in dropped:
            stays = False
        elif isinstance(growth, Expansion):
            stays = kept(growth.owner) or (not spec.triggers and all(kept(d) for d in spec.deps))
        else:
            stays = kept(growth.owner)
        if not stays:
            dropped.update(range(growth.first, growth.first + growth.size))
    return tuple(state.specs[i].id for i in sorted(dropped))


def _settled_with_owner(state: RunState, again: set[int]) -> set[int]:
    """The pattern's own tasks that are over, asked for one that stays completed: nobody would judge them again."""
    found: set[int] = set()
    for growth in state.growth:
        if growth.owner in again or state.tasks[growth.owner].phase is not Phase.COMPLETED:
            continue
        added = range(growth.first, growth.first + growth.size)
        found.update(i for i in added if state.specs[i].asked and state.tasks[i].phase.over)
    return found


def _settled(phase: Phase) -> bool:
    return phase is Phase.COMPLETED or phase is Phase.SKIPPED


def _shrink(state: RunState, first: int) -> None:
    remove_specs(state, first)
    del state.tasks[first:]
    state.growth.pop()


def _orphan(state: RunState, group: Group) -> None:
    for i in group.elements:
        del state.parent[i]


def _unlink(state: RunState, blocked: int, new: int, spec: KernelTask) -> None:
    state.dependents[new].remove(blocked)
    state.specs[blocked] = spec
    if spec.fused:
        state.followers[spec.deps[0]] = blocked


def _restore(state: RunState, saved: dict[str, Any], loads: dict[str, int]) -> None:
    state.__dict__.clear()
    state.__dict__.update(saved)
    for agent_id, load in loads.items():
        state.agents[agent_id].load = load
