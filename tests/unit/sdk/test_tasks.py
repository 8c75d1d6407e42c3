import asyncio
import threading
from typing import Any

import orjson
import pytest

from orchestration_agent import Spawned, Task, TaskFailed, synthetic
from orchestration_agent.runner import Outcome, Runner, encode_result
from orchestration_agent.wire import RESULT_BYTES_MAX, SPAWN_BYTES_MAX, SPAWN_TASKS_MAX


def task(input: dict[str, Any] | None = None, attempt: int = 1, reports: list[float] | None = None) -> Task:
    seen: list[float] = [] if reports is None else reports
    return Task(
        task_id="a", agent_id="w-1", action="a", execution_id="x", input=input, attempt=attempt, report=seen.append
    )


async def run(function: Any, given: Task | None = None) -> Outcome:
    runner = Runner(function, 4)
    try:
        return await runner.run(given or task(), lambda future: None)
    finally:
        runner.close()


async def test_progress_may_be_awaited_or_not_and_is_kept_within_its_bounds() -> None:
    reports: list[float] = []
    subject = task(reports=reports)
    await subject.progress(0.5)
    subject.progress(7)
    subject.progress(-1)
    assert reports == [0.5, 1.0, 0.0]


def test_cancellation_is_seen_whether_asked_for_before_or_after() -> None:
    early, late = task(), task()
    flag = early.cancelled
    assert not flag.is_set()
    early.cancel()
    late.cancel()
    assert flag.is_set()
    assert late.cancelled.is_set()
    assert "a attempt 1 of x" in repr(early)


async def test_coroutines_and_plain_functions_and_callable_objects_all_run() -> None:
    class Agent:
        async def __call__(self, task: Task) -> str:
            return task.task_id

    async def coroutine(task: Task) -> int:
        return task.attempt

    def plain(task: Task) -> bool:
        return threading.current_thread() is threading.main_thread()

    assert (await run(coroutine)).result == b"1"
    assert (await run(Agent())).result == b'"a"'
    assert (await run(plain)).result == b"false"


async def test_a_stated_failure_keeps_its_code_and_says_whether_to_try_again() -> None:
    async def fails(task: Task) -> None:
        raise TaskFailed("no access", code="NO_ACCESS")

    assert (await run(fails)).error == {"code": "NO_ACCESS", "message": "no access", "retryable": False}


@pytest.mark.parametrize("error", [ValueError("boom"), SystemExit(3), KeyError()])
async def test_any_other_exception_is_a_retryable_failure_without_a_stack_trace(error: BaseException) -> None:
    async def fails(task: Task) -> None:
        raise error

    outcome = (await run(fails)).error
    assert outcome is not None
    assert outcome["code"] == "AGENT_ERROR"
    assert outcome["retryable"] is True
    assert outcome["message"].startswith(type(error).__name__)
    assert "Traceback" not in outcome["message"]


async def test_a_long_message_is_cut() -> None:
    async def fails(task: Task) -> None:
        raise TaskFailed("m" * 9_000, code="C" * 900, retryable=True)

    outcome = (await run(fails)).error
    assert outcome == {"code": "C" * 100, "message": "m" * 2_000, "retryable": True}


def test_results_that_are_not_json_or_too_large_fail_for_good() -> None:
    for value in (object(), {1, 2}, 2**70, {1: 2}, "\ud800"):
        error = encode_result(value).error
        assert error is not None
        assert (error["code"], error["retryable"]) == ("RESULT_NOT_JSON", False)
    error = encode_result("x" * RESULT_BYTES_MAX).error
    assert error is not None
    assert error["code"] == "RESULT_TOO_LARGE"
    assert encode_result("x" * (RESULT_BYTES_MAX - 2)).error is None


async def test_the_synthetic_agent_does_what_its_input_says() -> None:
    reports: list[float] = []
    assert await synthetic.run(task()) == {"task": "a"}
    assert await synthetic.run(task({"result": None})) is None
    assert await synthetic.run(task({"result": [1], "duration_ms": 1, "progress": 4}, reports=reports)) == [1]
    assert reports == [0.25, 0.5, 0.75, 1.0]


