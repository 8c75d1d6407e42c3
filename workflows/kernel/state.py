"""The state of one running execution, as the kernel sees it.

Changed only through `workflows.kernel.transitions`. All iteration orders are deterministic: lists are sorted,
dictionaries are read in sorted order wherever the order can show.
"""

from enum import IntEnum
from typing import Any

from engine.contracts.dynamic import Arrival
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, Errand, ExecutionInput, KernelPlan, KernelTask, Submission
from workflows.kernel.graph import (
    Expansion,
    Group,
    Growth,
    append_specs,
    followers_of,
    graph_snapshot,
    is_guarded,
    needs_evaluation,
    restore_graph,
    trigger_due_ms,
)
from workflows.kernel.undoing import UndoState

STATE_VERSION = 4
"""Of snapshots. 2 added the growing graph, 3 what patterns remember, 4 compensation; older ones are read as without."""

PACE_WEIGHT = 0.3
"""Weight of the newest duration in a role's moving average."""

_TRACKING_STRATEGIES = frozenset({"round_robin", "weighted"})
"""Ways to choose an agent that need to know what each agent did before."""


class Phase(IntEnum):
    """Where a task stands. Stored in snapshots: values never change their meaning."""

    PENDING = 0
    """Dependencies are not done."""
    READY = 1
    DELAYED = 2
    """Failed, and waiting for its retry."""
    ASSIGNED = 3
    """Sent to an agent that has not said that it started."""
    RUNNING = 4
    COMPLETED = 5
    FAILED = 6
    SKIPPED = 7
    CANCELLED = 8
    HELD = 9
    """Dependencies are done; an evaluation decides what becomes of it."""
    AWAITING = 10
    """Dependencies are done; it waits for an external event."""
    EXPANDED = 11
    """It stands for its elements, which run."""
    SUBMITTED = 12
    """An attempt of it has ended, or the pattern has taken it over: the pattern decides what becomes of it."""
    GUARDED = 13
    """It could start; blocking hooks are asked whether it may."""

    @property
    def in_flight(self) -> bool:
        return self in (Phase.ASSIGNED, Phase.RUNNING)

    @property
    def over(self) -> bool:
        return Phase.COMPLETED <= self <= Phase.CANCELLED


class TaskRun:
    """The run-time side of one task."""

    __slots__ = (
        "agent_id",
        "assigned_at_ms",
        "attempt",
        "due_ms",
        "failures",
        "losses",
        "phase",
        "remaining",
        "resends",
        "riding",
    )

    def __init__(self, remaining: int) -> None:
        self.phase = Phase.PENDING
        self.remaining = remaining
        """Dependencies that are not completed."""
        self.attempt = 0
        self.failures = 0
        self.losses = 0
        self.resends = 0
        self.riding = False
        """In flight behind dependencies at the same host that are not done: it takes no slot and is not due."""
        self.agent_id: str | None = None
        self.assigned_at_ms = 0
        self.due_ms = 0
        """DELAYED: when to retry; ASSIGNED: when to send again; RUNNING: when it times out."""

    def saved(self) -> tuple[Any, ...]:
        """What `restore` takes it back to."""
        return (self.phase, self.remaining, self.attempt, self.failures, self.losses, self.resends,
                self.agent_id, self.assigned_at_ms, self.due_ms, self.riding)  # fmt: skip

    def restore(self, saved: tuple[Any, ...]) -> None:
        (self.phase, self.remaining, self.attempt, self.failures, self.losses, self.resends,
         self.agent_id, self.assigned_at_ms, self.due_ms, self.riding) = saved  # fmt: skip

    def to_list(self) -> list[Any]:
        return [int(self.phase), self.remaining, self.attempt, self.failures, self.losses, self.resends,
                self.agent_id, self.assigned_at_ms, self.due_ms, int(self.riding)]  # fmt: skip

    @classmethod
    def from_list(cls, values: list[Any]) -> "TaskRun":
        run = cls(values[1])
        run.phase = Phase(values[0])
        run.attempt, run.failures, run.losses, run.resends = values[2:6]
        run.agent_id, run.assigned_at_ms, run.due_ms = values[6:9]
        run.riding = bool(values[9]) if len(values) > 9 else False
        return run


