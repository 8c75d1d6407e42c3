"""The activities of a tick: what they answer, what they tell whom, and which errors are tried again."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from temporalio.exceptions import ApplicationError

from activities.ticks import TickActivities
from engine.contracts.events import InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import CheckpointRequest, Control, Delta, TickProposal
from engine.contracts.views import CheckpointView
from engine.errors import CheckpointNotFoundError, EngineError, UnavailableError
from engine.events.dispatch import Dispatcher
from engine.events.lingering import Lingering
from engine.ports import Committed, ExecutionStore, Journal
from tests.fakes.streams import until

EXECUTION, CHECKPOINT = uuid4(), uuid4()


class Surroundings:
    """Journal, dispatcher, nudger, bridge and execution store in one; `log` is the order of what happened."""

    def __init__(self) -> None:
        self.log: list[Any] = []
        self.committed = Committed(ticks=(delta(1),), own=True, more=False, control=None, last_sequence=9, now_ms=77)
        self.failure: Exception | None = None
        self.write_failure: Exception | None = None
        self.arriving: list[InboxBatch] = []
        self.lingering = Lingering()
        self.activities = TickActivities(
            cast(Journal, self), cast(ExecutionStore, self), cast(Dispatcher, self), self.lingering, self, self.heard
        )

    async def commit(self, proposal: TickProposal) -> Committed:
        self._fail()
        self.log.append("commit")
        return self.committed

    async def write(self, proposal: TickProposal, ticks: Sequence[Delta], *, own: bool) -> None:
        if self.write_failure is not None:
            raise self.write_failure
        self.log.append(("write", len(ticks), own))
        for batch in self.arriving:
            assert self.lingering.hand_over("t", str(EXECUTION), batch), "results may come as soon as it is written"

    async def nudge(self, tenant: str, execution_id: str, message: dict[str, Any]) -> None:
        self.log.append(("nudge", tenant, execution_id, message))

    def heard(self, tenant: str, execution_id: str, entry_ids: Sequence[str]) -> None:
        self.log.append(("acknowledged", tenant, execution_id, list(entry_ids)))

    async def pending_control(self, tenant: str, execution_id: UUID) -> Control | None:
        self._fail()
        return Control(request_id=f"{tenant}/{execution_id}", action="pause")

    async def checkpoint(self, tenant: str, execution_id: UUID, checkpoint_id: UUID) -> CheckpointView:
        self._fail()
        return CheckpointView(
            checkpoint_id=checkpoint_id, execution_id=execution_id, reason="pause", epoch=1, completed_tasks=("a",),
            in_flight=(), recovery_instructions={}, created_at=datetime.now(UTC),
        )  # fmt: skip

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def delta(tick: int, *consumed: str) -> Delta:
    return Delta(tick=tick, at_ms=1, consumed=consumed)


def batch(entry_id: str) -> InboxBatch:
    return InboxBatch(entry_id=entry_id, partition=0, fence=1, low="0-0", events=())


def proposal(**fields: Any) -> TickProposal:
    values: dict[str, Any] = {
        "tenant": "t", "execution_id": str(EXECUTION), "workflow_id": "w", "trace_id": "tr", "tick": 1, "base_tick": 0,
        "epoch": 1, "partition": 0, "delta": delta(1), **fields,
    }  # fmt: skip
    return TickProposal.model_validate(values)


REQUEST = CheckpointRequest(tenant="t", execution_id=str(EXECUTION), checkpoint_id=str(CHECKPOINT))


async def test_a_tick_is_stored_then_written_then_told() -> None:
    around = Surroundings()
    outcome = await around.activities.commit_tick(proposal(acknowledge=("1-0", "0-5")))
    assert around.log == [
        "commit",
        ("write", 1, True),
        ("acknowledged", "t", str(EXECUTION), ["1-0", "0-5"]),
        ("nudge", "t", str(EXECUTION), {"sequence": 9}),
    ]
    assert (outcome.ticks, outcome.now_ms, outcome.more, outcome.events) == ((delta(1),), 77, False, ())


async def test_stored_ticks_are_answered_and_only_what_they_consumed_is_acknowledged() -> None:
    around = Surroundings()
    around.committed = around.committed.model_copy(
        update={"own": False, "ticks": (delta(1, "1-0"), delta(2, "2-0")), "more": True}
    )
    outcome = await around.activities.commit_tick(proposal(acknowledge=("9-0",), linger_ms=60_000))
    assert around.log[1:3] == [("write", 2, False), ("acknowledged", "t", str(EXECUTION), ["1-0", "2-0"])]
    assert outcome.more


async def test_it_waits_for_what_comes_back_and_brings_it_along() -> None:
    around = Surroundings()
    waiting = asyncio.create_task(around.activities.commit_tick(proposal(linger_ms=60_000)))
    async with asyncio.timeout(5):
        await until(lambda: around.lingering.hand_over("t", str(EXECUTION), batch("5-0")))
        assert (await waiting).events == (batch("5-0"),)


async def test_what_comes_while_it_is_written_is_not_lost_to_a_tick_that_does_not_wait() -> None:
    around = Surroundings()
    around.arriving = [batch("5-0")]
    outcome = await around.activities.commit_tick(proposal())
    assert outcome.events == (batch("5-0"),)
    assert not around.lingering.hand_over("t", str(EXECUTION), batch("6-0"))


async def test_what_was_asked_from_outside_is_not_kept_waiting() -> None:
    around = Surroundings()
    control = Control(request_id="r", action="pause")
    around.committed = around.committed.model_copy(update={"control": control})
    async with asyncio.timeout(5):
        outcome = await around.activities.commit_tick(proposal(linger_ms=60_000))
    assert outcome.control == control


async def test_an_execution_closed_from_outside_ends_its_run_for_good() -> None:
    around = Surroundings()
    around.committed = around.committed.model_copy(update={"ticks": (), "status": ExecutionStatus.CANCELLED})
    with pytest.raises(ApplicationError) as caught:
        await around.activities.commit_tick(proposal())
    assert (caught.value.type, caught.value.non_retryable) == ("EXECUTION_CLOSED", True)
    assert around.log == ["commit"]


@pytest.mark.parametrize(
    ("failure", "permanent"), [(UnavailableError("away"), False), (CheckpointNotFoundError("none"), True)]
)
@pytest.mark.parametrize("name", ["commit_tick", "read_control", "load_checkpoint"])
async def test_transient_errors_are_tried_again_and_permanent_ones_not(
    name: str, failure: EngineError, permanent: bool
) -> None:
    around = Surroundings()
    around.failure = failure
    with pytest.raises(ApplicationError) as caught:
        await getattr(around.activities, name)(proposal() if name == "commit_tick" else REQUEST)
    assert (caught.value.type, caught.value.non_retryable) == (failure.code, permanent)


async def test_a_tick_whose_stream_writes_fail_is_tried_again_and_gives_its_seat_up() -> None:
    around = Surroundings()
    around.write_failure = UnavailableError("Redis does not answer")
    with pytest.raises(ApplicationError) as caught:
        await around.activities.commit_tick(proposal(linger_ms=60_000))
    assert not caught.value.non_retryable
    assert around.log == ["commit"]
    assert not around.lingering.hand_over("t", str(EXECUTION), batch("6-0"))


async def test_control_and_checkpoints_are_read() -> None:
    around = Surroundings()
    control = await around.activities.read_control(REQUEST)
    assert control is not None
    assert control.request_id == f"t/{EXECUTION}"
    found = await around.activities.load_checkpoint(REQUEST)
    assert (found.checkpoint_id, found.completed) == (str(CHECKPOINT), ("a",))
