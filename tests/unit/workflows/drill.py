"""A kernel without Temporal: one state driven by decisions, and a twin driven by the stored deltas alone."""

import json
from collections.abc import Callable

from engine.contracts.definition import RetryPolicy
from engine.contracts.dynamic import (
    Candidate,
    Evaluation,
    EvaluationRequest,
    ExternalEvent,
    MatchOutcome,
    TaskOutcome,
)
from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch, TaskError
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import (
    AgentBinding,
    Attempt,
    Control,
    Delta,
    ErrandOutcome,
    ExecutionInput,
    KernelPlan,
    KernelRole,
    KernelTask,
    Rewind,
)
from workflows.kernel.decide import Decision, decide
from workflows.kernel.dynamics import evaluation_request
from workflows.kernel.inbox import Inbox
from workflows.kernel.policy import Policy
from workflows.kernel.state import Phase, RunState
from workflows.kernel.transitions import apply_delta
from workflows.policies.supervisor import SupervisorPolicy

HOST = "host-1"

Judge = Callable[[str], TaskOutcome]
Match = Callable[[Candidate], bool]


def outcome(task_id: str, decision: str = "run", **fields: object) -> TaskOutcome:
    return TaskOutcome.model_validate({"task_id": task_id, "decision": decision, **fields})


def task(task_id: str, deps: tuple[int, ...] = (), **fields: object) -> KernelTask:
    values: dict[str, object] = {"id": task_id, "role": "worker", "deps": deps, "retry": RetryPolicy(), **fields}
    return KernelTask.model_validate(values)


def launch_input(*tasks: KernelTask, agents: int = 2, **fields: object) -> ExecutionInput:
    roles = {role: KernelRole(type="synthetic", count=agents) for role in {t.role for t in tasks}}
    on_failure = fields.pop("on_failure", "fail_fast")
    plan = KernelPlan.model_validate({"tasks": tasks, "roles": roles, "on_failure": on_failure})
    values: dict[str, object] = {
        "tenant": "acme",
        "execution_id": "00000000-0000-4000-8000-000000000001",
        "workflow_id": "00000000-0000-4000-8000-000000000002",
        "workflow_name": "drill",
        "pattern": "supervisor",
        "plan": plan,
        "partition": 0,
        "trace_id": "00000000-0000-4000-8000-000000000003",
        "timeout_ms": 3_600_000,
        "checkpoint_interval_ms": 300_000,
        "pause_grace_ms": 30_000,
        "started_at_ms": 1_000_000,
        **fields,
    }
    return ExecutionInput.model_validate(values)


