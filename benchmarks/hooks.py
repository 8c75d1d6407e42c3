"""What hooks cost: the queueing, the task that sets them off, hooks that do not match, and how many run in a second.

In an engine of its own, which has a function for hooks installed as an operator installs one.
"""

import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any, Final

import redis

from benchmarks.engine import Api, BrokenError, moment, running_engine
from benchmarks.results import Row, Target
from benchmarks.session import Session
from benchmarks.shapes import chain, definition, wide

STEPS: Final = 10
HOOKS: Final = 10
STRANGERS: Final = 1_000
CHAIN_ROUNDS: Final = (20, 4)
CHAIN_POLL_SECONDS: Final = 0.1
RATE_ROUNDS: Final = (3, 1)
RATE_TASKS: Final = 500
QUICK_RATE_TASKS: Final = 100
RATE_HOOKS: Final = 10
RATE_TIMEOUT_SECONDS: Final = 120.0
MS_PER_SECOND: Final = 1_000
TENANT: Final = "default"
STREAM: Final = "orc:{default}:hooks:queue:1"
READ_BLOCK_MS: Final = 200
SETTLE_SECONDS: Final = 4.0
"""After hooks have changed: longer than anybody keeps what they were."""

QUEUED_TARGET: Final = Target("p95", 10)
TEN_HOOKS_TARGET: Final = Target("p50", 5)
STRANGERS_TARGET: Final = Target("p50", 1)
RATE_TARGET: Final = Target("p50", 500, at_least=True)

FUNCTION: Final = "async def nothing(context):\n    return None\n"
ENTRY_POINTS: Final = "[orchestrator.hooks]\nnothing = benchmark_hook_functions:nothing\n"


def hooks(session: Session) -> list[Row]:
    with ExitStack() as stack:
        stack.enter_context(_installed_function())
        engine = stack.enter_context(running_engine())
        api = engine.api
        queued = _queued(session, api, engine.redis_url)
        bare, with_hooks = _ten_hooks(session, api)
        without, with_strangers = _strangers(session, api)
        return [
            Row(
                "an event's hooks queued",
                tuple(queued),
                target=session.target(QUEUED_TARGET),
                note="the event committed to its entry in the queue; one hook a task",
            ),
            _more(f"a task with {HOOKS} asynchronous hooks, more than without", bare, with_hooks, TEN_HOOKS_TARGET),
            _more(f"a task beside {STRANGERS:,} hooks that do not match, more than without", without, with_strangers,
                  STRANGERS_TARGET),
            _rate(session, api),
        ]  # fmt: skip


@contextmanager
def _installed_function() -> Iterator[None]:
    """A distribution with an entry point, on the path of the processes that are started now."""
    before = os.environ.get("PYTHONPATH")
    with tempfile.TemporaryDirectory(prefix="orchestrator-bench-hooks-") as folder:
        root = Path(folder)
        root.chmod(0o755)
        (root / "benchmark_hook_functions.py").write_text(FUNCTION)
        information = root / "benchmark_hooks-1.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: benchmark-hooks\nVersion: 1\n")
        (information / "entry_points.txt").write_text(ENTRY_POINTS)
        os.environ["PYTHONPATH"] = folder if before is None else f"{folder}{os.pathsep}{before}"
        try:
            yield
        finally:
            if before is None:
                del os.environ["PYTHONPATH"]
            else:
                os.environ["PYTHONPATH"] = before


def _register(api: Api, count: int, **fields: Any) -> list[str]:
    ids = []
    for n in range(count):
        hook = {
            "name": f"h{n}",
            "trigger": "post_task",
            "action": {"type": "function", "function": "nothing"},
            **{key: value.format(n=n) if isinstance(value, str) else value for key, value in fields.items()},
        }
        ids.append(api.call("hooks.register", hook).result["hook_id"])
    time.sleep(SETTLE_SECONDS)
    return ids


def _delete(api: Api, ids: list[str]) -> None:
    for hook_id in ids:
        api.call("hooks.delete", {"hook_id": hook_id})
    time.sleep(SETTLE_SECONDS)


def _queued(session: Session, api: Api, redis_url: str) -> list[float]:
    """How long entries take to the queue, in ms; each task sets one hook off."""
    workflow_id = api.create(definition(chain(STEPS), 1, roles=2)).result["workflow_id"]
    ids = _register(api, 1)
    queued: list[float] = []
    for _ in session.warm_up("queued hooks"):
        _chain(api, workflow_id)
    with _watching(redis_url) as entries:
        for _ in session.rounds("queued hooks", *CHAIN_ROUNDS):
            queued += _queueing(_chain(api, workflow_id)[1], entries)
    if not queued:
        raise BrokenError("no hook was queued")
    _delete(api, ids)
    return queued


def _ten_hooks(session: Session, api: Api) -> tuple[list[float], list[float]]:
    """Steps of a chain in ms without and with hooks, round by round."""
    workflow_id = api.create(definition(chain(STEPS), 1, roles=2)).result["workflow_id"]
    bare: list[float] = []
    hooked: list[float] = []
    ids = _register(api, HOOKS)
    _chain(api, workflow_id)
    for _ in session.rounds(f"{HOOKS} hooks a task", *CHAIN_ROUNDS):
        _switch(api, workflow_id, enabled=False)
        bare.append(_chain(api, workflow_id)[0])
        _switch(api, workflow_id, enabled=True)
        hooked.append(_chain(api, workflow_id)[0])
    _delete(api, ids)
    return bare, hooked


