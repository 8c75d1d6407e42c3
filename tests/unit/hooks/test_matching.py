"""Matching: patterns, the compiled index, subjects of events, and what a launch is told."""

import re
import time
from uuid import uuid4

import pytest
import re2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.events import AuditEvent, AuditEventType
from engine.contracts.hooks import HookMode, HookRule, HookTrigger
from engine.contracts.kernel import BlockingHooks, KernelPlan, KernelRole, KernelTask
from engine.errors import InvalidParametersError
from hooks import matching
from hooks.launching import guard
from hooks.matching import HookIndex, check_pattern
from hooks.subjects import occasion_of, role_of, subject_of


def rule(
    pattern: str | None = None,
    trigger: HookTrigger = HookTrigger.POST_TASK,
    mode: HookMode = HookMode.ASYNCHRONOUS,
    name: str = "h",
    priority: int = 100,
) -> HookRule:
    return HookRule(hook_id=uuid4(), name=name, trigger=trigger, event_pattern=pattern, mode=mode, priority=priority)


def names(index: HookIndex, subject: str, trigger: HookTrigger = HookTrigger.POST_TASK) -> list[str]:
    return [found.name for found in index.matching(trigger, HookMode.ASYNCHRONOUS, subject)]


@pytest.mark.parametrize("pattern", [".*analysis.*", "^task\\.completed ", "task=(a|b) ", "(a+)+$", "(?i)TASK", "é"])
def test_patterns_of_re2_are_taken(pattern: str) -> None:
    check_pattern(pattern)


@pytest.mark.parametrize(
    "pattern",
    ["(a", "(?=a)", "(?<!a)b", "\\1", "a{1000}{1000}", "(?:\\pL{50}){10}", "a" * 501, "a\nb", "\ud800"],
)
def test_what_re2_cannot_match_in_linear_time_or_is_too_large_is_refused_with_its_place(pattern: str) -> None:
    with pytest.raises(InvalidParametersError) as caught:
        check_pattern(pattern)
    assert caught.value.data["errors"][0]["location"] == "event_pattern"


def test_hooks_come_in_their_order_with_those_that_take_every_event() -> None:
    index = HookIndex([rule("task=a", name="1"), rule(name="2"), rule("task=b", name="3"), rule("task=a", name="4")])
    assert names(index, "task.completed task=a") == ["1", "2", "4"]
    assert names(index, "task.completed task=c") == ["2"]
    assert names(index, "task.completed task=a", HookTrigger.AGENT_FAILED) == []


def test_triggers_and_modes_are_kept_apart() -> None:
    index = HookIndex([rule(), rule(trigger=HookTrigger.PRE_TASK, mode=HookMode.BLOCKING)])
    assert index.has(HookTrigger.POST_TASK, HookMode.ASYNCHRONOUS)
    assert not index.has(HookTrigger.POST_TASK, HookMode.BLOCKING)
    assert index.has_mode(HookMode.BLOCKING)
    assert not HookIndex([])


PIECES = st.sampled_from(["a", "b", "task=", ".", ".*", "(a|b)", "[^ ]+", "^", "$", " ", "x?", "\\d"])


@settings(max_examples=200, deadline=None)
@given(
    patterns=st.lists(st.lists(PIECES, min_size=1, max_size=6).map("".join), max_size=12),
    subject=st.text(alphabet="ab task=0", max_size=30),
)
def test_the_index_finds_what_each_pattern_finds_alone(patterns: list[str], subject: str) -> None:
    index = HookIndex([rule(pattern, name=str(n)) for n, pattern in enumerate(patterns)])
    alone = [str(n) for n, pattern in enumerate(patterns) if re2.search(pattern, subject)]
    assert names(index, subject) == alone
    assert names(index, subject) == alone, "remembered"


def test_an_automaton_that_gets_too_large_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matching, "SET_MEMORY_BYTES", 200_000)
    monkeypatch.setattr(matching, "PATTERNS_TOGETHER_MAX", 40)
    rules = [rule(f"task=[a-z]{{1,90}}_{n} ", name=str(n)) for n in range(60)]
    index = HookIndex(rules)
    for n in (0, 39, 40, 59):
        assert names(index, f"task.completed task=ab_{n} end") == [str(n)]


def test_a_thousand_hooks_that_do_not_match_cost_a_task_less_than_a_millisecond() -> None:
    index = HookIndex([rule(f".*analysis_{n}.*", name=str(n)) for n in range(1_000)])
    subjects = [f"task.completed workflow=w task=t{n} role=r agent=r-1 status=success" for n in range(1_000)]
    began = time.perf_counter()
    for subject in subjects:
        assert names(index, subject) == []
    assert (time.perf_counter() - began) / len(subjects) < 0.001


def event(kind: AuditEventType, **payload: object) -> AuditEvent:
    return AuditEvent(type=kind, at_ms=1, payload=dict(payload))


