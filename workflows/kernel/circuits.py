"""What open circuit breakers of agent types mean for an execution.

The state of a breaker is shared by all executions of the tenant, so that the kernel cannot know it; it decides by what
it was last told, and says with each tick what it took for granted. The activity compares that with the breakers before
anything is committed. Where it is otherwise, nothing is committed, and the kernel decides again with the news in its
inbox. So the tick that brings the deciding failure sends nothing more, and a probe is sent only when it is admitted.

What it was told stands on the board, under `circuit_key`; for a closed breaker there is nothing.
"""

from collections.abc import Sequence
from typing import Any, Final

from engine.contracts.circuits import (
    LEASE_MS_MAX,
    CallEnd,
    CircuitAsk,
    CircuitCheck,
    CircuitRule,
    CircuitState,
    CircuitView,
    agent_service,
)
from engine.contracts.events import AgentEvent, AgentEventType, AuditEventType
from engine.contracts.kernel import Attempt
from workflows.kernel.audit import AuditTrail
from workflows.kernel.fold import Fold
from workflows.kernel.state import AgentRun, RunState
from workflows.kernel.transitions import Transitions

CIRCUIT_OPEN: Final = "CIRCUIT_OPEN"

LEASE_SLACK_MS: Final = 60_000
"""Beyond a task's own timeout, for its way there and back."""

LOOK_AGAIN_MS: Final = (250, 10_000)
"""Between these, a quarter of the breaker's timeout: how soon to ask again while others' probes are under way."""

_PREFIX: Final = "/circuit/"


def circuit_key(agent_type: str) -> str:
    return f"{_PREFIX}{agent_type}"


def told(state: RunState) -> dict[str, dict[str, Any]]:
    """What is known of breakers that are not closed, by agent type."""
    if state.plan.circuit is None or not state.board:
        return {}
    return {key.removeprefix(_PREFIX): value for key, value in sorted(state.board.items()) if key.startswith(_PREFIX)}


def type_of(state: RunState, agent_id: str) -> str:
    return state.plan.roles[state.agents[agent_id].role].type


def call_id(state: RunState, attempt: Attempt, epoch: int) -> str:
    return f"{state.launch.execution_id}/{attempt.task_id}/{epoch}/{attempt.attempt}"


def circuit_due_ms(state: RunState) -> int | None:
    """When what a breaker holds may be looked at again; None when nothing is held, or nobody could do it."""
    times = []
    for agent_type, entry in told(state).items():
        if not _ready_of(state, agent_type):
            continue
        if entry.get("again"):
            times.append(0)
        elif _has_free_agent(state, agent_type):
            times.append(entry["until_ms"])
    return min(times, default=None)


def is_held(state: RunState, now_ms: int) -> bool:
    """Whether all that is ready waits for a breaker whose time has not come."""
    known = told(state)
    if not known:
        return False
    roles = {role for role, items in state.ready.items() if items} | {state.specs[i].role for _, i in state.ready_alone}
    types = {state.plan.roles[role].type for role in roles}
    return bool(types) and all(t in known and known[t]["until_ms"] > now_ms for t in types)


def _ready_of(state: RunState, agent_type: str) -> list[int]:
    """Ready tasks of roles of this type, by role and most urgent first; last those that run alone."""
    roles = [role for role in sorted(state.ready) if state.plan.roles[role].type == agent_type]
    found = [i for role in roles for _, i in state.ready[role]]
    return found + [i for _, i in state.ready_alone if state.specs[i].role in roles]


def _has_free_agent(state: RunState, agent_type: str) -> bool:
    return any(
        agent.takes_work and agent.load < agent.slots
        for agent in state.agents.values()
        if state.plan.roles[agent.role].type == agent_type
    )


def _latest(news: Sequence[CircuitView], events: Sequence[AgentEvent]) -> list[CircuitView]:
    """The last word on each breaker. Who was told that one is open may hear of its closing before it takes that in."""
    found = {view.service: view for view in news}
    for event in events:
        if event.type is not AgentEventType.CIRCUIT_CLOSED or not event.service.startswith(agent_service("")):
            continue
        found_out = found.get(event.service)
        if found_out is None or 0 < found_out.at_ms <= event.at_ms:
            found[event.service] = CircuitView(service=event.service, at_ms=event.at_ms)
    return list(found.values())


