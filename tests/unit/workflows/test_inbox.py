"""What stays in the inbox after stored ticks took another way than was decided."""

from engine.contracts.events import InboxBatch
from engine.contracts.kernel import Control, Rewind
from tests.unit.workflows.drill import launch_input, task
from workflows.kernel.inbox import Inbox
from workflows.kernel.state import RunState


def batch(entry: int, fence: int = 2) -> InboxBatch:
    return InboxBatch(entry_id=f"{entry}-0", partition=0, fence=fence, low="0-0", events=())


def state() -> RunState:
    made = RunState(launch_input(task("a")))
    made.low, made.consumed, made.fence, made.control_seen = (5, 0), {"7-0": None}, 2, "seen"
    return made


def test_what_was_consumed_or_came_from_an_older_owner_is_left_out_and_the_rest_stays() -> None:
    inbox = Inbox(batches=[batch(4), batch(5), batch(6, fence=1), batch(7), batch(8)])
    inbox.leave_out_settled(state())
    assert inbox.batches == [batch(5), batch(8)]
    assert inbox


def test_a_request_that_was_obeyed_is_left_out_with_its_checkpoint_and_another_stays() -> None:
    obeyed = Inbox(
        control=Control(request_id="seen", action="resume", checkpoint_id="c"),
        rewind=Rewind(checkpoint_id="c", epoch=2, tasks=()),
    )
    obeyed.leave_out_settled(state())
    assert not obeyed
    assert obeyed.rewind is None
    other = Inbox(control=Control(request_id="other", action="pause"))
    other.leave_out_settled(state())
    assert other.control is not None
