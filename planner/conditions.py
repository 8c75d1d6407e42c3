"""Checks the expressions of a definition: that they can be read, and that what they name will be there."""

from collections.abc import Iterator, Set
from typing import Any, Final

from engine.contracts.limits import TRIGGERS_MAX
from engine.expressions import ExpressionError, names_of, parse
from planner.problems import Location, ProblemList, Suggester, is_name, quoted

TASK_NAMES: Final = ("input", "results")
TRIGGER_NAMES: Final = ("event", "input", "results")

CHARACTERS_MAX: Final = 500_000
"""Characters of all expressions of a definition together: reading them takes some microseconds each."""

_UNKNOWN_NAME: Final = "EXPRESSION_UNKNOWN_NAME"


def check_expressions(data: dict[str, Any], known: Set[str], problems: ProblemList, suggester: Suggester) -> None:
    """Add a problem for each expression that could never be evaluated. `known` are the ids of all tasks."""
    tasks = data.get("tasks")
    if not isinstance(tasks, list):
        return
    triggered = False
    characters = 0
    for position, task in enumerate(tasks):
        if isinstance(task, dict):
            triggered = triggered or bool(task.get("triggers"))
            for location, text, names in _expressions(task, position):
                characters += len(text)
                if characters <= CHARACTERS_MAX:
                    _check(location, text, names, task, known, problems, suggester)
    if characters > CHARACTERS_MAX:
        message = f"have expressions of {characters} characters together; at most {CHARACTERS_MAX} are taken"
        problems.add("TOO_LONG", ("tasks",), message)
    if triggered:
        _check_coordination(data.get("coordination"), problems)


def _expressions(task: dict[str, Any], position: int) -> Iterator[tuple[Location, str, tuple[str, ...]]]:
    for field in ("when", "for_each"):
        text = task.get(field)
        if isinstance(text, str):
            yield ("tasks", position, field), text, TASK_NAMES
    triggers = task.get("triggers")
    if isinstance(triggers, list):
        for number, trigger in enumerate(triggers[:TRIGGERS_MAX]):
            text = trigger.get("when") if isinstance(trigger, dict) else None
            if isinstance(text, str):
                yield ("tasks", position, "triggers", number, "when"), text, TRIGGER_NAMES


def _check(
    location: Location,
    text: str,
    names: tuple[str, ...],
    task: dict[str, Any],
    known: Set[str],
    problems: ProblemList,
    suggester: Suggester,
) -> None:
    try:
        used = names_of(parse(text))
    except ExpressionError as error:
        problems.add(error.code, location, error.message)
        return
    depends_on = task.get("depends_on")
    befores = [name for name in depends_on if isinstance(name, str)] if isinstance(depends_on, list) else []
    for root, field in sorted(used, key=lambda name: (name[0], name[1] or "")):
        if root not in names:
            hint = suggester.hint(root, names)
            message = f"there is no {quoted(root)} here; there are {', '.join(names)}{hint}"
            problems.add(_UNKNOWN_NAME, location, message)
        elif root == "results" and field is not None and field not in befores:
            problems.add(_UNKNOWN_NAME, location, _not_before(field, befores, known, suggester))


def _not_before(field: str, befores: list[str], known: Set[str], suggester: Suggester) -> str:
    """Why there is no result of `field`. Ids with a hyphen are the usual reason: results.a-b is a subtraction."""
    begun = [name for name in befores if name.startswith(f"{field}-")]
    if begun:
        return f"{quoted(field)} is not a dependency of this task; write results[{quoted(begun[0])}], since - subtracts"
    if field in known:
        return f"{quoted(field)} is not a direct dependency of this task; add it to depends_on"
    what = (
        f"there is no task {quoted(field)} to have a result" if is_name(field) else f"{quoted(field)} is no task's id"
    )
    hint = suggester.hint(field, befores) or suggester.hint(field, known)
    return what + (hint or "; results holds the direct dependencies' results, by task id")


def _check_coordination(coordination: Any, problems: ProblemList) -> None:
    listed = coordination.get("event_driven") if isinstance(coordination, dict) else None
    if isinstance(listed, list) and listed and "external_event" not in listed:
        message = "tasks have triggers, which external events set off; add external_event, or leave the list out"
        problems.add("EXTERNAL_EVENTS_OFF", ("coordination", "event_driven"), message)
