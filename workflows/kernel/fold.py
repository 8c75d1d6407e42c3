"""Fold what agents report into the state: who started, finished, failed, gave back, vanished."""

from collections.abc import Callable, Iterable, Sequence
from uuid import NAMESPACE_OID, uuid5

from engine.contracts.circuits import Verdict
from engine.contracts.dynamic import SpawnedBody
from engine.contracts.events import AgentEvent, AgentEventType, AuditEventType, TaskError
from engine.contracts.kernel import (
    AgentBinding,
    Attempt,
    Done,
    Failed,
    Paced,
    Started,
    Submission,
    Suspected,
    TaskResult,
)
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX, TASK_LOSSES_MAX
from workflows.kernel.audit import AuditTrail
from workflows.kernel.chains import riders
from workflows.kernel.spawning import SPAWN_REFUSED, SpawnRefusedError, plan_spawn
from workflows.kernel.state import AgentRun, Phase, RunState, TaskRun
from workflows.kernel.transitions import Transitions

SUSPECT_MS_MAX = 60_000
"""A host is heard again or gone long before. After this its agents count as others do: the news may have been lost."""

_HOST_NEWS = frozenset({AgentEventType.SUSPECT, AgentEventType.RECOVERED, AgentEventType.SPEED})

AGENT_LOST = "AGENT_LOST"
TASK_TIMEOUT = "TASK_TIMEOUT"


def derived_id(state: RunState, purpose: str) -> str:
    """A UUID that every replay of this tick computes alike."""
    return str(uuid5(NAMESPACE_OID, f"{state.launch.execution_id}/{state.tick}/{purpose}"))