@pytest.mark.parametrize(
    ("fact", "trigger", "subject"),
    [
        (
            event(AuditEventType.TASK_COMPLETED, task_id="data_analysis", agent_id="worker-2", status="success"),
            HookTrigger.POST_TASK,
            "task.completed workflow=w task=data_analysis role=worker agent=worker-2 status=success",
        ),
        (
            event(AuditEventType.TASK_COMPLETED, task_id="a", status="failed", error={"code": "TIMEOUT"}),
            HookTrigger.AGENT_FAILED,
            "task.completed workflow=w task=a status=failed error=TIMEOUT",
        ),
        (
            event(AuditEventType.TASK_ASSIGNED, task_id="a", agent_id="code-writer-12"),
            HookTrigger.AGENT_ASSIGNED,
            "agent.task_assigned workflow=w task=a role=code-writer agent=code-writer-12",
        ),
        (
            event(AuditEventType.AGENT_DISCONNECTED, agent_id="worker-1"),
            HookTrigger.AGENT_FAILED,
            "agent.disconnected workflow=w role=worker agent=worker-1",
        ),
        (
            event(AuditEventType.STATUS_CHANGED, previous_status="executing", new_status="paused"),
            HookTrigger.SESSION_END,
            "workflow.status_changed workflow=w status=paused previous=executing",
        ),
        (
            event(AuditEventType.STATUS_CHANGED, previous_status="paused", new_status="executing"),
            HookTrigger.SESSION_START,
            "workflow.status_changed workflow=w status=executing previous=paused",
        ),
        (
            event(AuditEventType.STATUS_CHANGED, previous_status="executing", new_status="failed"),
            HookTrigger.POST_WORKFLOW,
            "workflow.status_changed workflow=w status=failed previous=executing",
        ),
        (
            event(AuditEventType.EXTERNAL_EVENT_RECEIVED, event_id="e", event_type="session.saved"),
            HookTrigger.SESSION_END,
            "session.saved workflow=w",
        ),
        (
            event(AuditEventType.EXTERNAL_EVENT_RECEIVED, event_id="e", event_type="session.resumed"),
            HookTrigger.SESSION_START,
            "session.resumed workflow=w",
        ),
    ],
)
def test_each_fact_has_its_trigger_and_its_subject(fact: AuditEvent, trigger: HookTrigger, subject: str) -> None:
    occasion = occasion_of(fact)
    assert occasion is not None
    assert (occasion.trigger, occasion.subject("w")) == (trigger, subject)


@pytest.mark.parametrize(
    "fact",
    [
        event(AuditEventType.TASK_STARTED, task_id="a"),
        event(AuditEventType.STATUS_CHANGED, previous_status="planning", new_status="executing"),
        event(AuditEventType.EXTERNAL_EVENT_RECEIVED, event_type="approval"),
    ],
)
def test_other_facts_set_nothing_off(fact: AuditEvent) -> None:
    assert occasion_of(fact) is None


def test_roles_are_what_agents_are_named_after() -> None:
    assert (role_of("code-writer-12"), role_of("alone")) == ("code-writer", "alone")
    assert subject_of("x", "w", {"a": "1"}) == "x workflow=w a=1"


FORGED = "X task=deploy role=admin\nworkflow=prod"


def test_an_agents_error_code_forges_no_field_of_a_subject() -> None:
    fact = event(AuditEventType.TASK_COMPLETED, task_id="t[3]", status="failed", error={"code": FORGED})
    occasion = occasion_of(fact)
    assert occasion is not None
    assert occasion.subject("w") == (
        "task.completed workflow=w task=t[3] status=failed error=X_task_deploy_role_admin_workflow_prod"
    )


@given(values=st.lists(st.text(), min_size=4, max_size=4))
@example(values=[FORGED] * 4)
def test_whatever_values_hold_a_subject_is_one_line_with_its_own_fields(values: list[str]) -> None:
    workflow, *others = values
    subject = subject_of("x", workflow, dict(zip(("task", "agent", "error"), others, strict=True)))
    assert re.fullmatch(r"x workflow=[\w.:-]* task=[\w.:\[\]-]* agent=[\w.:-]* error=[\w.:-]*", subject, re.ASCII)


def plan(*tasks: KernelTask) -> KernelPlan:
    return KernelPlan(tasks=tasks, roles={"worker": KernelRole(type="synthetic", count=1)})


def task(name: str, **fields: object) -> KernelTask:
    return KernelTask.model_validate({"id": name, "role": "worker", "retry": RetryPolicy(), **fields})


def blocking(trigger: HookTrigger, pattern: str | None = None) -> HookRule:
    return rule(pattern, trigger, HookMode.BLOCKING)


def test_a_launch_marks_the_tasks_that_hooks_guard_and_they_go_out_with_no_other() -> None:
    index = HookIndex([blocking(HookTrigger.PRE_TASK, "task=b "), blocking(HookTrigger.POST_WORKFLOW)])
    before = plan(task("a"), task("b", deps=(0,), fused=True))
    guarded, hooks = guard(before, "w", index)
    assert [(item.guarded, item.fused) for item in guarded.tasks] == [(False, False), (True, False)]
    assert hooks == BlockingHooks(post_workflow=True, added_tasks=True)


def test_where_nothing_can_match_the_plan_is_itself_and_nothing_is_held() -> None:
    before = plan(task("a"))
    index = HookIndex([blocking(HookTrigger.PRE_WORKFLOW, "workflow=another"), rule()])
    guarded, hooks = guard(before, "w", index)
    assert guarded is before
    assert hooks is None