class Drill:
    """Ticks on demand. After each, the twin that only saw the delta's JSON must be in the same state."""

    def __init__(self, launch: ExecutionInput, slots: int = 1, bind: bool = True, policy: Policy | None = None) -> None:
        self.launch = launch
        self.policy = SupervisorPolicy() if policy is None else policy
        self.state = RunState(launch)
        self.twin = RunState(launch)
        self.now_ms = launch.started_at_ms
        self.inbox = Inbox()
        self.deltas: list[Delta] = []
        self.decisions: list[Decision] = []
        self.entries = 0
        if bind:
            self.bind(*self.state.agents, slots=slots)

    def bind(self, *agent_ids: str, host_id: str = HOST, slots: int = 1, chains: bool = False) -> None:
        for agent_id in agent_ids:
            role = self.state.agents[agent_id].role
            self.inbox.bindings.append(
                AgentBinding(agent_id=agent_id, role=role, host_id=host_id, slots=slots, chains=chains)
            )

    def receive(self, *events: AgentEvent, fence: int = 1, entry_id: str | None = None, low: str = "0-0") -> None:
        if entry_id is None:
            self.entries += 1
            entry_id = f"{self.entries}-0"
        batch = InboxBatch(entry_id=entry_id, partition=0, fence=fence, low=low, events=events)
        self.inbox.batches.append(batch)

    def tick(self, after_ms: int = 1) -> Decision:
        self.now_ms += after_ms
        before = self.state.snapshot()
        taken, self.inbox = self.inbox, Inbox()
        trial = decide(self.state, self.policy, taken, self.now_ms)
        trial.change.undo.rollback()
        assert self.state.snapshot() == before, "rolling a decision back restores the state"
        decision = decide(self.state, self.policy, taken, self.now_ms)
        assert decision.delta == trial.delta, "deciding twice decides alike"
        stored = Delta.model_validate_json(decision.delta.model_dump_json(exclude_defaults=True))
        assert stored == decision.delta
        apply_delta(self.twin, stored)
        assert self.twin.snapshot() == self.state.snapshot(), "the delta says all that changed"
        assert_indexes_agree(self.state)
        self.deltas.append(stored)
        self.decisions.append(decision)
        return decision

    def control(self, action: str, request_id: str = "", checkpoint_id: str | None = None) -> None:
        self.inbox.control = Control.model_validate(
            {
                "request_id": request_id or f"{action}-{len(self.deltas)}",
                "action": action,
                "checkpoint_id": checkpoint_id,
            }
        )

    def rewind_to(self, checkpoint_id: str, *again: str) -> None:
        self.control("resume", checkpoint_id=checkpoint_id)
        self.inbox.rewind = Rewind(checkpoint_id=checkpoint_id, epoch=self.state.epoch + 1, tasks=again)

    def happen(self, event_id: str, kind: str, payload: object = None) -> None:
        """An external event comes."""
        self.inbox.external.append(ExternalEvent(event_id=event_id, type=kind, at_ms=self.now_ms, payload=payload))

    def evaluate(self, judge: Judge, matches: Match = lambda _: True) -> EvaluationRequest | None:
        """Answer what the kernel asks, as the activity would; None when it asks nothing."""
        request = evaluation_request(self.state)
        if request is not None:
            found = [MatchOutcome(**m.model_dump(), matched=matches(m)) for m in request.matches]
            outcomes = tuple(judge(task_id) for task_id in request.tasks)
            self.inbox.learn(Evaluation(epoch=request.epoch, tasks=outcomes, matches=tuple(found)))
        return request

    def continue_as_new(self) -> None:
        """The state goes through its snapshot's JSON, as into the next run."""
        carried = json.loads(json.dumps(self.state.snapshot()))
        self.state = RunState.restore(self.launch, carried)
        assert self.state.snapshot() == self.twin.snapshot(), "a snapshot says all that the state is"

    def answer(self, key: str, value: object = None, *, ok: bool = True, code: str = "", message: str = "") -> None:
        """An errand's outcome comes back."""
        self.inbox.errands.append(ErrandOutcome(key=key, ok=ok, value=value, code=code, message=message))

    def phase(self, task_id: str) -> Phase:
        return self.state.tasks[self.state.index[task_id]].phase

    def in_flight(self) -> list[Attempt]:
        found = []
        for i in sorted(self.state.in_flight):
            run = self.state.tasks[i]
            found.append(Attempt(task_id=self.state.specs[i].id, agent_id=run.agent_id or "", attempt=run.attempt))
        return found

    def attempt(self, task_id: str) -> Attempt:
        return next(a for a in self.in_flight() if a.task_id == task_id)

    def started(self, attempt: Attempt) -> AgentEvent:
        return self.event(AgentEventType.TASK_STARTED, attempt)

    def completed(self, attempt: Attempt, result: object = None) -> AgentEvent:
        return self.event(AgentEventType.TASK_COMPLETED, attempt, result=result)

    def failed(self, attempt: Attempt, code: str = "BROKEN", retryable: bool = True) -> AgentEvent:
        error = TaskError(code=code, message=f"{attempt.task_id} is broken", retryable=retryable)
        return self.event(AgentEventType.TASK_FAILED, attempt, error=error)

    def event(self, kind: AgentEventType, attempt: Attempt, **fields: object) -> AgentEvent:
        values: dict[str, object] = {
            "type": kind,
            "at_ms": self.now_ms,
            "task_id": attempt.task_id,
            "agent_id": attempt.agent_id,
            "attempt": attempt.attempt,
            "epoch": self.state.epoch,
            **fields,
        }
        return AgentEvent.model_validate(values)

    def host_lost(self, host_id: str = HOST) -> None:
        self.receive(AgentEvent(type=AgentEventType.DISCONNECTED, at_ms=self.now_ms, host_id=host_id))

    def host_news(self, kind: AgentEventType, host_id: str = HOST, speed: float = 1.0) -> tuple[AgentEvent, ...]:
        return (AgentEvent(type=kind, at_ms=self.now_ms, host_id=host_id, speed=speed),)

    def finish(self, ticks_max: int = 1_000) -> ExecutionStatus:
        """Complete everything that is assigned, until the execution is closed."""
        for _ in range(ticks_max):
            if self.state.closed:
                return self.state.status
            flying = self.in_flight()
            if flying:
                self.receive(*(self.completed(attempt) for attempt in flying))
            self.tick(after_ms=1_000)
        raise AssertionError(f"not closed after {ticks_max} ticks: {self.state.snapshot()}")

    def audit(self, kind: str) -> list[dict[str, object]]:
        return [event.payload for d in self.decisions for event in d.audit if event.type.value == kind]

    def assigned(self) -> list[str]:
        return [a.task_id for d in self.deltas for a in d.assigned]


def assert_indexes_agree(state: RunState) -> None:
    """What is kept beside the tasks is what can be derived from them."""
    fresh = RunState.restore(state.launch, state.snapshot())
    assert state.ready == fresh.ready
    assert state.ready_alone == fresh.ready_alone
    assert sorted(state.in_flight) == sorted(fresh.in_flight)
    assert sorted(state.delayed) == sorted(fresh.delayed)
    assert sorted(state.held) == sorted(fresh.held)
    assert sorted(state.guarded) == sorted(fresh.guarded)
    assert state.awaiting == fresh.awaiting
    assert (state.board, state.submitted, state.errands) == (fresh.board, fresh.submitted, fresh.errands)
    assert sorted(state.submitted) == [i for i, run in enumerate(state.tasks) if run.phase is Phase.SUBMITTED]
    assert state.pinned == fresh.pinned
    assert (state.specs, state.index, state.gated) == (fresh.specs, fresh.index, fresh.gated)
    assert [sorted(d) for d in state.dependents] == [sorted(d) for d in fresh.dependents]
    assert state.parent == fresh.parent
    groups, same = ({i: (g.first, g.size, g.remaining, g.failed) for i, g in s.groups.items()} for s in (state, fresh))
    assert groups == same
    assert (state.open_tasks, state.completed, state.failed) == (fresh.open_tasks, fresh.completed, fresh.failed)
    assert {a: r.load for a, r in state.agents.items()} == {a: r.load for a, r in fresh.agents.items()}
    suspects = sorted(agent_id for agent_id, agent in state.agents.items() if agent.suspect)
    assert (sorted(state.suspects), state.suspects) == (suspects, fresh.suspects)
    assert {a: r.speed for a, r in state.agents.items()} == {a: r.speed for a, r in fresh.agents.items()}