class AgentRun:
    """A logical agent: bound to a host process, or (host_id None) waiting for one."""

    __slots__ = ("agent_id", "chains", "host_id", "load", "pace_ms", "role", "slots", "speed", "suspect", "turn")

    def __init__(self, agent_id: str, role: str) -> None:
        self.agent_id = agent_id
        self.role = role
        self.host_id: str | None = None
        self.slots = 1
        self.chains = False
        """Its host understands fused chains."""
        self.suspect = False
        """Its host is silent for longer than usual: what it has stays there, and nothing new goes there."""
        self.speed = 1.0
        """Of its host, where most of its type have 1.0."""
        self.load = 0
        """Attempts in flight, those that ride behind others not counted."""
        self.turn = 0
        """Where its last assignment stands among all of the execution, and (below) a moving average of how long its
        tasks take. Kept only where the strategy asks for it, see `RunState.tracks_agents`."""
        self.pace_ms: float | None = None

    @property
    def takes_work(self) -> bool:
        return self.host_id is not None and not self.suspect

    def share(self, load: int) -> float:
        """How much it has to do with so many attempts, by which agents are compared. At a slow host that is how long
        one more would take there, waiting included, beyond the time that it takes at others: such a host gets work
        when those would not be done sooner."""
        full = load / self.slots
        return full if self.speed == 1.0 else (full + 1) / self.speed - 1


