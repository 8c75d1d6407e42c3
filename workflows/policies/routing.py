"""Where a peer's messages go: to one, to several, to all within reach; and why one goes nowhere. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from engine.contracts.patterns.network import Conversation
from engine.topology import Topology
from workflows.policies.assembly import size_bytes_of

EVERYONE: Final = "*"
MESSAGES_A_TURN_MAX: Final = 1_000
_TURN_FIELDS: Final = frozenset({"state", "messages"})
_MESSAGE_FIELDS: Final = frozenset({"to", "body", "ttl"})


class Refused(StrEnum):
    """Why a message, or a part of a turn's result, goes nowhere."""

    INVALID = "invalid"
    STRANGER = "stranger"
    UNREACHABLE = "unreachable"
    TOO_LARGE = "too_large"
    TOO_MANY = "too_many"
    MAILBOX_FULL = "mailbox_full"
    PEER_GONE = "peer_gone"
    EXPIRED = "expired"


@dataclass(frozen=True)
class Problem:
    """What was refused. `to` is as it was written, cut."""

    why: Refused
    message: str
    to: str = ""


@dataclass(frozen=True)
class Outgoing:
    """A message that may go: its recipients by position, with the hops to each."""

    body: Any
    recipients: Mapping[int, int]


@dataclass(frozen=True)
class Said:
    """A turn's result. `has_state` tells a state of null from none."""

    state: Any = None
    has_state: bool = False
    outgoing: tuple[Outgoing, ...] = ()
    problems: tuple[Problem, ...] = ()


def read_turn(result: Any, sender: int, topology: Topology, talk: Conversation) -> Said:
    """`{"state": ..., "messages": [{"to": ..., "body": ...}]}`; anything else is the peer's state."""
    if result is None:
        return Said()
    if not isinstance(result, dict) or not result.keys() & _TURN_FIELDS or result.keys() - _TURN_FIELDS:
        return _with_state(result, talk)
    said = _with_state(result["state"], talk) if "state" in result else Said()
    messages = result.get("messages")
    if messages is None:
        return said
    if not isinstance(messages, list):
        problem = Problem(Refused.INVALID, "messages is a list")
        return Said(said.state, said.has_state, problems=(*said.problems, problem))
    outgoing: list[Outgoing] = []
    problems = list(said.problems)
    for number, message in enumerate(messages):
        if number >= MESSAGES_A_TURN_MAX:
            problems.append(Problem(Refused.TOO_MANY, f"a turn sends at most {MESSAGES_A_TURN_MAX} messages"))
            break
        found = _read_message(message, sender, topology, talk, problems)
        if found is not None:
            outgoing.append(found)
    return Said(said.state, said.has_state, tuple(outgoing), tuple(problems))


def _with_state(state: Any, talk: Conversation) -> Said:
    size_bytes = size_bytes_of(state)
    if size_bytes > talk.state_bytes_max:
        message = f"a state of {size_bytes} bytes; at most {talk.state_bytes_max} are kept"
        return Said(problems=(Problem(Refused.TOO_LARGE, message),))
    return Said(state, True)


def _read_message(
    message: Any, sender: int, topology: Topology, talk: Conversation, problems: list[Problem]
) -> Outgoing | None:
    if not isinstance(message, dict) or "to" not in message or message.keys() - _MESSAGE_FIELDS:
        problems.append(Problem(Refused.INVALID, "a message has to, body and, if it likes, ttl"))
        return None
    to, body = message["to"], message.get("body")
    ttl = message.get("ttl", talk.ttl_hops)
    shown = to[:100] if isinstance(to, str) else f"{len(to)} peers" if isinstance(to, list) else ""
    if isinstance(ttl, bool) or not isinstance(ttl, int) or not 1 <= ttl <= talk.ttl_hops:
        problems.append(Problem(Refused.INVALID, f"ttl is a number of hops from 1 to {talk.ttl_hops}", shown))
        return None
    size_bytes = size_bytes_of(body)
    if size_bytes > talk.message_bytes_max:
        text = f"a body of {size_bytes} bytes; at most {talk.message_bytes_max} go"
        problems.append(Problem(Refused.TOO_LARGE, text, shown))
        return None
    if to == EVERYONE:
        return Outgoing(body, dict(sorted(topology.within(sender, ttl).items())))
    names = [to] if isinstance(to, str) else to
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        problems.append(Problem(Refused.INVALID, 'to is a peer\'s name, a list of names or "*"', shown))
        return None
    recipients = _reached(names, sender, topology, ttl, problems)
    return Outgoing(body, recipients) if recipients else None


def _reached(names: list[str], sender: int, topology: Topology, ttl: int, problems: list[Problem]) -> dict[int, int]:
    found: dict[int, int] = {}
    within: dict[int, int] | None = None
    for name in names:
        at = topology.position(name)
        if at is None or at == sender:
            why = "there is no such peer" if at is None else "a peer sends nothing to itself"
            problems.append(Problem(Refused.STRANGER, why, name[:100]))
        elif topology.linked(sender, at):
            found[at] = 1
        else:
            within = topology.within(sender, ttl) if within is None else within
            if at in within:
                found[at] = within[at]
            else:
                problems.append(Problem(Refused.UNREACHABLE, f"not within {ttl} hops", name[:100]))
    return found
