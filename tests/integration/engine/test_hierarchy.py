"""The hierarchical pattern on the real engine: levels, teams as workflows, and what may happen to those."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.client import WorkflowExecutionStatus, WorkflowFailureError, WorkflowHandle
from temporalio.service import RPCError

from engine.contracts.execution import ExecutionStatus
from engine.contracts.teams import TEAM_WORKFLOW, TeamLaunch, TeamReport
from orchestration_agent.host import AgentHost
from orchestration_agent.synthetic import run as synthetic
from orchestration_agent.task import Task
from tests.integration.engine.bench import Bench
from tests.integration.engine.hierarchies import NONE, TEAMS, hierarchy, play
from workflows.replay import replay_history


@pytest.fixture
async def played(bench: Bench) -> Bench:
    await bench.stop()
    await bench.start_host(AgentHost(play, bench.host_options))
    return bench


def team(bench: Bench, execution_id: UUID, name: str) -> WorkflowHandle[Any, Any]:
    return bench.client.get_workflow_handle(f"{bench.tenant}/{execution_id}/{name}")


async def until_team(bench: Bench, execution_id: UUID, name: str, *statuses: WorkflowExecutionStatus) -> Any:
    async def reached() -> Any:
        try:
            described = await team(bench, execution_id, name).describe()
        except RPCError:
            return None
        return described if described.status in statuses else None

    return await bench.until(reached, f"team {name}: {statuses}")


async def assert_team_replays(bench: Bench, execution_id: UUID, name: str) -> None:
    replayed = await replay_history(await team(bench, execution_id, name).fetch_history(), bench.client.data_converter)
    assert replayed.failure is None


async def test_a_failure_on_l3_goes_to_l2_and_then_to_l1_which_solves_it(played: Bench) -> None:
    said = {"chief": {"decision": "escalate", "reason": "above me"}, "director": {"decision": "resolve", "result": 42}}
    execution_id = await played.start(
        hierarchy({"id": "a", "input": {"fail": "broken"}, "retry_policy": NONE}, {"id": "b", "depends_on": ["a"]}),
        {**said, "told": "b"},
    )
    done = await played.until_closed(execution_id)
    assert done.status is ExecutionStatus.COMPLETED
    events = await played.events(execution_id)
    raised = [e.payload for e in events if e.event_type == "escalation.raised"]
    assert [(e["from_level"], e["to_level"], e["error"]["code"]) for e in raised] == [
        ("L3", "L2", "SYNTHETIC_FAILURE"),
        ("L2", "L1", "SYNTHETIC_FAILURE"),
    ]
    decided = [e.payload for e in events if e.event_type == "escalation.decided"]
    assert [(e["level"], e["by"], e["decision"]) for e in decided] == [
        ("L2", "chief-1", "escalate"),
        ("L1", "director-1", "resolve"),
    ]
    result = await played.stores.dispatch.result(played.tenant, execution_id, "b")
    assert result.result["results"] == {"a": 42}
    await played.assert_replays(execution_id)


async def test_a_superior_sees_the_task_and_its_retry_has_the_changed_input(played: Bench) -> None:
    seen: list[Task] = []

    async def watch(task: Task) -> Any:
        if task.action == "escalation":
            seen.append(task)
            return {"decision": "retry", "input": {"x": 2}, "feedback": "now with two"}
        if task.task_id == "a" and task.attempt == 2:
            seen.append(task)
            return "done"
        return await synthetic(task)

    await played.stop()
    await played.start_host(AgentHost(watch, played.host_options))
    failing = {"id": "a", "depends_on": ["first"], "action": "build", "retry_policy": NONE,
               "input": {"fail": "broken", "x": 1, "y": 1}}  # fmt: skip
    first = {"id": "first", "input": {"result": "before"}}
    execution_id = await played.start(hierarchy(first, failing))
    assert (await played.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    asked, again = seen
    assert asked.input["task"]["id"] == "a"
    assert (asked.input["task"]["action"], asked.input["task"]["input"]["y"]) == ("build", 1)
    assert asked.results == {"first": "before"}
    assert asked.context["escalation"]["error"]["message"] == "broken"
    assert again.input == {"fail": "broken", "x": 2, "y": 1}
    assert again.context["escalation"]["feedback"] == "now with two"
    await played.assert_replays(execution_id)


async def test_a_large_answer_counts_too(played: Bench) -> None:
    said = {"chief": {"decision": "resolve", "result": "x" * 6_000}}
    execution_id = await played.start(hierarchy({"id": "a", "input": {"fail": "broken"}, "retry_policy": NONE}), said)
    assert (await played.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    result = await played.stores.dispatch.result(played.tenant, execution_id, "a")
    assert result.result == "x" * 6_000
    await played.assert_replays(execution_id)


async def test_each_team_is_a_child_that_ends_with_its_outcome(played: Bench) -> None:
    said = {"chief": {"decision": "escalate"}, "director": {"decision": "fail", "reason": "no use"}}
    execution_id = await played.start(
        hierarchy({"id": "a", "input": {"fail": "broken"}, "retry_policy": NONE}, {"id": "c", "agent": "chief"}), said
    )
    assert (await played.until_closed(execution_id)).status is ExecutionStatus.FAILED
    for name, level in (("board", 1), ("crew", 2)):
        described = await until_team(played, execution_id, name, WorkflowExecutionStatus.COMPLETED)
        assert described.parent_id == f"{played.tenant}/{execution_id}"
        assert f"L{level}" in await described.static_summary()
    outcome = await team(played, execution_id, "crew").result()
    assert (outcome["outcome"], outcome["completed"], outcome["failed"]) == ("failed", 2, 1)
    await assert_team_replays(played, execution_id, "crew")
    report = await team(played, execution_id, "crew").query("team", result_type=TeamReport)
    assert (report.completed, report.outcome) == (2, "failed")


async def test_a_long_execution_tells_its_teams_while_it_runs_and_after_going_on_as_new(bench: Bench) -> None:
    tasks = [
        {"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else [], "input": {"duration_ms": 400}} for n in range(12)
    ]
    execution_id = await bench.start(hierarchy(*tasks), history_events_max=40)

    async def saw_some() -> bool:
        try:
            report = await team(bench, execution_id, "crew").query("team", result_type=TeamReport)
        except RPCError:
            return False
        return 2 <= report.running + report.completed < 12 and report.outcome is None

    await bench.until(saw_some, "the team's workflow shows what runs")
    begun = await team(bench, execution_id, "crew").describe()
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    assert await bench.assert_replays(execution_id) > 1
    described = await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    assert described.run_id == begun.run_id, "it has outlived the execution's runs"
    outcome = await team(bench, execution_id, "crew").result()
    assert (outcome["outcome"], outcome["completed"]) == ("completed", 12)
    await assert_team_replays(bench, execution_id, "crew")


@pytest.mark.parametrize("how", ["terminate", "cancel"])
async def test_what_becomes_of_a_team_is_nothing_to_the_execution(bench: Bench, how: str) -> None:
    execution_id = await bench.start(
        hierarchy({"id": "a", "input": {"duration_ms": 3_000}}, {"id": "b", "depends_on": ["a"]})
    )
    await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.RUNNING)
    handle = team(bench, execution_id, "crew")
    await (handle.terminate() if how == "terminate" else handle.cancel())
    if how == "terminate":
        await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.TERMINATED)
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    if how == "cancel":
        await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    await bench.assert_replays(execution_id)


async def test_a_team_does_not_outlive_an_execution_that_is_terminated(bench: Bench) -> None:
    execution_id = await bench.start(hierarchy({"id": "a", "input": {"duration_ms": 60_000}}))
    await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.RUNNING)
    await bench.handle(execution_id).terminate()
    await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    assert (await team(bench, execution_id, "crew").result())["outcome"] == "execution gone"


async def test_a_team_that_is_there_already_is_told_instead_of_begun(bench: Bench) -> None:
    launch = await bench.plan_row(hierarchy({"id": "a", "input": {"duration_ms": 500}}))
    execution_id = UUID(launch.execution_id)
    other = TeamLaunch(
        tenant=bench.tenant, execution_id=launch.execution_id, workflow_name="x", team="crew", level=2, lead="chief",
        members=("worker",), report=TeamReport(tick=0),
    )  # fmt: skip
    await bench.client.start_workflow(
        TEAM_WORKFLOW, other, id=f"{bench.tenant}/{execution_id}/crew", task_queue=bench.settings.task_queue
    )
    await bench.launcher.launch(launch)
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    outcome = await team(bench, execution_id, "crew").result()
    assert (outcome["outcome"], outcome["completed"]) == ("completed", 1)
    await bench.assert_replays(execution_id)


async def test_a_team_that_hears_nothing_asks_and_ends_when_its_execution_is_gone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no parent close policy tells it, because it was begun by an earlier run."""
    monkeypatch.setattr("workflows.team.SILENCE_MAX", timedelta(seconds=1))
    launch = TeamLaunch(
        tenant=bench.tenant, execution_id=str(uuid4()), workflow_name="x", team="crew", level=2, lead="chief",
        members=("worker",), report=TeamReport(tick=0, waiting=1),
    )  # fmt: skip
    handle = await bench.client.start_workflow(
        TEAM_WORKFLOW, launch, id=f"{bench.tenant}/{launch.execution_id}/crew", task_queue=bench.settings.task_queue
    )
    outcome = await handle.result()
    assert (outcome["outcome"], outcome["open_tasks"]) == ("execution gone", 1)


