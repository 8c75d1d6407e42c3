"""Asking blocking hooks: their answers, their failures, and what is recorded of them."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities.guarding import GuardingActivities
from engine.contracts.hooks import CircuitState, HookCircuit, HookTrigger
from engine.contracts.kernel import Errand, ErrandRequest
from engine.errors import NotFoundError
from engine.events.bodies import GrownBodies
from engine.ports import StoredBody, TaskAddition
from hooks.directory import HookDirectory
from hooks.guarding import Guarded, Guardian
from tests.fakes.hooks import FakeActions, FakeDeliveries, FakeHookStore, bad, good, new_hook

TENANT = "acme"
PRE_TASK = Guarded(HookTrigger.PRE_TASK, "build", "a", "worker", {"x": 1})


class Bench:
    def __init__(self) -> None:
        self.store = FakeHookStore()
        self.deliveries = FakeDeliveries(self.store)
        self.actions = FakeActions()
        self.directory = HookDirectory(self.store, enabled=True)
        slots = asyncio.Semaphore(2)
        self.guardian = Guardian(self.directory, self.store, self.deliveries, self.actions, slots)
        self.request = ErrandRequest(
            tenant=TENANT, execution_id=str(uuid4()), workflow_id=str(uuid4()), trace_id="t", epoch=1,
            errand=Errand(key="hooks/a/1", kind="hooks", task_id="a", input={"trigger": "pre_task", "role": "worker"}),
        )  # fmt: skip

    def hook(self, name: str, output: str = "", **fields: Any) -> None:
        circuit = fields.pop("circuit", HookCircuit())
        self.store.add(TENANT, new_hook(name, **{"trigger": "pre_task", **fields}), circuit=circuit)
        self.directory.forget()
        if output:
            self.actions.behave(name, lambda _: good(output))

    async def ask(self, guarded: Guarded = PRE_TASK) -> Any:
        return await self.guardian.verdict(self.request, guarded)


@pytest.fixture
def bench() -> Bench:
    return Bench()


async def test_where_no_hook_matches_it_goes_on_and_nothing_is_recorded(bench: Bench) -> None:
    assert (await bench.ask()).decision == "proceed"
    bench.hook("other", event_pattern="task=z")
    assert (await bench.ask()).decision == "proceed"
    assert bench.store.runs == []


@pytest.mark.parametrize("output", ["", "fine\n", "[1]", '"veto"', "{}", '{"decision": "proceed"}', "{broken"])
async def test_what_is_no_veto_lets_it_go_on_with_its_own_input(bench: Bench, output: str) -> None:
    bench.hook("h", output)
    verdict = await bench.ask()
    assert (verdict.decision, verdict.input) == ("proceed", None)


async def test_a_veto_ends_the_asking_and_says_whose_it_is(bench: Bench) -> None:
    bench.hook("budget", '{"decision": "veto", "reason": "too dear"}', priority=1)
    bench.hook("later", priority=2)
    verdict = await bench.ask()
    assert (verdict.decision, verdict.reason, verdict.hook_name) == ("veto", "too dear", "budget")
    assert bench.actions.names == ["budget"]


async def test_each_hook_sees_what_the_one_before_has_changed(bench: Bench) -> None:
    bench.hook("one", '{"input": {"x": 2}}', priority=1)
    bench.hook("two", priority=2)
    verdict = await bench.ask()
    assert verdict.input == {"x": 2}
    assert [context.input for context in bench.actions.calls] == [{"x": 1}, {"x": 2}]
    assert bench.actions.calls[0].task_id == "a"


async def test_only_a_tasks_input_can_be_changed(bench: Bench) -> None:
    bench.hook("h", '{"input": {"x": 2}}', trigger="pre_workflow")
    verdict = await bench.ask(Guarded(HookTrigger.PRE_WORKFLOW, "build", input={}))
    assert (verdict.decision, verdict.input) == ("proceed", None)


@pytest.mark.parametrize(
    "output", ['{"decision": "maybe"}', '{"decision": "proceed", "input": 3}', '{"decision": null, "input": []}']
)
async def test_an_answer_that_is_not_understood_is_a_failure(bench: Bench, output: str) -> None:
    bench.hook("h", output)
    assert (await bench.ask()).decision == "veto"


@pytest.mark.parametrize(("on_error", "decision"), [("veto", "veto"), ("proceed", "proceed")])
async def test_a_hook_that_fails_means_what_it_says_it_means(bench: Bench, on_error: str, decision: str) -> None:
    bench.hook("h", on_error=on_error)
    bench.actions.behave("h", lambda _: bad())
    assert (await bench.ask()).decision == decision


@pytest.mark.parametrize("output", ['{"decision": "veto", "reason": "too lo', '{"decision": "proceed"}', "fine"])
@pytest.mark.parametrize(("on_error", "decision"), [("veto", "veto"), ("proceed", "proceed")])
async def test_an_answer_that_was_cut_is_a_failure_whatever_is_left_of_it(
    bench: Bench, output: str, on_error: str, decision: str
) -> None:
    bench.hook("h", on_error=on_error)
    bench.actions.behave("h", lambda _: good(output).model_copy(update={"output_truncated": True}))
    verdict = await bench.ask()
    assert verdict.decision == decision
    assert ("gave no answer" in verdict.reason) is (decision == "veto")


async def test_a_hook_that_is_switched_off_is_not_run_and_counts_as_failed(bench: Bench) -> None:
    bench.hook("h", circuit=HookCircuit(state=CircuitState.OPEN))
    verdict = await bench.ask()
    assert verdict.decision == "veto"
    assert "switched off" in verdict.reason
    assert bench.actions.calls == []
    assert len(bench.deliveries.skips) == 1


async def test_each_run_is_recorded_with_its_announcement_under_an_id_that_repeats(bench: Bench) -> None:
    bench.hook("h")
    await bench.ask()
    await bench.ask()
    first, second = [run for _, run in bench.store.runs]
    assert first.execution_id == second.execution_id
    assert first.workflow_execution_id == UUID(bench.request.execution_id)
    assert first.announcement is not None
    assert first.announcement["subject"] == "task.starting workflow=build task=a role=worker"
    bench.deliveries.switched_off = (first.hook_id,)
    await bench.ask()


class FakeBodies:
    def __init__(self) -> None:
        self.asked = 0

    async def body(self, tenant: str, execution_id: UUID) -> StoredBody:
        self.asked += 1
        if tenant != TENANT:
            raise NotFoundError("no such execution")
        return StoredBody(
            execution_id=str(execution_id), workflow_id=str(uuid4()), input_data={"the": "input"}, trace_id="t",
            definition={"name": "build", "tasks": [{"id": "a", "agent": "worker", "input": {"x": 1}}]},
        )  # fmt: skip

    async def describe(self, tenant: str, execution_id: UUID, task_ids: Any) -> dict[str, TaskAddition]:
        return {}


def activities(bench: Bench) -> tuple[GuardingActivities, FakeBodies]:
    bodies = FakeBodies()
    return GuardingActivities(bench.guardian, bodies, GrownBodies(bodies, bodies)), bodies  # type: ignore[arg-type]  # what they use


async def test_the_activity_tells_hooks_the_tasks_own_input_and_asks_for_the_definition_once(bench: Bench) -> None:
    bench.hook("h", '{"input": {"x": 9}}')
    guarding, bodies = activities(bench)
    for _ in range(2):
        answer = await ActivityEnvironment().run(guarding.ask_hooks, bench.request)
        assert (answer.key, answer.ok) == ("hooks/a/1", True)
        assert answer.value["input"] == {"x": 9}
    assert [context.input for context in bench.actions.calls] == [{"x": 1}, {"x": 1}]
    assert bodies.asked == 1


async def test_the_activity_tells_hooks_of_the_workflow_the_executions_input(bench: Bench) -> None:
    bench.hook("h", trigger="pre_workflow")
    guarding, _ = activities(bench)
    errand = Errand(key="hooks//pre_workflow/1", kind="hooks", input={"trigger": "pre_workflow"})
    await ActivityEnvironment().run(guarding.ask_hooks, bench.request.model_copy(update={"errand": errand}))
    assert bench.actions.calls[0].input == {"the": "input"}


async def test_what_is_not_there_fails_the_activity_for_good_and_outages_do_not(bench: Bench) -> None:
    guarding, _ = activities(bench)
    foreign = bench.request.model_copy(update={"tenant": "another"})
    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(guarding.ask_hooks, foreign)
    assert caught.value.non_retryable
    bench.store.available = False
    bench.directory.forget()
    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(guarding.ask_hooks, bench.request)
    assert not caught.value.non_retryable
