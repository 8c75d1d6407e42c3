"""Each pattern's example while a random process of the engine is killed every two seconds, until it is done:
`python -m benchmarks.pattern_kills`.

Victims are drawn with a seed, so that a run can be repeated. Afterwards each example judges its own outcome as its demo
does (balances, averages, votes), and every audit log must be whole: no gap, one end, each attempt ended at most once.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from cli.client import EngineClient
from cli.connection import Connection
from cli.documents import load_definition
from engine.errors import EngineError, UnavailableError
from examples.registry import EXAMPLES
from examples.running import Demonstration, Run
from tests.acceptance.audit import of_type, recorded_at, status_changes
from tests.acceptance.running import RunningEngine, running_engine
from tests.integration.embedded.processes import descendants

EVERY_SECONDS: Final = 2.0
RUN_SECONDS_MAX: Final = 600.0
KILLS_MAX: Final = 1_000
CALL_SECONDS_MAX: Final = 120.0
POLL_SECONDS: Final = 0.2
CLOSED: Final = frozenset({"completed", "failed", "cancelled"})
SERVERS: Final = ("valkey", "temporal", "postgres")
VICTIMS: Final = ("worker", "gateway", "host", *SERVERS)

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Campaign:
    pattern: str
    executions: int
    killed: tuple[str, ...]
    seconds: float


def demonstrations() -> dict[str, Demonstration]:
    """By pattern: the examples that say what is their own in a `Demonstration`."""
    found: dict[str, Demonstration] = {}
    for example in EXAMPLES:
        module = import_module(f"examples.{example.module}.__main__")
        demonstration = getattr(module, "DEMONSTRATION", None)
        if demonstration is not None:
            found.setdefault(example.pattern, demonstration)
    return found


def campaign(
    pattern: str, *, seed: int, executions: int, every_seconds: float, tell: Tell, kills_max: int = KILLS_MAX
) -> Campaign:
    """Raises AssertionError when an execution does not end as it should, or its audit log is not sound."""
    demonstration = demonstrations()[pattern]
    chance = random.Random(f"{pattern}/{seed}")
    with running_engine(catalogue=demonstration.catalogue, started_held_seconds=10.0) as engine:
        began = time.monotonic()
        runs = [_begin(engine, demonstration, number) for number in range(executions)]
        killed = _kill_until_done(runs, partial(_kill_one, engine, chance), every_seconds, kills_max, tell)
        for run in runs:
            _judge(demonstration, run)
        return Campaign(pattern, executions, tuple(killed), time.monotonic() - began)


def _begin(engine: RunningEngine, demonstration: Demonstration, number: int) -> Run:
    """Each with a folder of its own, where examples keep what they compare in the end."""
    url, token = str(engine.announced["url"]), str(engine.announced["token"])
    definition = load_definition(str(demonstration.workflow))
    client = EngineClient(Connection(url, token))
    folder = engine.directory / f"run-{number}"
    folder.mkdir()
    run = Run(Console(file=StringIO(), width=120), client, folder, definition)
    if demonstration.prepare is not None:
        demonstration.prepare(run)
    given = demonstration.input_data
    data = dict(given(run) if callable(given) else given)
    workflow_id = client.call("workflow.create", run.definition)["workflow_id"]
    options = {"timeout": int(RUN_SECONDS_MAX), "allow_concurrent": True}
    started = {"workflow_id": workflow_id, "input_data": data, "execution_options": options}
    run.execution_id = client.call("workflow.execute", started)["execution_id"]
    return run


def _kill_until_done(
    runs: Sequence[Run], kill: Callable[[], str], every_seconds: float, kills_max: int, tell: Tell
) -> list[str]:
    killed: list[str] = []
    ends_at, next_at = time.monotonic() + RUN_SECONDS_MAX, time.monotonic() + every_seconds
    open_runs = list(runs)
    while open_runs:
        assert time.monotonic() < ends_at, f"{len(open_runs)} not done within {RUN_SECONDS_MAX:g} s; killed: {killed}"
        time.sleep(POLL_SECONDS)
        open_runs = [run for run in open_runs if not _is_closed(run)]
        if open_runs and len(killed) < kills_max and time.monotonic() >= next_at:
            victim = kill()
            if victim:
                killed.append(victim)
                tell(f"killed {victim}; {len(open_runs)} of {len(runs)} run")
            next_at = time.monotonic() + every_seconds
    return killed


def _kill_one(engine: RunningEngine, chance: random.Random) -> str:
    """Who was killed; empty where there is none just now: it is being started again."""
    victim = chance.choice(VICTIMS)
    pids = _pids(engine, victim)
    if not pids:
        return ""
    try:
        os.kill(chance.choice(pids), signal.SIGKILL)
    except ProcessLookupError:
        return ""
    return victim


def _pids(engine: RunningEngine, victim: str) -> list[int]:
    if victim in SERVERS:
        try:
            return [engine.server(victim)]
        except (AssertionError, OSError):
            return []
    found = []
    for pid, _ in descendants(engine.pid):
        try:
            words = Path("/proc", str(pid), "cmdline").read_text("utf-8", "replace").split("\0")
        except OSError:
            continue
        is_host = victim == "host" and "orchestration_agent" in words
        if is_host or words[3:6] == ["cli", "serve", victim]:
            found.append(pid)
    return sorted(found)


def _is_closed(run: Run) -> bool:
    try:
        run.status = run.client.call("workflow.status", {"execution_id": run.execution_id})
    except EngineError:
        return False
    return run.status["status"] in CLOSED


def _judge(demonstration: Demonstration, run: Run) -> None:
    """The example's own judgement, once the killed have come back."""
    deadline = time.monotonic() + CALL_SECONDS_MAX
    while True:
        try:
            events = run.events()
            assert_whole(events, demonstration.ends)
            assert demonstration.show(run), _said(run)
        except UnavailableError:
            assert time.monotonic() < deadline, "the engine did not come back"
            time.sleep(POLL_SECONDS)
        else:
            run.client.__exit__(None, None, None)
            return


