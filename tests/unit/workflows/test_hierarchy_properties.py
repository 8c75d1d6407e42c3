"""Whatever agents and leads do: failures go up level by level, authority holds, everything ends."""

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.definition import RetryPolicy
from engine.contracts.kernel import Attempt
from engine.contracts.patterns.hierarchical import HierarchicalConfig
from engine.hierarchy import Hierarchy
from tests.unit.workflows.drill import Drill, task
from tests.unit.workflows.hierarchy_drill import hierarchy_drill
from workflows.kernel.state import Phase
from workflows.policies.hierarchy.rights import action_of

COUNTS = {"director": 1, "chief": 2, "boss": 1, "worker": 2, "helper": 1, "clerk": 1}
ACTIONS = ("build", "test", "deploy")
DECISIONS = ("retry", "reassign", "resolve", "fail", "escalate")


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    delegation = st.sampled_from(["direct", "direct", "lead"])
    limits = st.none() | st.integers(1, 3)
    decisions = st.fixed_dictionaries({"decisions": st.lists(st.sampled_from(DECISIONS[:4]), max_size=3, unique=True)})
    actions = st.fixed_dictionaries({"actions": st.sampled_from([["test"], ["te*", "deploy"], ["*"]])})
    return {
        "teams": {
            "top": {"lead": "director", "members": ["crew", "office"], "delegation": draw(delegation)},
            "crew": {"lead": "chief", "members": ["squad", "helper"], "in_flight_max": draw(limits),
                     "delegation": draw(delegation)},
            "squad": {"lead": "boss", "members": ["worker"], "delegation": draw(delegation)},
            "office": {"lead": "clerk", "members": ["spare"]},
        },
        "authority": {
            "levels": draw(st.dictionaries(st.sampled_from(["L1", "L2", "L3"]), decisions, max_size=2)),
            "roles": draw(st.dictionaries(st.sampled_from(["helper", "clerk", "director"]), actions, max_size=3)),
        },
        "span_of_control": {"in_flight_max": draw(limits)},
        "escalation": {"interventions_max": draw(st.integers(1, 2)), "answers_max": draw(st.integers(1, 2))},
    }  # fmt: skip


class Play:
    """Agents and leads that do as Hypothesis likes."""

    def __init__(self, run: Drill, data: st.DataObject) -> None:
        self.run = run
        self.data = data

    def report(self, attempt: Attempt) -> None:
        run, draw = self.run, self.data.draw
        if "-escalation-" in attempt.task_id:
            document = draw(self._decisions())
        elif "-delegation-" in attempt.task_id:
            document = {"to": draw(st.sampled_from([*COUNTS, "worker-2", "squad", "crew", "nobody"]))}
        else:
            document = "done"
        match draw(st.sampled_from(["wait", "end", "end", "fail"])):
            case "end":
                run.receive(run.completed(attempt, document))
            case "fail":
                run.receive(run.failed(attempt, retryable=draw(st.booleans())))

    @staticmethod
    def _decisions() -> st.SearchStrategy[Any]:
        some = st.fixed_dictionaries({"decision": st.sampled_from(DECISIONS)})
        retry = st.just({"decision": "retry", "input": {"n": 1}})
        reassign = st.fixed_dictionaries(
            {"decision": st.just("reassign"), "to": st.sampled_from([*COUNTS, "helper-1", "nobody"])}
        )
        resolve = st.just({"decision": "resolve", "result": 1})
        return st.one_of(some, retry, reassign, resolve, st.none())


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_failures_go_up_level_by_level_and_authority_holds_and_all_ends(data: st.DataObject) -> None:
    fields = data.draw(configs())
    counts = {**COUNTS, "spare": 1}
    retry = RetryPolicy(max_attempts=2, initial_delay_seconds=0.1)
    hierarchy = Hierarchy(HierarchicalConfig.model_validate(fields))
    wanted = [("a", "worker", "build", ()), ("b", "helper", "test", ()), ("c", "worker", "deploy", (0,)),
              ("d", "boss", "test", (0, 1)), ("e", "chief", "build", ())]  # fmt: skip
    assert all(hierarchy.refusal(role, action, ()) is None for _, role, action, _ in wanted), "as the planner sees to"
    tasks = [task(name, deps, role=role, action=action, retry=retry) for name, role, action, deps in wanted]
    rule = data.draw(st.sampled_from(["fail_fast", "finish_branches"]))
    run = hierarchy_drill(*tasks, counts=counts, on_failure=rule, slots=data.draw(st.integers(1, 2)), **fields)
    play = Play(run, data)
    for _ in range(60):
        if run.state.closed:
            break
        for attempt in run.in_flight():
            play.report(attempt)
        chance = data.draw(st.integers(0, 14))
        if chance == 0:
            run.control("resume" if run.state.paused else "pause")
        elif chance == 1:
            run.continue_as_new()
        run.tick(after_ms=300)
        check_limits(run, hierarchy)
    if run.state.paused and not run.state.closed:
        run.control("resume")
        run.tick()
    if not run.state.closed:
        run.finish(ticks_max=300)
    assert run.state.closed
    check_escalations(run, hierarchy)
    check_authority(run, hierarchy)


def check_limits(run: Drill, hierarchy: Hierarchy) -> None:
    """Work in flight below a lead."""
    for team, limit in hierarchy.in_flight_max.items():
        below = [a for a in run.in_flight() if not run.state.specs[run.state.index[a.task_id]].asked
                 and hierarchy.is_below(run.state.agents[a.agent_id].role, team)]  # fmt: skip
        assert len(below) <= limit


def check_escalations(run: Drill, hierarchy: Hierarchy) -> None:
    """Each failure at most once a level, never past one, and a bounded number altogether."""
    raised = run.audit("escalation.raised")
    seen = Counter((e["task_id"], e["attempt"], e["to_level"]) for e in raised)
    assert not seen or max(seen.values()) == 1
    most = hierarchy.config.escalation.interventions_max
    for spec in run.state.plan.tasks:
        chain = [f"L{s.level}" for s in hierarchy.superiors(spec.role)]
        mine = [e for e in raised if e["task_id"] == spec.id]
        steps = [chain.index(str(e["to_level"])) for e in mine]
        assert all(later - earlier in (0, 1) for earlier, later in pairwise(steps))
        assert not mine or steps[0] == 0 or mine[0]["error"]["code"] == "DELEGATION_FAILED"  # type: ignore[index]
        assert all(n <= most for n in Counter(steps).values())
        expected = [f"L{hierarchy.levels[spec.role]}", *chain]
        assert all(e["from_level"] == expected[step] for e, step in zip(mine, steps, strict=True))


def check_authority(run: Drill, hierarchy: Hierarchy) -> None:
    """Nothing was ever sent to a role that may not do it, and every lead decided within its rights."""
    for delta in run.deltas:
        for attempt in delta.assigned:
            i = run.state.index[attempt.task_id]
            if not run.state.specs[i].asked:
                role = run.state.agents[attempt.agent_id].role
                assert hierarchy.refusal(role, action_of(run.state, i), ()) is None
    for said in run.audit("escalation.decided"):
        if said["outcome"] == "carried_out":
            lead = hierarchy.teams[str(said["team"])].lead
            assert hierarchy.decision_refusal(lead, str(said["decision"])) is None
    for i in run.state.submitted:
        assert run.state.tasks[i].phase is not Phase.SUBMITTED
