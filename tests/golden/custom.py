"""Scenarios of registered programs, and what makes each worth keeping."""

from typing import Any
from uuid import UUID

from engine.contracts.dynamic import ExternalEvent
from tests.golden.waiting import lengthen
from tests.integration.engine.bench import Bench, definition

END: dict[str, Any] = {"do": "finish"}


async def start(bench: Bench, logic: dict[str, Any], input_data: dict[str, Any] | None = None, **options: Any) -> UUID:
    document = definition(
        {"id": "t"}, agents=3, orchestration_pattern="custom", pattern={"name": "golden", "version": "1"}
    )
    launch = await bench.plan_row(document, input_data, **options)
    program = {"name": "golden", "version": "1", "config": {"votes": 3}, "logic": {"language": 1, **logic}}
    await bench.launcher.launch(launch.model_copy(update={"pattern_config": program}))
    return UUID(launch.execution_id)


async def program_with_input_work_and_a_vote(bench: Bench) -> UUID:
    logic = {
        "start": "fork",
        "variables": {"found": None, "poll": None},
        "states": {
            "fork": {"do": "spawn", "each": "input.sides", "group": "side", "input": "{result: item}", "next": "work"},
            "work": {"do": "gather", "each": "[1, 2]", "input": "{result: item + index}", "save": "found",
                     "next": "join"},
            "join": {"do": "gather", "group": "side", "need": "1", "next": "poll"},
            "poll": {"do": "vote", "input": "{result: 'yes'}", "save": "poll", "decided": "end", "undecided": "bad"},
            "end": {"do": "finish", "result": "{sum: sum(map(found, f => f.result)), decision: poll.decision}"},
            "bad": {"do": "finish", "outcome": "fail"},
        },
    }  # fmt: skip
    return await start(bench, logic, {"sides": ["l", "r"]})


async def program_that_does_the_tasks_own_work_again(bench: Bench) -> UUID:
    logic = {
        "start": "rounds",
        "states": {
            "rounds": {"do": "loop", "max": 3, "while": "loops.rounds < 2", "body": "own", "next": "end"},
            "own": {"do": "assign", "own": True, "note": "{round: loops.rounds}", "next": "rounds"},
            "end": END,
        },
    }
    return await start(bench, logic)


async def program_that_compensates(bench: Bench) -> UUID:
    logic = {
        "start": "one",
        "variables": {"undone": None},
        "states": {
            "one": {"do": "assign", "undo": "'undo'", "next": "two"},
            "two": {"do": "assign", "input": "{fail: 'broken'}", "attempts": 1, "next": "end", "on_failure": "up"},
            "up": {"do": "escalate", "role": "'worker'", "input": "{fail: 'still'}", "attempts": 1, "next": "end",
                   "on_failure": "back"},
            "back": {"do": "compensate", "save": "undone", "next": "bad"},
            "bad": {"do": "finish", "outcome": "fail", "error": "'undone: ' + undone.undone[0]"},
            "end": END,
        },
    }  # fmt: skip
    return await start(bench, logic)


async def program_continued_as_new_while_it_waits(bench: Bench) -> UUID:
    """For work that is under way, and then for an event of which one does not fit."""
    logic = {
        "start": "work",
        "variables": {"found": None},
        "states": {
            "work": {"do": "gather", "each": "[1, 2]", "input": "{duration_ms: 2500, result: item}", "save": "found",
                     "next": "ring"},
            "ring": {"do": "wait", "event": "bell", "when": "event.ok == true", "seconds": 120, "next": "end"},
            "end": {"do": "finish", "result": "map(found, f => f.result)"},
        },
    }  # fmt: skip
    execution_id = await start(bench, logic, history_events_max=12)
    await bench.until_event(execution_id, "agent.task_assigned")
    await lengthen(bench, execution_id)
    for number, ok in enumerate((False, True)):
        event = ExternalEvent(event_id=f"e{number}", type="bell", at_ms=1, payload={"ok": ok})
        await bench.launcher.signal(bench.tenant, execution_id, "external_event", event)
    return execution_id


SCENARIOS = (
    program_with_input_work_and_a_vote,
    program_that_does_the_tasks_own_work_again,
    program_that_compensates,
    program_continued_as_new_while_it_waits,
)


def _states(recorded: Any) -> list[str]:
    """Where the program stood after each tick, as it was noted."""
    places = (delta.posted.get("t/pc") for delta in recorded.deltas)
    return [place["s"] for place in places if place]


def _errands(recorded: Any) -> set[str]:
    return {errand.kind for delta in recorded.deltas for errand in delta.errands}


BRANCHES = {
    "program_with_input_work_and_a_vote": lambda r: (
        {"work", "poll"} <= set(_states(r)) and "program_context" in _errands(r)
    ),
    "program_that_does_the_tasks_own_work_again": lambda r: [a.attempt for d in r.deltas for a in d.assigned] == [1, 2],
    "program_that_compensates": lambda r: "back" in _states(r),
    "program_continued_as_new_while_it_waits": lambda r: (
        any("t/pc" in s.board and s.in_flight for s in r.carried) and "program_event" in _errands(r)
    ),
}
