"""Every program that passes validation ends, whatever agents answer, and wherever its run is cut."""

import copy
from typing import Any

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from engine.contracts.execution import ExecutionStatus
from engine.contracts.patterns.language import PatternRegistration, successors
from engine.errors import InvalidLogicError
from planner.language.check import parse_registration
from tests.unit.workflows.drill import task
from tests.unit.workflows.stage import Broken, Call, Stage

STEPS_MAX = 60
TICKS_MAX = 2_000

simple = st.sampled_from(
    [
        {"do": "set", "values": {"n": "n + 1"}},
        {"do": "assign", "save": "r", "undo": "'undo'"},
        {"do": "assign", "own": True, "save": "r"},
        {"do": "assign", "input": "{n: n}", "attempts": 1, "on_failure": "*"},
        {"do": "gather", "each": "range(n % 4)", "need": "1", "on_failure": "*"},
        {"do": "gather", "group": "side", "need": "0", "wait_seconds": 5, "save": "r"},
        {"do": "spawn", "each": "[1, 2]", "group": "side", "undo": "item == 1 ? 'undo' : null"},
        {"do": "vote", "choice": "ballot.v", "undecided": "*", "wait_seconds": 9},
        {"do": "wait", "seconds": 3},
        {"do": "wait", "event": "never", "seconds": 2, "on_timeout": "*"},
        {"do": "escalate", "role": "'worker'", "on_failure": "*"},
        {"do": "compensate", "save": "r"},
    ]
)
blocks = st.recursive(
    st.builds(lambda state: [state], simple),
    lambda inner: st.one_of(
        st.builds(lambda a, b: [*a, *b], inner, inner),
        st.builds(lambda body, most: [{"do": "loop", "max": most, "inside": body}], inner, st.integers(1, 30)),
        st.builds(lambda a: [{"do": "route", "inside": a}], inner),
    ),
    max_leaves=8,
)


def compiled(block: list[dict[str, Any]]) -> dict[str, Any]:
    """A program of these states, one after the other; `*` and what is left open go on to the next."""
    states: dict[str, Any] = {"end": {"do": "finish", "result": "n"}, "last": {"do": "spawn", "each": "[]",
                              "group": "side", "next": "end"}}  # fmt: skip

    def lay(parts: list[dict[str, Any]], after: str) -> str:
        for part in reversed(copy.deepcopy(parts)):
            name = f"s{len(states)}"
            states[name] = {}
            inside = part.pop("inside", None)
            if part["do"] == "loop":
                part |= {"body": lay(inside, name), "next": after}
            elif part["do"] == "route":
                part |= {"cases": [{"when": "n % 2 == 0", "next": lay(inside, after)}], "otherwise": after}
            else:
                part = {field: after if value == "*" else value for field, value in part.items()}
                part["decided" if part["do"] == "vote" else "next"] = after
            states[name] = part
            after = name
        return after

    start = lay(block, "last")
    return {"start": start, "states": states, "variables": {"n": 0, "r": None}, "steps_max": STEPS_MAX}


def rewired(logic: dict[str, Any], pick: int, target: int) -> dict[str, Any]:
    """With one way of one state going somewhere else."""
    names = sorted(logic["states"])
    state = logic["states"][names[pick % len(names)]]
    ways = [field for field in ("next", "body", "otherwise", "on_failure", "decided") if field in state]
    if ways:
        state[ways[pick % len(ways)]] = names[target % len(names)]
    return logic


def agent_of(answers: list[int]) -> Any:
    def answer(call: Call) -> Any:
        chosen = answers[len(call.task_id) * call.attempt % len(answers)] if answers else 0
        if chosen == 0:
            raise Broken
        return {"v": chosen}

    return answer


@settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(
    blocks,
    st.none() | st.tuples(st.integers(0, 50), st.integers(0, 50)),
    st.lists(st.integers(0, 3), max_size=5),
    st.integers(0, 6),
)
def test_every_program_that_is_accepted_ends(
    block: list[dict[str, Any]], rewire: tuple[int, int] | None, answers: list[int], cut: int
) -> None:
    logic = compiled(block)
    if rewire is not None:
        logic = rewired(logic, *rewire)
    try:
        parse_registration(PatternRegistration(name="p", version="1", coordination_logic=logic))
    except InvalidLogicError:
        assume(False)
    stage = Stage(logic, agent_of(answers), task("t"), task("u", (0,)), on_failure="finish_branches")
    for n in range(TICKS_MAX):
        if stage.state.closed:
            break
        stage.step(after_ms=1_000)
        if n == cut:
            stage.continue_as_new()
    assert stage.state.closed
    left = [key for key in stage.state.board if not key.endswith("/note")]
    assert stage.state.status is ExecutionStatus.CANCELLED or not left, "nothing is left behind"


def test_the_ways_out_of_each_state_are_known() -> None:
    registration = PatternRegistration(
        name="p", version="1", coordination_logic=compiled([{"do": "wait", "seconds": 1}])
    )
    program = parse_registration(registration)
    assert successors(program.states[program.start]) == [("next", "last")]
