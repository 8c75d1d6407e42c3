"""How soon a watcher hears of what was committed: from the audit log's time of commit to the WebSocket's message.

Both times are this machine's. One watcher while an execution commits about a thousand events a second; and a thousand
watchers of one execution that commits a few dozen, each of whom must get every message once and in order.
"""

import asyncio
import json
import time
from dataclasses import dataclass, field
from typing import Final

from websockets.asyncio.client import connect

from benchmarks.engine import BrokenError, moment
from benchmarks.results import Row, Target
from benchmarks.session import Session
from benchmarks.shapes import definition, wide

TASKS: Final = (4_000, 200)
AGENTS: Final = 90
TASK_MS: Final = 250
"""With so many agents some 360 tasks a second, of three events each."""

CROWD: Final = (1_000, 50)
CROWD_TASKS: Final = (100, 20)
CROWD_AGENTS: Final = 5
CROWD_TASK_MS: Final = 500
OPEN_AT_ONCE: Final = 50
SECONDS_MAX: Final = 180.0
MS_PER_SECOND: Final = 1_000
LATENCY_TARGET: Final = Target("p95", 50)


@dataclass(slots=True)
class Heard:
    """What one watcher got."""

    at: dict[int, float] = field(default_factory=dict)
    """Sequence -> when."""
    sequences: list[int] = field(default_factory=list)


def watching(session: Session) -> list[Row]:
    one = _watched(session, "watcher", 1, session.scaled(*TASKS), AGENTS, TASK_MS)
    crowd = session.scaled(*CROWD)
    many = _watched(session, f"{crowd} watchers", crowd, session.scaled(*CROWD_TASKS), CROWD_AGENTS, CROWD_TASK_MS)
    note = "commit of an event to its WebSocket message"
    return [
        Row("heard by a watcher", one[0], (), session.target(LATENCY_TARGET), f"{note}, at {one[1]:,.0f} events/s"),
        Row(f"heard by each of {crowd:,} watchers", many[0], note=f"{note}, at {many[1]:,.0f} events/s"),
    ]


def _watched(
    session: Session, what: str, watchers: int, tasks: int, agents: int, task_ms: int
) -> tuple[tuple[float, ...], float]:
    """Latencies in ms, and the events a second that were committed meanwhile."""
    workflow_id = session.api.create(definition(wide(tasks), agents, task_ms)).result["workflow_id"]
    samples: list[float] = []
    rate = 0.0
    for _ in session.rounds(what, 1, 1):
        execution_id = session.api.execute(workflow_id).result["execution_id"]
        heard = asyncio.run(_all_heard(session, execution_id, watchers))
        events = {event["sequence"]: moment(event["recorded_at"]) for event in session.api.events(execution_id)}
        rate = len(events) / (max(events.values()) - min(events.values()))
        for watcher in heard:
            _check(watcher, heard[0])
            samples += [(at - events[sequence]) * MS_PER_SECOND for sequence, at in watcher.at.items()]
    return tuple(samples), rate


def _check(watcher: Heard, first: Heard) -> None:
    if watcher.sequences != sorted(set(watcher.sequences)):
        raise BrokenError("a watcher got messages twice or out of order")
    begun = max(watcher.sequences[0], first.sequences[0])
    if [n for n in watcher.sequences if n >= begun] != [n for n in first.sequences if n >= begun]:
        raise BrokenError("two watchers got different messages")


async def _all_heard(session: Session, execution_id: str, watchers: int) -> list[Heard]:
    slots = asyncio.Semaphore(OPEN_AT_ONCE)
    async with asyncio.timeout(SECONDS_MAX):
        return list(await asyncio.gather(*(_heard(session, execution_id, slots) for _ in range(watchers))))


async def _heard(session: Session, execution_id: str, slots: asyncio.Semaphore) -> Heard:
    address = f"ws{session.engine.url.removeprefix('http')}/ws/workflows/{execution_id}?after=now"
    heard = Heard()
    async with slots:
        connection = await connect(
            address, additional_headers={"Authorization": f"Bearer {session.engine.token}"}, proxy=None, max_size=None
        )
    async with connection:
        async for text in connection:
            at = time.time()
            message = json.loads(text)
            if message["type"] != "workflow.snapshot" and message["sequence"] is not None:
                heard.at[message["sequence"]] = at
                heard.sequences.append(message["sequence"])
    return heard