def _said(run: Run) -> str:
    file = run.console.file
    return file.getvalue() if isinstance(file, StringIO) else ""


def assert_whole(events: list[dict[str, Any]], ends: frozenset[str]) -> None:
    """What holds for the audit log of any pattern."""
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    recorded = [recorded_at(event) for event in events]
    assert recorded == sorted(recorded)
    changes = status_changes(events)
    assert [status for status in changes if status in CLOSED] == changes[-1:], changes
    assert changes[-1] in ends, (changes, of_type(events, "error.occurred")[-3:])
    ended = Counter(
        (e["payload"]["task_id"], e["payload"]["attempt"], e["epoch"])
        for e in of_type(events, "task.completed")
        if e["payload"]["attempt"]
    )
    assert not [attempt for attempt, times in ended.items() if times > 1]
    successes = Counter(
        e["payload"]["task_id"] for e in of_type(events, "task.completed") if e["payload"]["status"] == "success"
    )
    assert not [task_id for task_id, times in successes.items() if times > 1]


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)

    def tell(text: str) -> None:
        print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)

    for pattern in options.pattern or sorted(demonstrations()):
        for seed in range(options.seed, options.seed + options.times):
            result = campaign(
                pattern, seed=seed, executions=options.executions, every_seconds=options.every_seconds, tell=tell
            )
            kills = ", ".join(f"{victim} {times} times" for victim, times in Counter(result.killed).items())
            tell(f"{pattern}, seed {seed}: {result.executions} executions in {result.seconds:.0f} s; killed: {kills}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pattern_kills", description=__doc__)
    parser.add_argument("--pattern", action="append", help="only this one; may stand several times")
    parser.add_argument("--seed", type=int, default=1, help="of the first campaign")
    parser.add_argument("--times", type=int, default=1, help="campaigns of each pattern, each with the next seed")
    parser.add_argument("--executions", type=int, default=3, help="at once")
    parser.add_argument("--every-seconds", type=float, default=EVERY_SECONDS)
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