class Circuits:
    """One tick's dealings with breakers. Does nothing for a definition without them."""

    def __init__(self, change: Transitions, trail: AuditTrail, fold: Fold) -> None:
        self.change = change
        self.state: RunState = change.state
        self.trail = trail
        self.fold = fold
        self.rule: CircuitRule | None = self.state.plan.circuit
        self._known: dict[str, dict[str, Any]] = told(self.state)
        self._epoch = self.state.epoch
        """Of attempts that were in flight before; going back to a checkpoint begins another."""
        fails = self.rule is not None and self.rule.when_open == "fail"
        ready = (*self.state.ready.values(), self.state.ready_alone) if fails else ()
        self._ready_before = {i for items in ready for _, i in items}
        """A stored tick is applied kind by kind: what becomes ready in this one can fail in the next one only."""

    @property
    def any_known(self) -> bool:
        return bool(self._known)

    def take_in(self, news: Sequence[CircuitView], events: Sequence[AgentEvent] = ()) -> None:
        """What an activity found the breakers to be, and what whoever closed one has told."""
        if self.rule is None:
            return
        for view in _latest(news, events):
            agent_type = view.service.removeprefix(agent_service(""))
            before = self._known.get(agent_type)
            if view.state is CircuitState.CLOSED:
                if before is not None:
                    self._post(agent_type, None)
                    self._tell(AuditEventType.CIRCUIT_CLOSED, agent_type)
                continue
            entry = {"state": view.state.value, "until_ms": self.change.at_ms + view.retry_in_ms, "free": view.free}
            self._post(agent_type, entry)
            if before is not None and before["state"] == view.state:
                continue
            if view.state is CircuitState.OPEN:
                self._tell(
                    AuditEventType.CIRCUIT_OPENED, agent_type, failure_count=view.failures, threshold=view.threshold,
                    retry_in_seconds=view.retry_in_ms / 1000, opened_by=view.opened_by,
                )  # fmt: skip
            else:
                self._tell(AuditEventType.CIRCUIT_HALF_OPEN, agent_type)

    def room(self, agent_type: str) -> int | None:
        """How many tasks may go to agents of this type now; None: as many as there are."""
        entry = self._known.get(agent_type)
        if entry is None or self.rule is None:
            return None
        if entry["until_ms"] > self.change.at_ms:
            return 0
        return max(entry["free"], 1) if entry["state"] == CircuitState.HALF_OPEN else self.rule.half_open_probes

    def note_probes(self, agent_type: str, sent: int) -> None:
        """So many tasks go out to try whether the breaker may close."""
        entry = self._known[agent_type]
        left = (self.room(agent_type) or 0) - sent
        if entry["state"] != CircuitState.HALF_OPEN:
            self._tell(AuditEventType.CIRCUIT_HALF_OPEN, agent_type)
        shortest, longest = LOOK_AGAIN_MS
        pause_ms = 0 if left > 0 or self.rule is None else min(max(self.rule.timeout_ms // 4, shortest), longest)
        until_ms = self.change.at_ms + pause_ms
        self._post(agent_type, {"state": CircuitState.HALF_OPEN.value, "until_ms": until_ms, "free": max(left, 0)})

    def fail_held(self) -> None:
        """By the definition's choice, what would have to wait fails instead."""
        if self.rule is None or self.rule.when_open != "fail":
            return
        for agent_type, entry in sorted(self._known.items()):
            if entry["until_ms"] <= self.change.at_ms:
                continue
            for i in _ready_of(self.state, agent_type):
                if i in self._ready_before:
                    why = f"the circuit breaker of agent type {agent_type} is {entry['state'].replace('_', ' ')}"
                    self.fold.fail_waiting(i, CIRCUIT_OPEN, why)

    def note_left(self) -> None:
        """What became ready in this tick, and is to fail, fails in one of its own."""
        if self.rule is None or self.rule.when_open != "fail":
            return
        for agent_type, entry in sorted(self._known.items()):
            again = entry["until_ms"] > self.change.at_ms and bool(_ready_of(self.state, agent_type))
            if again != entry.get("again", False):
                kept = {name: value for name, value in entry.items() if name != "again"}
                self._post(agent_type, {**kept, **({"again": True} if again else {})})

    def other_agent(self, i: int) -> AgentRun | None:
        """By the definition's choice, an agent of another type that could do a task that would have to wait."""
        state, spec = self.state, self.state.specs[i]
        if self.rule is None or self.rule.when_open != "reassign" or spec.agent is not None or spec.alone:
            return None
        own = state.plan.roles[spec.role]
        found = [
            agent
            for role, need in sorted(state.plan.roles.items())
            if need.type != own.type
            and need.type not in self._known
            and set(own.capabilities) <= set(need.capabilities)
            for agent in state.agents_of(role)
            if agent.takes_work and agent.load < agent.slots
        ]
        return min(found, key=lambda agent: agent.load / agent.slots, default=None)

    def would_wait(self) -> list[int]:
        """Ready tasks whose agents' breaker lets no more through, most urgent first; where they may go elsewhere."""
        if self.rule is None or self.rule.when_open != "reassign":
            return []
        held = [t for t in sorted(self._known) if not self.room(t) or self._known[t]["state"] == CircuitState.HALF_OPEN]
        return [i for t in held for i in _ready_of(self.state, t)]

    def check(self) -> CircuitCheck | None:
        """What this tick takes for granted, and what it has to report; None when that is nothing."""
        if self.rule is None:
            return None
        ended = self._ended()
        wanted: dict[str, list[str]] = {}
        lease_ms = 0
        for attempt in self.change.recorded.get("assigned", ()):
            calls = wanted.setdefault(type_of(self.state, attempt.agent_id), [])
            if self._known:
                calls.append(call_id(self.state, attempt, self.state.epoch))
                timeout_ms = self.state.specs[self.state.index[attempt.task_id]].timeout_ms
                lease_ms = max(lease_ms, timeout_ms + LEASE_SLACK_MS)
        asks = tuple(
            CircuitAsk(
                service=agent_service(t),
                expects=CircuitState(self._known[t]["state"]) if t in self._known else CircuitState.CLOSED,
                ended=tuple(ended.get(t, ())),
                wanted=tuple(wanted.get(t, ())) if t in self._known else (),
                lease_ms=min(max(lease_ms, LEASE_SLACK_MS), LEASE_MS_MAX),
            )
            for t in sorted({*ended, *wanted})
        )
        return CircuitCheck(rule=self.rule, asks=asks) if asks else None

    def _ended(self) -> dict[str, list[CallEnd]]:
        """By agent type, in the order in which it was heard of; a probe that was taken back leaves its place."""
        state = self.state
        ends = list(self.fold.ended)
        if self._known:
            ends += [
                (attempt, "released", "") for attempt in (*self.change.recorded.get("returned", ()), *self.fold.cancel)
            ]
        found: dict[str, list[CallEnd]] = {}
        for attempt, verdict, counted_as in ends:
            if attempt.agent_id not in state.agents:
                continue
            agent_type = type_of(state, attempt.agent_id)
            if verdict != "released" or agent_type in self._known:
                call = call_id(state, attempt, self._epoch)
                end = CallEnd.trusted(verdict=verdict, call_id=call, counted_as=counted_as)
                found.setdefault(agent_type, []).append(end)
        return found

    def _post(self, agent_type: str, entry: dict[str, Any] | None) -> None:
        self.change.post(circuit_key(agent_type), entry)
        self._known = told(self.state)

    def _tell(self, kind: AuditEventType, agent_type: str, **payload: Any) -> None:
        self.trail.add(kind, service=agent_service(agent_type), agent_type=agent_type, **payload)
