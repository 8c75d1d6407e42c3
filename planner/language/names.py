"""Which expressions a program has, what each must give, and which names each may use."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from engine.contracts.patterns.language import (
    Assign,
    CoordinationLogic,
    Finish,
    Gather,
    Loop,
    Route,
    SetVariables,
    Spawn,
    State,
    Vote,
    Wait,
)
from planner.language.shapes import ANY, KINDS, Shape, closed_object, of_kinds, shape_of_schema
from planner.language.types import CONDITION
from planner.problems import Location

STRING: Final = frozenset({"string"})
_WORK: Final[Mapping[str, frozenset[str]]] = {
    "role": STRING,
    "agent": STRING,
    "action": STRING,
    "input": frozenset({"object"}),
    "undo": frozenset({"string", "null"}),
}

GLOBAL_NAMES: Final = ("config", "task", "agents", "loops", "error", "input", "results")
"""What every expression sees beside the program's variables."""

LOCAL_NAMES: Final = ("item", "index", "ballot", "voter", "event")

_TASK: Final = closed_object(id=of_kinds("string"), role=of_kinds("string"), attempts=of_kinds("number"))


class Use(NamedTuple):
    """An expression where it stands."""

    location: Location
    text: str
    wanted: frozenset[str]
    """The kinds of which its value must be one."""
    names: Mapping[str, Shape]


def variables_of(logic: CoordinationLogic) -> set[str]:
    """Those that are declared, and those that some state gives a value; all are null before that."""
    named = set(logic.variables)
    for state in logic.states.values():
        saved = getattr(state, "save", None)
        if saved is not None:
            named.add(saved)
        if isinstance(state, SetVariables):
            named.update(state.values)
    return named


def uses(logic: CoordinationLogic, schema: Mapping[str, Any]) -> Iterator[Use]:
    config = shape_of_schema(schema)
    if logic.handles is not None:
        yield Use(("handles",), logic.handles, CONDITION, {"config": config, "task": _TASK})
    loops = closed_object(
        **{name: of_kinds("number") for name, state in logic.states.items() if isinstance(state, Loop)}
    )
    error = Shape(
        frozenset({"object", "null"}),
        {name: of_kinds("string") for name in ("state", "code", "message", "agent")},
        closed=True,
    )
    names: dict[str, Shape] = {
        **dict.fromkeys(variables_of(logic), ANY),
        "config": config,
        "task": _TASK,
        "agents": of_kinds("object"),
        "loops": loops,
        "error": error,
        "input": ANY,
        "results": of_kinds("object"),
    }
    for name, state in logic.states.items():
        for field, text, wanted, local in _of_state(state):
            yield Use(("states", name, *field), text, wanted, {**names, **local})


def _of_state(state: State) -> Iterator[tuple[Location, str, frozenset[str], Mapping[str, Shape]]]:
    element = {"item": ANY, "index": of_kinds("number")}
    work = element if isinstance(state, Spawn) or (isinstance(state, Gather) and state.each) else {}
    if isinstance(state, Vote):
        work = {"voter": of_kinds("string")}
    for field, wanted in _WORK.items():
        text = getattr(state, field, None)
        if text is not None:
            # Every vote of a poll is asked in the same role: `voters` says who.
            yield (field,), text, wanted, {} if isinstance(state, Vote) and field == "role" else work
    match state:
        case Assign(note=str(text)):
            yield ("note",), text, KINDS, {}
        case Spawn(each=text) | Gather(each=str(text)):
            yield ("each",), text, frozenset({"list"}), {}
        case Vote(voters=voters, choice=choice):
            if voters is not None:
                yield ("voters",), voters, frozenset({"list"}), {}
            yield ("choice",), choice, KINDS, {"ballot": ANY, "voter": of_kinds("string")}
        case Route(cases=cases):
            for number, case in enumerate(cases):
                yield ("cases", number, "when"), case.when, CONDITION, {}
        case SetVariables(values=values):
            for variable, text in values.items():
                yield ("values", variable), text, KINDS, {}
        case Loop(condition=str(text)):
            yield ("while",), text, CONDITION, {}
        case Wait(when=str(text)):
            yield ("when",), text, CONDITION, {"event": ANY}
        case Finish(result=result, error=error):
            if result is not None:
                yield ("result",), result, KINDS, {}
            if error is not None:
                yield ("error",), error, STRING, {}
    if isinstance(state, Gather) and state.need is not None:
        yield ("need",), state.need, frozenset({"number"}), {}