async def test_the_synthetic_agent_fails_as_often_as_asked() -> None:
    for attempt in (1, 2):
        with pytest.raises(TaskFailed) as failed:
            await synthetic.run(task({"fail_times": 2}, attempt))
        assert (failed.value.code, failed.value.retryable) == ("SYNTHETIC_FAILURE", True)
    assert await synthetic.run(task({"fail_times": 2}, 3)) == {"task": "a"}
    with pytest.raises(TaskFailed, match="broken"):
        await synthetic.run(task({"fail": "broken"}, 9))


@pytest.mark.parametrize("given", [{"duration_ms": "x"}, {"duration_ms": -1}, {"progress": True}, {"fail_times": None}])
async def test_the_synthetic_agent_refuses_an_input_that_makes_no_sense(given: dict[str, Any]) -> None:
    with pytest.raises(TaskFailed) as failed:
        await synthetic.run(task(given))
    assert (failed.value.code, failed.value.retryable) == ("INVALID_INPUT", False)


async def test_a_threads_work_is_handed_over_so_that_its_slot_can_wait_for_it() -> None:
    gate = threading.Event()
    handed_over: asyncio.Future[asyncio.Future[Any]] = asyncio.get_running_loop().create_future()
    runner = Runner(lambda task: gate.wait(5), 1)
    work = asyncio.create_task(runner.run(task(), handed_over.set_result))
    future = await handed_over
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert not future.done()
    gate.set()
    assert await future is True
    runner.close()


ADDED = {"id": "more", "agent": "worker", "depends_on": ["a"], "blocks": ["end"]}


async def test_tasks_are_added_by_the_return_value_by_a_call_and_by_both() -> None:
    async def returns(task: Task) -> Spawned:
        return Spawned({"n": 1}, [ADDED])

    def calls(task: Task) -> int:
        task.spawn(ADDED, {"id": "x", "agent": "worker"})
        return 5

    async def both(task: Task) -> Spawned:
        task.spawn(ADDED)
        return Spawned(tasks=[{"id": "y", "agent": "worker"}])

    assert await run(returns) == Outcome(result=b'{"n":1}', spawn=orjson.dumps([ADDED]))
    assert await run(calls) == Outcome(result=b"5", spawn=orjson.dumps([ADDED, {"id": "x", "agent": "worker"}]))
    added = await run(both)
    assert (added.result, [task["id"] for task in orjson.loads(added.spawn or b"")]) == (b"null", ["more", "y"])
    assert (await run(lambda task: Spawned(1))).spawn is None


async def test_a_failed_attempt_adds_nothing() -> None:
    async def fails(task: Task) -> None:
        task.spawn(ADDED)
        raise TaskFailed("no")

    assert (await run(fails)).spawn is None


@pytest.mark.parametrize(
    ("tasks", "code"),
    [
        ([{"id": f"t{n}", "agent": "w"} for n in range(SPAWN_TASKS_MAX + 1)], "SPAWN_TOO_LARGE"),
        ([{"id": "t", "agent": "w", "input": {"text": "x" * SPAWN_BYTES_MAX}}], "SPAWN_TOO_LARGE"),
        (["t"], "SPAWN_INVALID"),
        ([{"agent": "w"}], "SPAWN_INVALID"),
        ([{"id": "t"}], "SPAWN_INVALID"),
        ([{"id": "t", "agent": "w", "input": object()}], "SPAWN_INVALID"),
    ],
)
def test_added_tasks_that_are_too_many_too_large_or_none_at_all_fail_the_attempt(tasks: list[Any], code: str) -> None:
    outcome = encode_result(Spawned({"fine": True}, tasks))
    assert outcome.result is None
    assert outcome.error is not None
    assert (outcome.error["code"], outcome.error["retryable"]) == (code, False)


async def test_the_synthetic_agent_adds_the_tasks_that_its_input_says() -> None:
    assert await synthetic.run(task({"spawn": [ADDED], "result": 1})) == Spawned(1, [ADDED])
    with pytest.raises(TaskFailed) as failed:
        await synthetic.run(task({"spawn": "more"}))
    assert failed.value.code == "INVALID_INPUT"