class RunState:
    """Everything that decides what happens next."""

    def __init__(self, launch: ExecutionInput) -> None:
        plan = launch.plan
        self.launch = launch
        self.plan: KernelPlan = plan
        self.specs: list[KernelTask] = []
        """The plan's tasks, and after them those that were added since."""
        self.index: dict[str, int] = {}
        self.dependents: list[list[int]] = []
        self.gated: set[int] = set()
        """Tasks of which more than their dependencies decides."""
        self.pinned: set[int] = set()
        """Tasks that only one agent may do."""
        self.growth: list[Growth] = []
        self.grown = 0
        """Rises with every change of what dispatch must know of tasks."""
        append_specs(self, plan.tasks)
        self.followers = followers_of(plan.tasks)
        """The next task of the fused chain."""
        self.held: dict[int, None] = {}
        self.guarded: dict[int, None] = {}
        """Tasks that blocking hooks are asked about."""
        self.awaiting: dict[int, int] = {}
        """Tasks that wait for an event, with the number of the last one that they refused."""
        self.triggered: dict[int, Arrival | None] = {}
        """Tasks whose wait is over, with the event that ended it."""
        self.groups: dict[int, Group] = {}
        self.parent: dict[int, int] = {}
        """The `for_each` task of each element."""
        self.kept: dict[str, Arrival] = {}
        """External events that no trigger has taken."""
        self.arrivals = 0
        self.remembered: dict[str, int] = {}
        """Ids and numbers of the last external events, to know repetitions."""
        self.sweep_due = False
        """A trigger may take an event: something has come or begun to wait since they were last matched."""

        self.board: dict[str, Any] = {}
        """What the pattern remembers. Keys are "<task id>/<name>", or "/<name>" for what belongs to no task."""
        self.submitted: dict[int, Submission] = {}
        self.errands: dict[str, Errand] = {}
        """Begun and not returned, by key."""
        self.registered: dict[str, int] = {}
        """Tasks that can be undone, from their first assignment on: the tick that completed them, or see `undoing`."""
        self.undoing: UndoState | None = None
        """In place of closing: what is undone."""

        self.tick = 0
        self.epoch = 1
        self.status = ExecutionStatus.PLANNING
        self.tasks = [TaskRun(len(task.deps)) for task in plan.tasks]
        self.agents: dict[str, AgentRun] = {}
        for role, need in sorted(plan.roles.items()):
            for n in range(1, need.count + 1):
                agent_id = f"{role}-{n}"
                self.agents[agent_id] = AgentRun(agent_id, role)

        self.suspects: dict[str, int] = {}
        """Agents whose host is suspect, and until when: should the news that it recovered be lost."""
        self.tracks_agents = launch.pattern_config.get("strategy") in _TRACKING_STRATEGIES
        self.turns = 0
        """Assignments so far, where they are counted."""
        self.by_role: dict[str, list[AgentRun]] = {role: [] for role in sorted(plan.roles)}
        for agent in self.agents.values():
            self.by_role[agent.role].append(agent)
        self.ready: dict[str, list[tuple[int, int]]] = {role: [] for role in sorted(plan.roles)}
        """For each role, (slack_ms, index) of its ready tasks, most urgent first."""
        self.ready_alone: list[tuple[int, int]] = []
        self.in_flight: dict[int, None] = {}
        self.riders = 0
        self.delayed: dict[int, None] = {}
        self.open_tasks = len(plan.tasks)
        """Tasks that are not over."""
        self.completed = 0
        self.failed = 0
        self.pace_ms: dict[str, float] = {}
        """For each role, a moving average of how long its tasks take."""

        self.consumed: dict[str, None] = {}
        self.low = (0, 0)
        self.fence = 0
        self.deadline_ms = launch.started_at_ms + launch.timeout_ms
        self.checkpoint_due_ms = launch.started_at_ms + launch.checkpoint_interval_ms
        self.checkpointed = 0
        """`completed` at the last checkpoint: nothing new, no new interval checkpoint."""
        self.latest_checkpoint: str | None = None
        self.paused_at_ms: int | None = None
        self.grace_due_ms: int | None = None
        self.paused_ms = 0
        self.idle_ms = 0
        self.covered_until_ms = launch.started_at_ms
        """Up to here it is settled whether a task ran."""
        self.control_seen: str | None = None
        for run in self.tasks:
            if run.remaining == 0:
                run.phase = Phase.READY
        for i in sorted(self.gated):
            if self.tasks[i].phase is Phase.READY:
                self.tasks[i].phase, self.tasks[i].due_ms = self.gated_phase(i, launch.started_at_ms)
        self.reindex()

    def gated_phase(self, i: int, at_ms: int) -> tuple[Phase, int]:
        """(phase, due time) of a task whose dependencies are done and of which more decides."""
        spec = self.specs[i]
        if spec.triggers and i not in self.triggered:
            return Phase.AWAITING, trigger_due_ms(spec, at_ms)
        if needs_evaluation(spec):
            return Phase.HELD, 0
        return (Phase.GUARDED if self.asks_hooks(i) else Phase.READY), 0

    def asks_hooks(self, i: int) -> bool:
        """Whether blocking hooks must let it pass first."""
        return is_guarded(self, i) and passed_key(self.specs[i].id) not in self.board

    @property
    def added(self) -> int:
        """Tasks that are not in the plan."""
        return len(self.specs) - len(self.plan.tasks)

    def agents_of(self, role: str) -> list[AgentRun]:
        """The role's agents, bound or not, in the order of their numbers."""
        return self.by_role[role]

    def unbound_agents(self) -> tuple[str, ...]:
        """Agents that wait for a host."""
        return tuple(sorted(agent_id for agent_id, agent in self.agents.items() if agent.host_id is None))

    def attempt(self, i: int) -> Attempt:
        """The attempt of a task that is in flight."""
        run = self.tasks[i]
        return Attempt.trusted(task_id=self.specs[i].id, agent_id=run.agent_id or "", attempt=run.attempt)

    @property
    def paused(self) -> bool:
        return self.status is ExecutionStatus.PAUSED

    @property
    def closed(self) -> bool:
        return self.status.closed

    @property
    def ending(self) -> bool:
        """Nothing new is done: it is closed, or undone."""
        return self.status.closed or self.undoing is not None

    def snapshot(self) -> dict[str, Any]:
        """Plain JSON from which `restore` makes an equal state. Readers of old snapshots must stay."""
        return {
            "version": STATE_VERSION,
            "tick": self.tick,
            "epoch": self.epoch,
            "status": str(self.status),
            "tasks": [run.to_list() for run in self.tasks],
            "agents": [self._agent_to_list(a) for _, a in sorted(self.agents.items())],
            "pace_ms": {role: self.pace_ms[role] for role in sorted(self.pace_ms)},
            "consumed": sorted(self.consumed),
            "low": list(self.low),
            "fence": self.fence,
            "graph": graph_snapshot(self),
            "coordination": coordination_snapshot(self),
            "compensation": compensation_snapshot(self),
            "health": self._health_snapshot(),
            "scalars": {name: getattr(self, name) for name in _SCALARS},
        }

    def _health_snapshot(self) -> dict[str, Any]:
        speeds = {agent_id: agent.speed for agent_id, agent in sorted(self.agents.items()) if agent.speed != 1.0}
        return {"suspects": [[agent_id, self.suspects[agent_id]] for agent_id in sorted(self.suspects)],
                "speeds": speeds}  # fmt: skip

    def _restore_health(self, data: dict[str, Any]) -> None:
        self.suspects = dict(data.get("suspects", ()))
        for agent_id in self.suspects:
            self.agents[agent_id].suspect = True
        for agent_id, speed in data.get("speeds", {}).items():
            self.agents[agent_id].speed = speed

    def _agent_to_list(self, agent: AgentRun) -> list[Any]:
        tracked = [agent.turn, agent.pace_ms] if self.tracks_agents else []
        return [agent.agent_id, agent.host_id, agent.slots, int(agent.chains), *tracked]

    @classmethod
    def restore(cls, launch: ExecutionInput, data: dict[str, Any]) -> "RunState":
        if data.get("version", 1) > STATE_VERSION:
            raise ValueError(f"a state of version {data['version']}; this code reads up to {STATE_VERSION}")
        state = cls(launch)
        restore_graph(state, data.get("graph", {}))
        state.tick, state.epoch, state.status = data["tick"], data["epoch"], ExecutionStatus(data["status"])
        state.tasks = [TaskRun.from_list(values) for values in data["tasks"]]
        for agent_id, host_id, slots, *more in data["agents"]:
            agent = state.agents[agent_id]
            agent.host_id, agent.slots, agent.chains = host_id, slots, bool(more and more[0])
            if len(more) > 2:
                agent.turn, agent.pace_ms = more[1], more[2]
        state._restore_health(data.get("health", {}))
        state.pace_ms = dict(data["pace_ms"])
        state.consumed = dict.fromkeys(data["consumed"])
        state.low, state.fence = (data["low"][0], data["low"][1]), data["fence"]
        for name, value in data["scalars"].items():
            setattr(state, name, value)
        restore_coordination(state, data.get("coordination", {}))
        restore_compensation(state, data.get("compensation", {}))
        state.reindex()
        return state

    def reindex(self) -> None:
        """Derive the indexes and counts from the tasks' phases."""
        self.ready = {role: [] for role in sorted(self.plan.roles)}
        self.ready_alone, self.in_flight, self.delayed, self.held = [], {}, {}, {}
        self.guarded = {}
        looked, self.awaiting = self.awaiting, {}
        self.open_tasks = self.completed = self.failed = self.riders = 0
        for agent in self.agents.values():
            agent.load = 0
        for i, run in enumerate(self.tasks):
            task = self.specs[i]
            if run.phase is Phase.READY:
                (self.ready_alone if task.alone else self.ready[task.role]).append((task.slack_ms, i))
            elif run.phase is Phase.DELAYED:
                self.delayed[i] = None
            elif run.phase.in_flight:
                self.in_flight[i] = None
                if run.agent_id is not None and not run.riding:
                    self.agents[run.agent_id].load += 1
            elif run.phase is Phase.HELD:
                self.held[i] = None
            elif run.phase is Phase.GUARDED:
                self.guarded[i] = None
            elif run.phase is Phase.AWAITING:
                self.awaiting[i] = looked.get(i, 0)
            self.riders += run.riding
            self.open_tasks += not run.phase.over
            self.completed += run.phase is Phase.COMPLETED
            self.failed += run.phase is Phase.FAILED
        for items in (*self.ready.values(), self.ready_alone):
            items.sort()
        self.sweep_due = bool(self.awaiting and self.kept)
        self._regroup()

    def _regroup(self) -> None:
        self.groups, self.parent = {}, {}
        for growth in self.growth:
            if isinstance(growth, Expansion):
                group = self.groups[growth.owner] = Group(growth.first, growth.size)
                phases = [self.tasks[i].phase for i in group.elements]
                group.remaining = sum(not phase.over for phase in phases)
                group.failed = phases.count(Phase.FAILED)
                self.parent.update(dict.fromkeys(group.elements, growth.owner))


