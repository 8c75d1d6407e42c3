"""Checks a definition of the network pattern against its settings: names, the goal, and peers that nobody reaches."""

from collections.abc import Iterable, Iterator
from typing import Final

from engine.contracts.definition import TaskDefinition, WorkflowDefinition
from engine.contracts.patterns.network import Conversation, NetworkConfig
from engine.expressions import ExpressionError, names_of, parse
from engine.topology import Topology
from planner.patterns.finding import Finding
from planner.patterns.peers import (
    UNKNOWN_AGENT,
    agents_of,
    check_links,
    check_room,
    check_shapes,
    check_tasks_named,
    settings_location,
)

GOAL_NAMES: Final = ("messages", "states", "turns")
UNREACHED_SHOWN_MAX: Final = 5


def check(definition: WorkflowDefinition, config: NetworkConfig) -> Iterable[Finding]:
    """What is wrong with this definition under these settings."""
    yield from check_tasks_named(definition, "conversations", config.conversations)
    yield from check_shapes(definition, "a conversation of all agents of a role")
    yield from check_room(definition)
    checked: set[tuple[str, str]] = set()
    found: dict[Finding, None] = {}
    for task in definition.tasks:
        own = config.conversations.get(task.id, {})
        if not own and ("", task.agent) in checked:
            continue
        checked.add((task.id if own else "", task.agent))
        talk = config.conversation(task.id) if own else config
        found.update(dict.fromkeys(_check_conversation(definition, task, talk, own)))
    yield from found  # what holds for all is wrong once, not once a role


def _check_conversation(
    definition: WorkflowDefinition, task: TaskDefinition, talk: Conversation, own: dict[str, object]
) -> Iterator[Finding]:
    known = agents_of(definition, [task.agent])
    linked = known if "topology" in own else agents_of(definition, [other.agent for other in definition.tasks])
    where = {field: settings_location("conversations", task.id, field, own) for field in ("topology", "start", "goal")}
    yield from check_links(talk.topology, linked, where["topology"])
    if talk.goal is not None:
        for code, message in _goal_problems(talk.goal):
            yield Finding(code, where["goal"], message)
    if isinstance(talk.start, list):
        for number, name in enumerate(talk.start):
            if name not in known:
                message = f"there is no agent {name} of the role {task.agent}"
                yield Finding(UNKNOWN_AGENT, (*where["start"], number), message)
    if talk.start != "all" and task.agent in definition.agents:
        yield from _check_reach(definition, task, talk, where["start"])


def _check_reach(
    definition: WorkflowDefinition, task: TaskDefinition, talk: Conversation, location: tuple[str | int, ...]
) -> Iterator[Finding]:
    members = [f"{task.agent}-{n}" for n in range(1, definition.agents[task.agent].count + 1)]
    topology = Topology(talk.topology, members)
    named = [topology.position(name) for name in talk.start] if isinstance(talk.start, list) else [0]
    starts = [at for at in named if at is not None]
    unreached = topology.unreached(starts) if starts else []
    if unreached:
        shown = ", ".join(members[at] for at in unreached[:UNREACHED_SHOWN_MAX])
        more = f" and {len(unreached) - UNREACHED_SHOWN_MAX} more" if len(unreached) > UNREACHED_SHOWN_MAX else ""
        message = f"no message can ever reach {shown}{more}: add links, or let them start"
        yield Finding("UNREACHED_PEERS", location, message)


def _goal_problems(text: str) -> Iterator[tuple[str, str]]:
    try:
        used = names_of(parse(text))
    except ExpressionError as error:
        yield error.code, error.message
        return
    for root in sorted({root for root, _ in used} - set(GOAL_NAMES)):
        yield "EXPRESSION_UNKNOWN_NAME", f"there is no {root} here; there are {', '.join(GOAL_NAMES)}"
