"""The world of `loss_parts`, its steps, what must hold after each of them, and the way to the end when faults stop."""

from typing import Any, cast

from activities.ticks import TickActivities
from engine.contracts import activity_names
from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AgentEvent, AgentEventType
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput, TickOutcome
from engine.contracts.streams import entry_order
from tests.unit.workflows.drill import launch_input, task
from tests.unit.workflows.loss_parts import (
    HISTORY_ITEMS_MAX,
    SIGNALS_MAX,
    Attempted,
    HastyActivities,
    Host,
    Journal,
    ModelBinder,
    ModelBridge,
    ModelDispatcher,
    ModelLingering,
    Outgoing,
    Redis,
)
from tests.unit.workflows.loss_temporal import CLOCK, Run, Running, TaskAttempt, Temporal, binding

FAIR_ROUNDS_MAX = 300
REPEAT_EVERY_ROUNDS = 10
STEPS_A_TASK_MAX = 200


def launch_of(dependencies: list[tuple[int, ...]]) -> ExecutionInput:
    """Quick to run again: what a fault costs is an attempt, not the execution."""
    retry = RetryPolicy(max_attempts=100, initial_delay_seconds=0.1, max_delay_seconds=1.0)
    tasks = [task(f"t{n}", deps, retry=retry, timeout_ms=20_000) for n, deps in enumerate(dependencies)]
    return launch_input(*tasks, timeout_ms=10**12, checkpoint_interval_ms=10**12, history_events_max=HISTORY_ITEMS_MAX)