class Fold:
    """One tick's reading of the inbox."""

    def __init__(self, change: Transitions, trail: AuditTrail, judges: Callable[[int], bool] | None = None) -> None:
        """`judges` says of which tasks the pattern wants to judge the end; None: of none."""
        self.change = change
        self.state: RunState = change.state
        self.trail = trail
        self._judges = judges
        self.judges_failure = judges
        """The same for failures."""
        self.refuses_added: Callable[[int, Sequence[SpawnedBody]], str | None] | None = None
        """Why the result of a task may not add these; None: the pattern has no say."""
        self.branch_only: set[str] = set()
        """Tasks that are given up, and their branch with them, while the others go on whatever the definition says."""
        self.submitted: list[int] = []
        self.results: list[TaskResult] = []
        self.cancel: list[Attempt] = []
        self.ended: list[tuple[Attempt, Verdict, str]] = []
        """Attempts whose end says something of their agent, and (failures) as what they count: a lost host's as one.
        Successes are of interest to circuit breakers only."""
        self.first_failed: Failed | None = None
        self.hosts_came = False
        self.bodies: list[SpawnedBody] = []
        """Of tasks that results added."""
        self._lost_hosts: list[tuple[str, str]] = []
        """With the reason, where it is known."""
        self._news: dict[str, list[AgentEvent]] = {}
        """Of hosts: the last word on whether they are suspect, and on their speed."""

    def bindings(self, bindings: Iterable[AgentBinding]) -> None:
        for binding in bindings:
            agent = self.state.agents.get(binding.agent_id)
            if agent is None or (agent.host_id, agent.slots) == (binding.host_id, binding.slots):
                continue
            if agent.host_id is not None and agent.load:
                continue  # its present host has work of it: it stays until that host is lost
            self.change.bind(binding)
            self.trail.bound(binding)

    def events(self, events: Iterable[AgentEvent]) -> None:
        """In the order in which they came, but that losses of hosts come last: a result beats the news of a death."""
        returned: list[AgentEvent] = []
        for event in events:
            if event.type is AgentEventType.DISCONNECTED:
                self._lost_hosts.append((event.host_id, event.reason))
            elif event.type is AgentEventType.REGISTERED:
                self.hosts_came = True
            elif event.type is AgentEventType.CIRCUIT_CLOSED:
                continue  # `Circuits.take_in` reads it
            elif event.type in _HOST_NEWS:
                self._news.setdefault(event.host_id, []).append(event)
            elif event.type is AgentEventType.TASK_RETURNED:
                returned.append(event)
            else:
                self._task_event(event)
        # As a stored tick is applied: first what was done, then what was given back behind it.
        for event in returned:
            self._task_event(event)
        if self._news:
            self._hear_of_hosts()
        for host_id, reason in self._lost_hosts:
            for agent_id in sorted(self.state.agents):
                agent = self.state.agents[agent_id]
                if agent.host_id == host_id:
                    why = f"the process {host_id} that served it is gone"
                    self.lose(agent, f"{why} ({reason})" if reason else why, reason)

    def _hear_of_hosts(self) -> None:
        for agent_id in sorted(self.state.agents):
            agent = self.state.agents[agent_id]
            for event in self._news.get(agent.host_id or "", ()):
                if event.type is AgentEventType.SPEED and event.speed != agent.speed:
                    self.change.pace(Paced(agent_id=agent_id, speed=event.speed))
            suspicions = [e for e in self._news.get(agent.host_id or "", ()) if e.type is not AgentEventType.SPEED]
            if not suspicions:
                continue
            suspect = suspicions[-1].type is AgentEventType.SUSPECT
            if suspect and not agent.suspect:
                until_ms = self.change.at_ms + SUSPECT_MS_MAX
                self.change.suspect(Suspected(agent_id=agent_id, until_ms=until_ms))
                self.trail.host_suspect(agent_id, agent.host_id)
            elif agent.suspect and not suspect:
                self.recover(agent)

    def recover(self, agent: AgentRun) -> None:
        self.trail.host_recovered(agent.agent_id, agent.host_id)
        self.change.recover(agent.agent_id)

    def lose(self, agent: AgentRun, why: str, reason: str = "") -> None:
        """Its host is gone: what it had in flight runs elsewhere, and it needs another host."""
        state = self.state
        for i in sorted(state.in_flight):
            if state.tasks[i].agent_id != agent.agent_id:
                continue
            if state.tasks[i].riding:  # behind a task of another agent of the same host
                for j in (i, *riders(state, i)):
                    self.change.doubt(state.specs[j].id)
                self._take_back((i, *riders(state, i)), "its agent was lost")
            else:
                self.fail(i, AGENT_LOST, f"agent {agent.agent_id} was lost: {why}", retryable=True, blamed=False)
        self.trail.host_lost(agent.agent_id, agent.host_id, reason)
        self.change.lose(agent.agent_id)

    def _task_event(self, event: AgentEvent) -> None:
        i = self.state.index.get(event.task_id)
        run = None if i is None else self.state.tasks[i]
        if i is None or run is None or not self._is_current(run, event):
            self._refuse(run, event)
            return
        if run.riding and event.type is not AgentEventType.TASK_RETURNED:
            return  # its predecessor's report is missing; the host says both again
        at_ms = min(max(event.at_ms, run.assigned_at_ms), self.change.at_ms)
        if event.type is AgentEventType.TASK_STARTED:
            if run.phase is Phase.ASSIGNED:
                self.change.start(Started(task_id=event.task_id, attempt=event.attempt, at_ms=at_ms))
                self.trail.started(event.task_id, event.agent_id, event.attempt, at_ms)
        elif event.type is AgentEventType.TASK_COMPLETED:
            self._complete(run, event, at_ms)
        elif event.type is AgentEventType.TASK_FAILED:
            self._note_start(run, event, at_ms)
            error = event.error or TaskError(code="AGENT_ERROR", message="the agent gave no reason")
            self.fail(i, error.code, error.message, retryable=error.retryable, at_ms=at_ms)
        elif event.type is AgentEventType.TASK_RETURNED:
            attempt = Attempt(task_id=event.task_id, agent_id=event.agent_id, attempt=event.attempt)
            self.change.give_back(attempt)
            self.trail.returned(attempt, "not started")
            self._take_back_riders(i)

    def _take_back_riders(self, i: int) -> None:
        """It is not done: what was to run after it at the same host waits again."""
        why = f"{self.state.specs[i].id}, which it was to follow, is not done"
        self._take_back(tuple(riders(self.state, i)), why)

    def _take_back(self, tasks: Iterable[int], why: str) -> None:
        for j in tasks:
            attempt = self.state.attempt(j)
            self.cancel.append(attempt)
            self.change.give_back(attempt)
            self.trail.returned(attempt, why)

    def _is_current(self, run: TaskRun, event: AgentEvent) -> bool:
        return (
            run.phase.in_flight
            and event.epoch == self.state.epoch
            and event.attempt == run.attempt
            and event.agent_id == run.agent_id
        )

    def _refuse(self, run: TaskRun | None, event: AgentEvent) -> None:
        """Not the current attempt. A repeat of the report that counted is no news; anything else is audited."""
        if event.type not in (AgentEventType.TASK_COMPLETED, AgentEventType.TASK_FAILED):
            return
        attempt = Attempt(task_id=event.task_id, agent_id=event.agent_id, attempt=event.attempt)
        if run is None or (event.attempt, event.epoch) != (run.attempt, self.state.epoch) or not run.phase.in_flight:
            self.cancel.append(attempt)  # else, in another's name, it would stop the attempt that counts
        repeat = (
            run is not None
            and run.phase in (Phase.COMPLETED, Phase.SUBMITTED)
            and (run.attempt, run.agent_id) == (event.attempt, event.agent_id)
            and event.epoch == self.state.epoch
        )
        if not repeat:
            self.trail.add(
                AuditEventType.LATE_RESULT_REFUSED,
                task_id=event.task_id,
                agent_id=event.agent_id,
                attempt=event.attempt,
                attempt_epoch=event.epoch,
            )

    def _note_start(self, run: TaskRun, event: AgentEvent, at_ms: int) -> int:
        """Fast tasks report their start with their end. Returns when the attempt started."""
        if run.phase is Phase.RUNNING:
            task = self.state.specs[self.state.index[event.task_id]]
            return run.due_ms - task.timeout_ms
        reported_ms = run.assigned_at_ms if event.started_at_ms is None else event.started_at_ms
        started_at_ms = min(max(reported_ms, run.assigned_at_ms), at_ms)
        self.trail.started(event.task_id, event.agent_id, event.attempt, started_at_ms)
        return started_at_ms

    def _complete(self, run: TaskRun, event: AgentEvent, at_ms: int) -> None:
        started_at_ms = self._note_start(run, event, at_ms)
        if self.state.plan.circuit is not None:
            self.ended.append((self.state.attempt(self.state.index[event.task_id]), "worked", ""))
        if self._judges is not None and self._judges(self.state.index[event.task_id]):
            self._submit_result(event, started_at_ms, at_ms)
            return
        done = Done.trusted(
            task_id=event.task_id,
            attempt=event.attempt,
            agent_id=event.agent_id,
            started_at_ms=started_at_ms,
            at_ms=at_ms,
        )
        result = TaskResult.trusted(
            task_id=event.task_id, attempt=event.attempt, result=event.result, result_ref=event.result_ref
        )
        addition = None
        if event.spawn:
            i = self.state.index[event.task_id]
            try:
                addition = plan_spawn(self.state, i, event.spawn)
                self._check_added(i, addition[1])
            except SpawnRefusedError as error:
                self.fail(i, SPAWN_REFUSED, str(error), retryable=False, at_ms=at_ms)
                return
        behind = tuple(riders(self.state, i)) if addition is not None else ()
        self.change.complete(done)
        self.results.append(result)
        self.trail.completed(done, result)
        if addition is not None:
            spawned, bodies = addition
            self.change.spawn(spawned)
            self.bodies.extend(bodies)
            self.trail.spawned(spawned)
            self._take_back(behind, f"{event.task_id}, which it was to follow, added tasks")

    def _check_added(self, i: int, bodies: Sequence[SpawnedBody]) -> None:
        refusal = None if self.refuses_added is None else self.refuses_added(i, bodies)
        if refusal is not None:
            raise SpawnRefusedError(refusal)

    def _submit_result(self, event: AgentEvent, started_at_ms: int, at_ms: int) -> None:
        """What it adds to the graph it adds when the pattern accepts it."""
        submission = Submission.trusted(
            task_id=event.task_id,
            attempt=event.attempt,
            agent_id=event.agent_id,
            started_at_ms=started_at_ms,
            at_ms=at_ms,
            result=event.result,
            result_ref=event.result_ref,
            spawn=event.spawn or (),
        )
        self.change.submit(submission)
        self.submitted.append(self.state.index[event.task_id])
        result = TaskResult.trusted(
            task_id=event.task_id, attempt=event.attempt, result=event.result, result_ref=event.result_ref
        )
        self.results.append(result)
        self.trail.submitted(submission)

    def fail(
        self,
        i: int,
        code: str,
        message: str,
        *,
        retryable: bool,
        blamed: bool = True,
        at_ms: int | None = None,
    ) -> None:
        """End the current attempt of a task in flight; retry it as its policy says, or give it up."""
        task, run, now_ms = self.state.specs[i], self.state.tasks[i], self.change.at_ms
        if not blamed or code == TASK_TIMEOUT:
            for j in (i, *riders(self.state, i)):
                self.change.doubt(self.state.specs[j].id)  # nobody said what came of it
        started_at_ms = run.due_ms - task.timeout_ms if run.phase is Phase.RUNNING else None
        self._note_failure(i, speaks_against_agent=retryable, lost=not blamed)
        retry_at_ms: int | None = None
        if not blamed:
            retry_at_ms = now_ms if run.losses + 1 < TASK_LOSSES_MAX else None
        elif retryable and run.failures + 1 < task.retry.max_attempts:
            retry_at_ms = now_ms + int(task.retry.delay_seconds(run.failures + 1) * 1000)
        failed = Failed(
            task_id=task.id,
            attempt=run.attempt,
            agent_id=run.agent_id or "",
            code=code[:100],
            message=message[:ERROR_MESSAGE_LENGTH_MAX],
            at_ms=now_ms if at_ms is None else at_ms,
            retry_at_ms=retry_at_ms,
            blamed=blamed,
        )
        if failed.retry_at_ms is None and self.judges_failure is not None and self.judges_failure(i):
            self._submit_failure(failed, started_at_ms)
        else:
            self._failed(failed, started_at_ms)
        self._take_back_riders(i)

    def _note_failure(self, i: int, *, speaks_against_agent: bool, lost: bool) -> None:
        """A failure for good is the task's fault: its agent has answered."""
        attempt = self.state.attempt(i)
        agent = self.state.agents.get(attempt.agent_id)
        if agent is None:
            return
        if not speaks_against_agent:
            self.ended.append((attempt, "worked", ""))
            return
        self.ended.append((attempt, "failed", f"host/{agent.host_id}" if lost else ""))

    def _submit_failure(self, failed: Failed, started_at_ms: int | None) -> None:
        """Given up by its agents; the pattern may know better."""
        submission = Submission(
            task_id=failed.task_id,
            attempt=failed.attempt,
            agent_id=failed.agent_id,
            started_at_ms=failed.at_ms if started_at_ms is None else started_at_ms,
            at_ms=failed.at_ms,
            code=failed.code,
            message=failed.message,
        )
        self.change.submit(submission)
        self.submitted.append(self.state.index[failed.task_id])
        self.trail.attempt_failed(failed, started_at_ms)

    def fail_waiting(self, i: int, code: str, message: str) -> None:
        """Give up a task that no agent has."""
        run, now_ms = self.state.tasks[i], self.change.at_ms
        message = message[:ERROR_MESSAGE_LENGTH_MAX]
        failed = Failed(
            task_id=self.state.specs[i].id, attempt=run.attempt, agent_id="", code=code[:100], message=message,
            at_ms=now_ms,
        )  # fmt: skip
        submission = self.state.submitted.get(i)
        self._failed(failed, None, told=submission is not None and submission.failed)

    def _failed(self, failed: Failed, started_at_ms: int | None, *, told: bool = False) -> None:
        """`told`: the audit log knows of the attempt's end, and now hears that the pattern could not help it."""
        self.change.fail(failed)
        if told:
            self.trail.given_up(failed)
        else:
            self.trail.failed(failed, started_at_ms)
        if failed.retry_at_ms is None and self.first_failed is None:
            self.first_failed = failed
