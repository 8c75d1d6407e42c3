"""The ticks of one local activity: one proposed by the workflow, and those that follow from results that come at once.

A local activity runs in the workflow's process, and its argument is handed over as an object (`contracts.handover`).
So it can ask the kernel for the next tick itself, instead of going back to the workflow by way of Temporal's machinery,
which costs more than the tick. Nothing else changes: each tick is committed to the journal by compare-and-set, the
activity answers the journalled deltas, they stand in Temporal's history, and a replay applies them.

While a burst runs it alone changes the state; the workflow waits for its answer.
"""

from collections.abc import Sequence

from engine.contracts.circuits import CircuitRule, CircuitView
from engine.contracts.events import AgentEventType, InboxBatch
from engine.contracts.kernel import AgentBinding, BindRequest, Delta, TickProposal, delta_text
from workflows.kernel.decide import Decision, decide
from workflows.kernel.due import expects_results_soon
from workflows.kernel.dynamics import must_evaluate
from workflows.kernel.inbox import Inbox
from workflows.kernel.policy import Policy
from workflows.kernel.state import RunState

LINGER_MS = 30

_ENDED = -1
"""In place of an attempt's number."""

_FOR_THE_WORKFLOW = frozenset({AgentEventType.REGISTERED, AgentEventType.DISCONNECTED})
"""What these lead to (finding hosts for agents) only the workflow can begin."""


class Burst:
    """Implements `engine.contracts.handover.FollowUp`."""

    def __init__(
        self,
        state: RunState,
        policy: Policy,
        first: Decision | None,
        base_tick: int,
        *,
        alone: bool,
        bind_request: BindRequest | None = None,
    ) -> None:
        """Without a first tick, the activity asks for it with `open`."""
        self.bind_request = bind_request
        self._state = state
        self._policy = policy
        self._base_tick = base_tick
        self._alone = alone
        """No tick is to follow: the workflow has something to do."""
        self._attempt = 0
        self._given = 0 if first is None else 1
        self.decisions = [] if first is None else [first]
        self.texts = [delta_text(decision.delta) for decision in self.decisions]
        self._first = None if first is None else self._proposal(first, self.texts[0])

    @property
    def proposal(self) -> TickProposal:
        if self._first is None:
            raise ValueError("this burst was not given a first tick: it is opened")
        return self._first

    def begin(self) -> int:
        """An attempt of the activity begins; what an earlier one decided beyond the given tick is taken back.

        Raises LookupError when it comes too late: this process was busy, and the workflow has gone on without it.
        """
        if self._attempt == _ENDED:
            raise LookupError("the workflow does not wait for this tick any more")
        self._attempt += 1
        self._take_back(self._given)
        return self._attempt

    @property
    def circuit_rule(self) -> CircuitRule | None:
        return self._state.plan.circuit

    def open(self, bindings: Sequence[AgentBinding], now_ms: int, circuits: Sequence[CircuitView] = ()) -> TickProposal:
        """The very first tick of an execution, which never is empty."""
        inbox = Inbox(bindings=list(bindings), circuits=list(circuits))
        return self._add(decide(self._state, self._policy, inbox, now_ms))

    def end(self) -> None:
        """The workflow has its answer, or gives this activity up: no attempt decides any more."""
        self._attempt = _ENDED

    def follow_up(self, attempt: int, batches: Sequence[InboxBatch], now_ms: int) -> TickProposal | None:
        """The next tick; None when the workflow has to decide it."""
        state = self._state
        if self._alone or attempt != self._attempt or state.closed or state.unbound_agents() or must_evaluate(state):
            return None
        if self._begins_errands():
            return None
        if any(event.type in _FOR_THE_WORKFLOW for batch in batches for event in batch.events):
            return None
        decision = decide(state, self._policy, Inbox(batches=list(batches)), now_ms)
        if decision.empty:
            decision.change.undo.rollback()
            return None
        return self._add(decision)

    def adopt(self, stored: Sequence[str]) -> tuple[list[Delta], Sequence[str]]:
        """Keep the ticks that are stored as they were decided, take back the others.

        Returns the kept deltas, and what is stored beyond them.
        """
        same = 0
        while same < min(len(stored), len(self.texts)) and stored[same] == self.texts[same]:
            same += 1
        self._take_back(same)
        return [decision.delta for decision in self.decisions], stored[same:]

    def _add(self, decision: Decision) -> TickProposal:
        self.decisions.append(decision)
        self.texts.append(delta_text(decision.delta))
        return self._proposal(decision, self.texts[-1])

    def _take_back(self, keep: int) -> None:
        while len(self.decisions) > keep:
            self.decisions.pop().change.undo.rollback()
            self.texts.pop()

    def _begins_errands(self) -> bool:
        """Which only the workflow can start."""
        return bool(self.decisions and "errands" in self.decisions[-1].change.recorded)

    def _lingers(self) -> bool:
        state = self._state
        if self._alone or self._begins_errands() or must_evaluate(state):
            return False
        return expects_results_soon(state, LINGER_MS)

    def _proposal(self, decision: Decision, text: str) -> TickProposal:
        state = self._state
        launch = state.launch
        return TickProposal.trusted(
            tenant=launch.tenant,
            execution_id=launch.execution_id,
            workflow_id=launch.workflow_id,
            trace_id=launch.trace_id,
            tick=state.tick,
            base_tick=self._base_tick,
            epoch=state.epoch,
            partition=launch.partition,
            delta=decision.delta,
            delta_text=text,
            acknowledge=tuple(decision.acknowledge),
            results=tuple(decision.results),
            cancel=tuple(decision.cancel),
            hosts=decision.hosts,
            audit=tuple(decision.audit),
            metrics=decision.metrics,
            current_phase=decision.current_phase,
            growth=state.grown,
            writes=decision.writes,
            circuits=decision.circuits,
            agent_failures=decision.agent_failures,
            linger_ms=LINGER_MS if self._lingers() else 0,
        )