def passed_key(task_id: str) -> str:
    """Where on the board it stands that blocking hooks let the task pass."""
    return f"{task_id}/hooks"


def coordination_snapshot(state: RunState) -> dict[str, Any]:
    """What patterns remember; empty for those that remember nothing."""
    if not (state.board or state.submitted or state.errands):
        return {}
    submitted = [state.submitted[i] for i in sorted(state.submitted)]
    errands = [state.errands[key] for key in sorted(state.errands)]
    return {
        "board": dict(sorted(state.board.items())),
        "submitted": [item.model_dump(mode="json", exclude_defaults=True) for item in submitted],
        "errands": [item.model_dump(mode="json", exclude_defaults=True) for item in errands],
    }


def restore_coordination(state: RunState, data: dict[str, Any]) -> None:
    state.board = dict(data.get("board", {}))
    for item in data.get("submitted", ()):
        submission = Submission.model_validate(item)
        state.submitted[state.index[submission.task_id]] = submission
    for item in data.get("errands", ()):
        errand = Errand.model_validate(item)
        state.errands[errand.key] = errand


def compensation_snapshot(state: RunState) -> dict[str, Any]:
    if not state.registered and state.undoing is None:
        return {}
    return {
        "registered": [[task_id, state.registered[task_id]] for task_id in sorted(state.registered)],
        "undoing": None if state.undoing is None else state.undoing.snapshot(),
    }


def restore_compensation(state: RunState, data: dict[str, Any]) -> None:
    state.registered = dict(data.get("registered", ()))
    undoing = data.get("undoing")
    state.undoing = None if undoing is None else UndoState.from_snapshot(undoing)


_SCALARS = (
    "deadline_ms", "checkpoint_due_ms", "checkpointed", "latest_checkpoint", "paused_at_ms", "grace_due_ms",
    "paused_ms", "idle_ms", "covered_until_ms", "control_seen", "turns",
)  # fmt: skip
