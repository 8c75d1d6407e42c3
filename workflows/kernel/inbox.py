"""What has come for an execution since its last tick."""

from dataclasses import dataclass, field

from engine.contracts.circuits import CircuitView
from engine.contracts.dynamic import Evaluation, ExternalEvent, MatchOutcome, TaskOutcome
from engine.contracts.events import AgentEvent, InboxBatch
from engine.contracts.kernel import AgentBinding, Control, ErrandOutcome, Rewind
from engine.contracts.streams import entry_order
from workflows.kernel.state import RunState


@dataclass
class Inbox:
    """Collected by signal handlers and activities' results; emptied by ticks."""

    batches: list[InboxBatch] = field(default_factory=list)
    bindings: list[AgentBinding] = field(default_factory=list)
    control: Control | None = None
    rewind: Rewind | None = None
    """Goes with a control request that resumes from an earlier checkpoint."""
    external: list[ExternalEvent] = field(default_factory=list)
    outcomes: list[TaskOutcome] = field(default_factory=list)
    """What was evaluated, in `outcomes_epoch`."""
    matches: list[MatchOutcome] = field(default_factory=list)
    outcomes_epoch: int = 0
    errands: list[ErrandOutcome] = field(default_factory=list)
    circuits: list[CircuitView] = field(default_factory=list)
    """Breakers that are not as an earlier proposal took for granted."""
    allocation_error: tuple[str, str] | None = None
    """Code and message of the last allocation, when it found no host; stands until one is bound."""

    def __bool__(self) -> bool:
        return bool(
            self.batches
            or self.bindings
            or self.control
            or self.external
            or self.outcomes
            or self.matches
            or self.errands
            or self.circuits
        )

    def leave_out_settled(self, state: RunState) -> None:
        """What stored ticks took in is no news, although other ticks were decided here. Else it would be committed once
        more, which is a step that is not in the history when a later version of the code replays it."""
        self.batches = [
            batch
            for batch in self.batches
            if batch.fence >= state.fence and not _is_consumed(state, batch.entry_id)
        ]  # fmt: skip
        self.external = [event for event in self.external if event.event_id not in state.remembered]
        self.outcomes = [outcome for outcome in self.outcomes if state.index.get(outcome.task_id) in state.held]
        self.errands = [outcome for outcome in self.errands if outcome.key in state.errands]
        if self.control is not None and self.control.request_id == state.control_seen:
            self.control = self.rewind = None

    def learn(self, evaluation: Evaluation) -> None:
        """Take up what an activity found out."""
        self.outcomes_epoch = evaluation.epoch
        self.outcomes.extend(evaluation.tasks)
        self.matches.extend(evaluation.matches)


@dataclass(frozen=True)
class Admitted:
    """The part of the inbox's batches that counts."""

    events: list[AgentEvent]
    consumed: list[str]
    acknowledge: list[str]
    low: str
    fence: int


def admit(state: RunState, batches: list[InboxBatch]) -> Admitted:
    """Drop what an older owner of the partition sent, and what was consumed before.

    Repeats are acknowledged again, since their first acknowledgement may have been lost. What an older owner sent is
    not: the new owner sends it again.
    """
    fence = max((batch.fence for batch in batches), default=state.fence)
    fence = max(fence, state.fence)
    low_key = state.low
    events: list[AgentEvent] = []
    consumed: dict[str, None] = {}
    repeats: list[str] = []
    for batch in batches:
        if batch.fence < fence:
            continue
        low_key = max(low_key, entry_order(batch.low))
        if batch.entry_id in consumed:
            continue
        if _is_consumed(state, batch.entry_id):
            repeats.append(batch.entry_id)
            continue
        consumed[batch.entry_id] = None
        events.extend(batch.events)
    new = list(consumed)
    return Admitted(events, new, new + repeats, f"{low_key[0]}-{low_key[1]}", fence)


def _is_consumed(state: RunState, entry_id: str) -> bool:
    return entry_id in state.consumed or entry_order(entry_id) < state.low
