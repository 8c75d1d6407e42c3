"""What an agent is told of the step that it is to undo, and how it says that there is nothing to undo."""

from typing import Any

import orjson
import pytest

from orchestration_agent import Compensates, NeverHappened, Task, TaskFailed, synthetic
from orchestration_agent.host import _compensates
from orchestration_agent.wire import MalformedEntry, decode_entry


def task(given: dict[str, Any], attempt: int = 1) -> Task:
    return Task(
        task_id="compensate:a",
        agent_id="w-1",
        action="undo_a",
        execution_id="x",
        report=lambda _: None,
        input=given,
        attempt=attempt,
        compensates=Compensates(task_id="a", key="x/a", result=7, certain=False),
    )


def entry(compensates: Any) -> dict[bytes, bytes]:
    assigned = {"task_id": "compensate:a", "agent_id": "w-1", "epoch": 1, "attempt": 1, "compensates": compensates}
    return {b"b": orjson.dumps({"v": 1, "execution_id": "x", "reply_to": "r", "assign": [assigned]})}


def test_a_task_says_what_it_undoes() -> None:
    document = {"task_id": "a", "key": "x/a", "result": [1], "certain": False}
    assert _compensates(document) == Compensates(task_id="a", key="x/a", result=[1], certain=False)
    assert _compensates({"task_id": "a", "key": "x/a"}) == Compensates(task_id="a", key="x/a")
    assert _compensates(None) is None
    assert decode_entry(entry(document)).assign[0]["compensates"] == document


@pytest.mark.parametrize("wrong", [{"task_id": "a"}, {"task_id": 1, "key": "k"}, {"key": "k"}, "a"])
def test_an_entry_that_does_not_say_what_to_undo_is_malformed(wrong: Any) -> None:
    with pytest.raises(MalformedEntry):
        decode_entry(entry(wrong))


def test_never_happened_is_a_failure_with_a_code_that_counts_as_undone() -> None:
    error = NeverHappened()
    assert (error.code, error.retryable) == ("NEVER_HAPPENED", False)


async def test_the_synthetic_agent_undoes_as_its_input_says_and_not_as_the_step_was_done() -> None:
    assert await synthetic.run(task({"fail": "forward", "duration_ms": 60_000})) == {"task": "compensate:a"}
    with pytest.raises(NeverHappened):
        await synthetic.run(task({"compensation": {"never_happened": True}}))
    with pytest.raises(TaskFailed, match="as asked"):
        await synthetic.run(task({"compensation": {"fail_times": 1}}))
    await synthetic.run(task({"compensation": {"fail_times": 1}}, attempt=2))
    with pytest.raises(TaskFailed) as refused:
        await synthetic.run(task({"compensation": "yes"}))
    assert refused.value.code == "INVALID_INPUT"
