"""What an answer may bring about: whom a superior may give a task to, and with what input."""

import json
from dataclasses import dataclass
from typing import Any, Final

from engine.contracts.patterns.hierarchical import RESOURCES_FIELD
from engine.hierarchy import NOT_AUTHORISED, Hierarchy, resources_of
from workflows.kernel.desk import overlay_key
from workflows.kernel.state import RunState

OVERLAY_BYTES_MAX: Final = 16 * 1024
"""Of what superiors lay over a task's input: it stands in each of the task's assignments, and in the journal."""

TO: Final = "/to"


class RefusedError(Exception):
    """An answer asks for what may not be, or makes no sense; the message says why."""


@dataclass(frozen=True)
class Order:
    """A task to be done: by whom, when not as before, and what is laid over its input."""

    to: str | None
    overlay: dict[str, Any] | None


def action_of(state: RunState, i: int) -> str:
    """What the agent of this task is asked to do."""
    spec = state.specs[i]
    owner = state.parent.get(i)
    return spec.action or (spec.id if owner is None else state.specs[owner].id)


def role_named(state: RunState, name: str) -> str | None:
    """The role of the agent, or the role, of this name."""
    if name in state.agents:
        return state.agents[name].role
    return name if name in state.plan.roles else None


def doer(state: RunState, i: int) -> str:
    """The role whose agent does this task at present."""
    spec = state.specs[i]
    return role_named(state, state.board.get(to_key(spec.id)) or "") or spec.role


def order(
    hierarchy: Hierarchy, state: RunState, i: int, role: str, to: str | None, given: dict[str, Any] | None
) -> Order:
    """The task `i` for one of `role`. Raises RefusedError when that role may not do it."""
    spec = state.specs[i]
    overlay = dict(state.board.get(overlay_key(spec.id)) or {}) | (given or {})
    size_bytes = len(json.dumps(overlay, ensure_ascii=False).encode("utf-8", "replace"))
    if size_bytes > OVERLAY_BYTES_MAX:
        raise RefusedError(f"{size_bytes} bytes of input: {OVERLAY_BYTES_MAX} may be laid over a task's own")
    resources: tuple[str, ...] | None = spec.resources
    if RESOURCES_FIELD in overlay:
        resources = resources_of(overlay)
    if resources is None:
        raise RefusedError(f"input.{RESOURCES_FIELD} is not a list of names")
    refusal = hierarchy.refusal(role, action_of(state, i), resources)
    if refusal is not None:
        raise RefusedError(f"{NOT_AUTHORISED}: {refusal}")
    return Order(to, overlay if given else None)


def receiver(hierarchy: Hierarchy, state: RunState, team: str, to: str) -> str:
    """The role that `to` is or is one of. Raises RefusedError unless it is the lead's own or below it."""
    role = role_named(state, to)
    if role is None:
        raise RefusedError(f"there is no agent and no role {to[:100]}")
    lead = hierarchy.teams[team].lead
    if role != lead and not hierarchy.is_below(role, team):
        raise RefusedError(f"{NOT_AUTHORISED}: {role} is not below {lead}")
    return role


def to_key(task_id: str) -> str:
    """Where on the board stands the agent or the role that a task was given to."""
    return task_id + TO