async def test_a_team_with_a_long_history_goes_on_as_a_new_run_and_is_still_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workflows.team.HISTORY_EVENTS_MAX", 12)
    tasks = [{"id": f"t{n}", "depends_on": [f"t{n - 1}"] if n else [], "input": {"duration_ms": 900}} for n in range(7)]
    execution_id = await bench.start(hierarchy(*tasks))
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    described = await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    assert described.raw_description.workflow_execution_info.first_run_id != described.run_id
    assert (await team(bench, execution_id, "crew").result())["completed"] == 7


async def test_a_team_that_gets_work_after_its_outcome_is_begun_again(bench: Bench) -> None:
    """The way back to a checkpoint: what was completed runs again."""
    tasks = [
        {"id": "a", "input": {"duration_ms": 1_500}},
        {"id": "plan", "agent": "director", "depends_on": ["a"], "input": {"duration_ms": 3_000}},
    ]
    execution_id = await bench.start(hierarchy(*tasks))
    await bench.until_event(execution_id, "agent.task_started", task_id="a")
    await bench.ask(execution_id, "checkpoint")
    first = await bench.until_event(execution_id, "workflow.checkpoint_created", reason="requested")
    before = await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    await bench.ask(execution_id, "pause")
    await bench.until_status(execution_id, ExecutionStatus.PAUSED)
    await bench.ask(execution_id, "resume", first.payload["checkpoint_id"])
    assert (await bench.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    after = await until_team(bench, execution_id, "crew", WorkflowExecutionStatus.COMPLETED)
    assert after.run_id != before.run_id
    await bench.assert_replays(execution_id)


async def test_a_team_of_another_execution_is_refused(bench: Bench) -> None:
    launch = TeamLaunch(
        tenant=bench.tenant, execution_id="other", workflow_name="x", team="crew", level=2, lead="chief", members=(),
        report=TeamReport(tick=0),
    )  # fmt: skip
    handle = await bench.client.start_workflow(
        TEAM_WORKFLOW, launch, id=f"{bench.tenant}/mine/crew", task_queue=bench.settings.task_queue
    )
    with pytest.raises(WorkflowFailureError):
        await handle.result()


async def test_a_pause_reaches_the_teams_and_what_is_decided_meanwhile_starts_afterwards(played: Bench) -> None:
    said = {"chief": {"decision": "resolve", "result": 1}}
    failing = {"id": "a", "input": {"duration_ms": 1_500, "fail": "broken"}, "retry_policy": NONE}
    execution_id = await played.start(hierarchy(failing, {"id": "b", "depends_on": ["a"]}), said)
    await played.until_event(execution_id, "agent.task_started", task_id="a")
    await played.ask(execution_id, "pause")
    await played.until_status(execution_id, ExecutionStatus.PAUSED)
    await played.until_event(execution_id, "escalation.raised")

    async def is_paused() -> bool:
        report = await team(played, execution_id, "crew").query("team", result_type=TeamReport)
        return bool(report.paused)

    await played.until(is_paused, "the team knows of the pause")
    await played.ask(execution_id, "resume")
    assert (await played.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    await played.assert_replays(execution_id)


async def test_an_escalation_is_carried_into_the_next_run(played: Bench) -> None:
    """The chief takes its time; meanwhile the execution goes on as new."""

    async def slow(task: Task) -> Any:
        if task.action == "escalation":
            await asyncio.sleep(3)
            return {"decision": "reassign", "to": "director"}
        return "done" if task.role == "director" else await synthetic(task)

    await played.stop()
    await played.start_host(AgentHost(slow, played.host_options))
    failing = {"id": "a", "input": {"fail": "broken"}, "retry_policy": NONE}
    other = hierarchy(failing)
    other["pattern_config"]["authority"] = {"levels": {"L2": {"decisions": ["reassign", "retry"]}}}
    execution_id = await played.start(other, history_events_max=12)
    await played.until_event(execution_id, "escalation.raised")
    before = (await played.handle(execution_id).describe()).run_id

    async def is_new() -> bool:
        await played.handle(execution_id).signal("catch_up")
        return (await played.handle(execution_id).describe()).run_id != before

    await played.until(is_new, "a new run")
    done = await played.until_closed(execution_id)
    refused = [e.payload for e in await played.events(execution_id) if e.event_type == "escalation.decided"]
    assert [e["outcome"] for e in refused][:2] == ["refused", "refused"], "the director is not below the chief"
    assert done.status is ExecutionStatus.FAILED
    assert await played.assert_replays(execution_id) > 1


async def test_a_lead_is_asked_who_does_a_task(played: Bench) -> None:
    config = {"teams": {**TEAMS, "crew": {**TEAMS["crew"], "delegation": "lead"}}}
    document = hierarchy({"id": "a", "input": {"x": 1}})
    document["pattern_config"] = config
    said = {"chief": {"to": "worker-1", "input": {"x": 2}, "feedback": "yours"}, "told": "a"}
    execution_id = await played.start(document, said)
    assert (await played.until_closed(execution_id)).status is ExecutionStatus.COMPLETED
    result = await played.stores.dispatch.result(played.tenant, execution_id, "a")
    assert result.result["input"] == {"x": 2}
    assert result.result["context"]["delegation"]["feedback"] == "yours"
    await played.assert_replays(execution_id)