class Process:
    """One of the engine's worker processes. It carries the workflow out, or bridges, or both."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self.lingering = ModelLingering()
        self.bridge = ModelBridge(world.redis, self.lingering, world.network, world.launch)
        kind = HastyActivities if world.bug == "acknowledges before the commit" else TickActivities
        dispatcher = cast(Any, ModelDispatcher(world.redis))
        self._ticks = kind(
            cast(Any, world.journal),
            cast(Any, None),
            dispatcher,
            self.lingering,
            self.bridge.acknowledged,
            ModelBinder(),
        )
        if isinstance(self._ticks, HastyActivities):
            self._ticks.redis = world.redis
        self.attempt: TaskAttempt | None = None
        self._running: Running | None = None
        self._cached: tuple[Run, int] | None = None
        """Up to where the history is in the cached workflow, when it has nothing beyond that."""
        self._activity: Any = None

    @property
    def in_activity(self) -> bool:
        return self._activity is not None

    def begin(self) -> None:
        """Take a workflow task; without the workflow in memory, or with more in it than the history, replay it."""
        temporal = self._world.temporal
        if self._running is None or self._cached != (temporal.run, len(temporal.run.items)):
            self._running = temporal.replay()
        self._cached = None
        self.attempt = temporal.begin()
        self._running.hear(self.attempt.events, self.attempt.now_ms, self.attempt.length)
        if not self._running.wants_activity:
            self._running.proceed()

    def step(self) -> None:
        """To the next place where it waits for the world."""
        if self.attempt is None or self._running is None:
            return
        if not self._running.wants_activity:
            self._complete(self.attempt, self._running)
            return
        if self._activity is None:
            asked = self._running.asked
            assert asked is not None
            begins = asked.what == activity_names.BEGIN_EXECUTION
            activity = self._ticks.begin_execution if begins else self._ticks.commit_tick
            self._activity = activity(cast(Any, asked.handed))
        try:
            self._activity.send(None)
        except StopIteration as done:
            self._activity = None
            outcome = TickOutcome.model_validate_json(done.value.model_dump_json())
            self.attempt.outcomes.append(outcome)
            self._running.proceed(outcome)

    def beat(self) -> None:
        """The activity takes long: the workflow task is completed and goes on as the next one."""
        if self.attempt is None or self._running is None:
            return
        later = self._world.temporal.beat(self.attempt)
        if later is not None:
            self._running.hear(later, self.attempt.now_ms, self.attempt.length)

    def give_up_activity(self) -> None:
        """It took too long: it is cancelled where it is, and tried again."""
        if self._activity is not None:
            self._activity.close()
            self._activity = None

    def _complete(self, attempt: TaskAttempt, running: Running) -> None:
        temporal = self._world.temporal
        run = temporal.run
        accepted = temporal.complete(attempt, running)
        self.attempt = None
        if accepted:
            self._world.assert_agrees(running)
            self._cached = (run, len(run.items))
        if not accepted or running.ended is not None:
            self._running = self._cached = None


class World:
    """Everything, and the steps that it can take. A step that is not possible does nothing."""

    def __init__(self, launch: ExecutionInput, bug: str | None = None, processes: int = 2) -> None:
        CLOCK.now_ms = launch.started_at_ms
        self.launch = launch
        self.bug = bug
        self.journal = Journal(launch)
        self.temporal = Temporal(launch, bug)
        self.redis = Redis()
        self.network: list[Outgoing] = []
        self.processes = [Process(self) for _ in range(processes)]
        self.hosts = {"host-1": Host("host-1", self.redis)}
        self.hosts_made = 1
        self.owner = 0
        self.fence = 1
        self.processes[0].bridge.own(1)

    # Agents ------------------------------------------------------------------------------------------------------

    def host(self, number: int) -> Host:
        return list(self.hosts.values())[number % len(self.hosts)]

    def host_reads(self, host: Host) -> None:
        if host.waiting():
            host.read()

    def host_begins(self, host: Host) -> None:
        if host.running:
            host.begin(next(iter(host.running)))

    def host_ends(self, host: Host, count: int) -> None:
        ended: list[Attempted] = list(host.running)[:count]
        if ended:
            host.end(*ended)

    def host_dies(self, host: Host) -> None:
        """The registry notices; another one is there at once."""
        del self.hosts[host.host_id]
        self.hosts_made += 1
        fresh = f"host-{self.hosts_made}"
        self.hosts[fresh] = Host(fresh, self.redis)
        gone = AgentEvent(type=AgentEventType.DISCONNECTED, at_ms=CLOCK.now_ms, host_id=host.host_id)
        self.redis.report(gone)

    def hosts_are_found(self) -> None:
        """The regular activity that looks for hosts answers."""
        if self.temporal.wanted and not self.temporal.closed:
            host_id = next(reversed(self.hosts))
            found = [binding(agent_id, host_id) for agent_id in self.temporal.wanted.pop(0)]
            self.temporal.unseen.append(("found", found))

    # Bridge and streams ------------------------------------------------------------------------------------------

    def partition_goes_to(self, number: int) -> None:
        """Its old owner has stopped; what that one sent may still be on its way."""
        self.processes[self.owner].bridge.own(None)
        self.owner = number % len(self.processes)
        self.fence += 1
        self.processes[self.owner].bridge.own(self.fence)

    def bridge_reads(self, count: int) -> None:
        self.processes[self.owner].bridge.read(count)

    def signal_goes(self, number: int, *, arrives: bool = True, answered: bool = True) -> None:
        if not self.network:
            return
        signal = self.network.pop(number % len(self.network))
        if arrives and self.temporal.closed:
            if signal.bridge is not None:
                signal.bridge.late(signal)
            return
        if arrives:
            self.temporal.unseen.append(("events", signal.batches))
        if signal.bridge is not None:
            signal.bridge.answered(signal, arrived=arrives and answered)

    # Worker and server -------------------------------------------------------------------------------------------

    def task_begins(self, process: Process) -> None:
        if process.attempt is None and self.temporal.wants_task():
            process.begin()

    def task_times_out(self) -> None:
        """The worker is dead, or so slow that another one gets the next workflow task."""
        self.temporal.fail()

    def meaningless_signal(self) -> None:
        if not self.temporal.closed:
            self.temporal.unseen.append(("catch_up", None))

    def process_dies(self, number: int) -> None:
        number %= len(self.processes)
        dead = self.processes[number]
        dead.give_up_activity()
        for signal in self.network:
            if signal.bridge is dead.bridge:
                signal.bridge = None
        self.processes[number] = Process(self)
        if number == self.owner:
            self.fence += 1
            self.processes[number].bridge.own(self.fence)

    def reconciles(self) -> None:
        if len(self.journal.texts) > self.journal.base_tick or self.journal.closed:
            self.meaningless_signal()

    # What holds --------------------------------------------------------------------------------------------------

    def assert_agrees(self, running: Running) -> None:
        """What Temporal has recorded is what the journal holds."""
        state = running.workflow.state
        assert state.tick < len(self.journal.states), "a tick that was never stored is in the history"
        assert state.snapshot() == self.journal.states[state.tick], "the history tells another state than the journal"

    def assert_invariants(self) -> None:
        consumed = self.journal.consumed
        order = [entry_order(entry_id) for entry_id in consumed]
        assert order == sorted(order), "an entry was overtaken by a later one"
        unfounded = self.redis.acknowledged - consumed.keys()
        assert not unfounded, f"acknowledged and never consumed: {sorted(unfounded)}"
        if not self.journal.closed:
            low = self.journal.fold.low
            dropped = [e for e in self.redis.now.entries if e not in consumed and entry_order(e) < low]
            assert not dropped, f"below the watermark and not consumed: {dropped}"
        for process in self.processes:
            for deliveries in process.bridge.held:
                now = CLOCK.monotonic()
                signals = {h.signal for h in deliveries.held.values() if h.signal is not None and not h.overdue(now)}
                assert len(signals) <= SIGNALS_MAX, f"{len(signals)} signals are not covered"

    def assert_done(self) -> None:
        """Each task was completed once, after what it depends on; and Temporal knows that it is over."""
        assert self.temporal.closed, "it is stuck"
        assert self.journal.fold.status is ExecutionStatus.COMPLETED
        done: list[str] = []
        names = [spec.id for spec in self.launch.plan.tasks]
        for item in (item for delta in self.journal.deltas for item in delta.done):
            spec = self.launch.plan.tasks[names.index(item.task_id)]
            assert {names[dependency] for dependency in spec.deps} <= set(done)
            done.append(item.task_id)
        assert sorted(done) == sorted(names)

    # To the end --------------------------------------------------------------------------------------------------

    def finish(self) -> int:
        """No more faults: everybody does in turn what he can. How many rounds it took."""
        for rounds in range(FAIR_ROUNDS_MAX):
            if self.temporal.closed and not self.network:
                return rounds
            self._fair_round(rounds)
            self.assert_invariants()
        return FAIR_ROUNDS_MAX

    def _fair_round(self, rounds: int) -> None:
        CLOCK.now_ms += 1_000
        for host in list(self.hosts.values()):
            while host.waiting():
                host.read()
            self.host_ends(host, 100)
            if rounds % REPEAT_EVERY_ROUNDS == 0:
                host.repeat()
        self.bridge_reads(1_000)
        for process in self.processes:
            process.lingering.expire()
            process.bridge.sweep()
        while self.network:
            self.signal_goes(0)
        while self.temporal.wanted and not self.temporal.closed:
            self.hosts_are_found()
        if rounds % REPEAT_EVERY_ROUNDS == 0:
            self.reconciles()
        holders = [process.attempt for process in self.processes]
        if self.temporal.attempt is not None and self.temporal.attempt not in holders:
            self.task_times_out()
        for process in self.processes:
            self.task_begins(process)
            for _ in range(STEPS_A_TASK_MAX):
                if process.attempt is None:
                    break
                process.step()
