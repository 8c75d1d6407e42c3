"""Checks a program's states as a graph: every state that is named, that can be reached, and that loops end.

Each way round must go through a loop's body, and a loop counts its passes until it is left. Without the ways into
bodies the states are then in an order in which every step goes forward; so of the states that were entered for ever
the last could only be left through its body, for ever, which its bound forbids. Hence every program ends.
"""

from engine.contracts.patterns.language import CoordinationLogic, Gather, Loop, Spawn, successors
from planner.problems import Location, ProblemList, Suggester, quoted


def check_states(logic: CoordinationLogic, root: Location, problems: ProblemList, suggester: Suggester) -> None:
    states = logic.states
    known = _check_references(logic, root, problems, suggester)
    if not known:
        return  # What is reached cannot be told before every name is one.
    for name in states.keys() - _reached(logic):
        message = f"nothing leads to {name} from the start, {logic.start}; remove it or go to it"
        problems.add("UNREACHABLE_STATE", (*root, "states", name), message)
    _check_ways_round(logic, root, problems)
    _check_groups(logic, root, problems, suggester)


def _check_references(logic: CoordinationLogic, root: Location, problems: ProblemList, suggester: Suggester) -> bool:
    before = problems.count

    def check(name: str, location: Location) -> None:
        if name not in logic.states:
            hint = suggester.hint(name, logic.states) or "; add that state"
            problems.add("UNKNOWN_STATE", location, f"there is no state {quoted(name)}{hint}")

    check(logic.start, (*root, "start"))
    for name, state in logic.states.items():
        for field, target in successors(state):
            check(target, (*root, "states", name, *_parts(field)))
    return problems.count == before


def _parts(field: str) -> Location:
    """`cases[2].next` as a location."""
    if not field.startswith("cases["):
        return (field,)
    number, _, rest = field.removeprefix("cases[").partition("].")
    return ("cases", int(number), rest)


def _reached(logic: CoordinationLogic) -> set[str]:
    reached = {logic.start}
    pending = [logic.start]
    while pending:
        for _, target in successors(logic.states[pending.pop()]):
            if target not in reached:
                reached.add(target)
                pending.append(target)
    return reached


def _check_ways_round(logic: CoordinationLogic, root: Location, problems: ProblemList) -> None:
    """Depth first over all ways but those into bodies; a way back to a state that is still open closes a circle."""
    forward = {
        name: [way for way in successors(state) if not (isinstance(state, Loop) and way[0] == "body")]
        for name, state in logic.states.items()
    }
    done: set[str] = set()
    for begin in logic.states:
        path: list[str] = []
        open_states: set[str] = set()
        stack = [(begin, iter(forward[begin]))] if begin not in done else []
        if stack:
            path.append(begin)
            open_states.add(begin)
        while stack:
            name, ways = stack[-1]
            way = next(ways, None)
            if way is None:
                stack.pop()
                done.add(name)
                open_states.discard(path.pop())
                continue
            field, target = way
            if target in open_states:
                circle = " -> ".join([*path[path.index(target) :], target])
                message = f"{circle} goes round without a bound; go back through a state that does loop, by its body"
                problems.add("UNBOUNDED_LOOP", (*root, "states", name, *_parts(field)), message)
            elif target not in done:
                path.append(target)
                open_states.add(target)
                stack.append((target, iter(forward[target])))


def _check_groups(logic: CoordinationLogic, root: Location, problems: ProblemList, suggester: Suggester) -> None:
    groups = {state.group for state in logic.states.values() if isinstance(state, Spawn)}
    for name, state in logic.states.items():
        if isinstance(state, Gather) and state.group is not None and state.group not in groups:
            hint = suggester.hint(state.group, groups) or "; spawn it first"
            message = f"no state spawns the group {quoted(state.group)}{hint}"
            problems.add("UNKNOWN_GROUP", (*root, "states", name, "group"), message)
