"""What producers write, made from a seed: the producer and the check make the same of it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final
from uuid import UUID, uuid5

import orjson

from engine.contracts.streams import partition_of

PARTITIONS: Final = 8
TENANTS: Final = 4
"""Dead letters are bounded for each tenant, so the poison is shared out."""
DUPLICATES: Final = 0.10
REORDERED: Final = 0.10
POISON: Final = 0.01
REORDER_DISTANCE: Final = 50
PACK_MAX: Final = 200
RECENT: Final = 500
"""A duplicate is of one of so many last events."""
_NAMESPACE: Final = UUID("5f3c1b0e-4a56-4c39-9f0a-3b8f3a0f6d11")

Fields = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class Workload:
    seed: int
    events: int
    executions: int

    def execution(self, number: int) -> tuple[str, str]:
        """(tenant, id)."""
        return f"faults-{number % TENANTS}", str(uuid5(_NAMESPACE, f"{self.seed}/{number}"))

    def count(self, number: int) -> int:
        """Events of this execution."""
        return self.events // self.executions + (number < self.events % self.executions)


@dataclass(frozen=True, slots=True)
class Entry:
    fields: Fields
    events: tuple[int, ...] = ()
    poison: str | None = None


def entries(work: Workload, number: int) -> Iterator[Entry]:
    """In the order in which they are written."""
    _, execution_id = work.execution(number)
    chance = random.Random(f"{work.seed}/{number}")
    order = _order(chance, work.count(number))
    at, poisoned = 0, 0
    while at < len(order):
        size = 1 if chance.random() < 0.2 else chance.randint(2, PACK_MAX)
        chosen: list[int] = []
        for place, event in enumerate(order[at : at + size], at):
            chosen.append(event)
            if chance.random() < DUPLICATES:
                chosen.append(order[chance.randint(max(0, place - RECENT), place)])
        at += size
        yield Entry(_pack(execution_id, chosen), tuple(chosen))
        while poisoned < int(at * POISON):
            poisoned += 1
            tag = f"{number}-{poisoned}"
            yield Entry(_poison(chance, execution_id, tag), poison=tag)


def expected(work: Workload, number: int) -> tuple[list[str], set[str]]:
    """(tasks by their first appearance, tags of the poison)."""
    seen: dict[str, None] = {}
    poison = set()
    for entry in entries(work, number):
        if entry.poison is not None:
            poison.add(entry.poison)
        seen.update(dict.fromkeys(map(task_id, entry.events)))
    return list(seen), poison


def task_id(event: int) -> str:
    return f"e{event}"


def _order(chance: random.Random, count: int) -> list[int]:
    """A tenth of the events come later than those that they belong before."""
    places = [(n + (chance.randint(1, REORDER_DISTANCE) if chance.random() < REORDERED else 0), n)
              for n in range(count)]  # fmt: skip
    return [n for _, n in sorted(places)]


def _pack(execution_id: str, events: list[int]) -> Fields:
    body = [
        {"type": "agent.task_completed", "task_id": task_id(n), "agent_id": "worker-1", "epoch": 1, "attempt": 1,
         "at_ms": 1_700_000_000_000 + n, "started_at_ms": 1_700_000_000_000, "result": n}
        for n in events
    ]  # fmt: skip
    return {b"x": execution_id.encode(), b"b": orjson.dumps(body)}


def _poison(chance: random.Random, execution_id: str, tag: str) -> Fields:
    named = execution_id.encode()
    elsewhere = execution_id
    while partition_of(elsewhere, PARTITIONS) == partition_of(execution_id, PARTITIONS):
        elsewhere = str(UUID(int=chance.getrandbits(128), version=4))
    kinds: list[Fields] = [
        {b"x": named, b"b": b"[{"},
        {b"x": named, b"b": b'[{"type": "agent.unheard_of", "at_ms": 1}]'},
        {b"x": named, b"b": b"\xff\xfe"},
        {b"x": b"nobody", b"b": b"[]"},
        {b"x": elsewhere.encode(), b"b": _pack(elsewhere, [0])[b"b"]},
        {b"event_type": b"agent.task_completed", b"execution_id": named, b"timestamp": b"yesterday", b"payload": b"{}"},
        {b"unknown": b"field"},
    ]
    return {**chance.choice(kinds), b"tag": tag.encode()}
