"""Fused chains: tasks that one agent can do one after the other without asking the engine in between.

They go out as one assignment, which saves the way to the engine and back between two steps.
"""

from engine.contracts.limits import CHAIN_MAX
from planner.draft import Draft


def fused_chains(draft: Draft, longest: int = CHAIN_MAX) -> tuple[tuple[int, ...], ...]:
    """Maximal chains of two or more tasks, as indexes; a longer one is cut into pieces of `longest`.

    Indexes within a chain rise, but need not be adjacent. No task is in two chains.
    """
    following: dict[int, int] = {}
    for index, befores in enumerate(draft.graph.dependencies):
        if len(befores) == 1 and needs_nothing_between(draft, befores[0], index):
            following[befores[0]] = index
    chains: list[tuple[int, ...]] = []
    inner = set(following.values())
    for head in following:
        if head in inner:
            continue
        chain = [head]
        while chain[-1] in following:
            chain.append(following[chain[-1]])
        chains.extend(tuple(chain[start : start + longest]) for start in range(0, len(chain), longest))
    return tuple(sorted(chain for chain in chains if len(chain) > 1))


def needs_nothing_between(draft: Draft, before: int, after: int) -> bool:
    """Whether the agent that did `before` may go on with `after`, its dependent, at once.

    Not so where the engine must do something in between: hand a result to someone else, keep others away,
    register a compensation before its forward step, evaluate a condition, wait for an event, look for an equal
    result, or make tasks of a list's elements.
    """
    first, second = draft.tasks[before], draft.tasks[after]
    return (
        draft.graph.dependencies[after] == (before,)
        and draft.graph.dependents[before] == [after]
        and first.agent == second.agent
        and first.parallel is not False
        and second.parallel is not False
        and first.compensation_action is None
        and second.compensation_action is None
        and first.for_each is None
        and second.for_each is None
        and second.when is None
        and not second.triggers
        and not second.reuse
    )