def _switch(api: Api, workflow_id: str, *, enabled: bool) -> None:
    """With a run behind it that is not measured: whoever keeps hooks in memory has looked at them anew."""
    api.call("hooks.set_switch", {"enabled": enabled})
    _chain(api, workflow_id)


def _strangers(session: Session, api: Api) -> tuple[list[float], list[float]]:
    workflow_id = api.create(definition(chain(STEPS), 1, roles=2)).result["workflow_id"]
    ids = _register(api, session.scaled(STRANGERS, 100), event_pattern=".*task=stranger_{n}_.*")
    without: list[float] = []
    beside: list[float] = []
    _chain(api, workflow_id)
    for _ in session.rounds("hooks that do not match", *CHAIN_ROUNDS):
        _switch(api, workflow_id, enabled=False)
        without.append(_chain(api, workflow_id)[0])
        _switch(api, workflow_id, enabled=True)
        beside.append(_chain(api, workflow_id)[0])
    _delete(api, ids)
    return without, beside


def _chain(api: Api, workflow_id: str) -> tuple[float, list[dict[str, Any]]]:
    """One run: a step in ms, and the log."""
    execution_id = api.execute(workflow_id).result["execution_id"]
    api.ended(workflow_id, execution_id, CHAIN_POLL_SECONDS)
    events = api.events(execution_id)
    first = min(moment(event["recorded_at"]) for event in events if event["event_type"] == "agent.task_assigned")
    last = max(moment(event["recorded_at"]) for event in events if event["event_type"] == "task.completed")
    return (last - first) * MS_PER_SECOND / STEPS, [{**event, "execution_id": execution_id} for event in events]


@contextmanager
def _watching(redis_url: str) -> Iterator[dict[str, list[float]]]:
    """When entries came into the queue, by execution, by the server's own clock: the entries' ids tell."""
    found: dict[str, list[float]] = {}
    stopped = threading.Event()

    def watch() -> None:
        client: Any = redis.Redis.from_url(redis_url)
        last = "$"
        while not stopped.is_set():
            for _, items in client.xread({STREAM: last}, block=READ_BLOCK_MS, count=1000) or ():
                for entry_id, fields in items:
                    last = entry_id.decode()
                    at = int(last.partition("-")[0]) / MS_PER_SECOND
                    found.setdefault(fields[b"execution_id"].decode(), []).append(at)
        client.close()

    thread = threading.Thread(target=watch, name="queue-watcher")
    thread.start()
    try:
        yield found
    finally:
        stopped.set()
        thread.join()


def _queueing(events: list[dict[str, Any]], entries: dict[str, list[float]]) -> list[float]:
    """From each event's commit to its entry, in ms. What was read late is not there, and is left out."""
    committed = sorted(moment(event["recorded_at"]) for event in events if event["event_type"] == "task.completed")
    there = sorted(entries.get(events[0]["execution_id"], []))
    if len(there) != len(committed):
        return []
    return [max(at - before, 0.0) * MS_PER_SECOND for before, at in zip(committed, there, strict=True)]


def _more(name: str, without: list[float], beside: list[float], target: Target) -> Row:
    """The difference of each round to the median without; the rounds alternate."""
    usual = median(without)
    return Row(
        name,
        tuple(spent - usual for spent in beside),
        target=target,
        note="a step of a chain of two roles in turn",
        details={"without": usual, "with": median(beside)},
        details_of="medians of a step in ms",
    )


def _rate(session: Session, api: Api) -> Row:
    """Runs of hooks recorded in a second, of many tasks that set off several each."""
    tasks = session.scaled(RATE_TASKS, QUICK_RATE_TASKS)
    workflow_id = api.create(definition(wide(tasks), 10)).result["workflow_id"]
    ids = _register(api, RATE_HOOKS)
    rates = []
    for _ in session.rounds("runs of hooks", *RATE_ROUNDS, seconds_max=RATE_TIMEOUT_SECONDS):
        execution_id = api.execute(workflow_id).result["execution_id"]
        api.ended(workflow_id, execution_id, CHAIN_POLL_SECONDS)
        runs = _recorded(api, execution_id, tasks * RATE_HOOKS)
        rates.append(len(runs) / (runs[-1] - runs[0]))
    _delete(api, ids)
    return Row(
        f"runs of hooks, {RATE_HOOKS} a task",
        tuple(rates),
        target=session.target(RATE_TARGET),
        note="first to last record of a function that does nothing",
        unit="runs/s",
    )


def _recorded(api: Api, execution_id: str, count: int) -> list[float]:
    """When the execution's hooks were recorded, once all are."""
    deadline = time.monotonic() + RATE_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        found = sorted(
            moment(event["recorded_at"]) for event in api.events(execution_id) if event["event_type"] == "hook.executed"
        )
        if len(found) >= count:
            return found
        time.sleep(CHAIN_POLL_SECONDS)
    raise BrokenError(f"{len(found)} of {count} hooks ran within {RATE_TIMEOUT_SECONDS:g} s")
