"""`python -m benchmarks`: run them, show the table, write the JSON.

The exit code says whether everything could be measured, not whether it was fast: 0, or 1 when something broke.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import breakers, calls, coordination, crowds, firehose, hooks, planning, steps, watching
from benchmarks.engine import BrokenError
from benchmarks.report import document, footnotes, machine, table
from benchmarks.results import Row
from benchmarks.session import Session

BENCHMARKS: Final[dict[str, Callable[[Session], list[Row]]]] = {
    "planning": planning.planning,
    "create": calls.create,
    "execute": calls.execute,
    "status": calls.status,
    "control": calls.control,
    "chain": steps.chain,
    "turns": steps.turns,
    "graph": steps.random_run,
    "fanout": steps.fan_out_run,
    "graph10k": steps.large_random_run,
    "fanout10k": steps.large_fan_out_run,
    "chains": crowds.chains,
    "executions": crowds.one_task_executions,
    "waiting": crowds.long_executions,
    "events": firehose.events,
    "watching": watching.watching,
    "patterns": coordination.patterns,
    "hooks": hooks.hooks,
    "breakers": breakers.breakers,
}


def main(arguments: list[str]) -> int:
    options = _parser().parse_args(arguments)
    notices = Console(stderr=True, highlight=False)
    machine_before = machine()
    started_at, began = datetime.now(UTC).isoformat(timespec="seconds"), time.monotonic()
    rows: list[Row] = []
    broken: list[str] = []
    try:
        with ExitStack() as stack, notices.status("starting") as shown:
            session = Session(stack, quick=options.quick, tell=shown.update, repetitions=options.reps)
            for name in options.only:
                since = time.monotonic()
                try:
                    rows += BENCHMARKS[name](session)
                except BrokenError as error:
                    broken.append(name)
                    notices.print(f"{name} is broken: {error}", markup=False)
                notices.print(f"{name:<10} {time.monotonic() - since:6.1f} s")
            shown.update("stopping")
    except BrokenError as error:
        notices.print(f"broken: {error}", markup=False)
        return 1
    seconds = time.monotonic() - began
    Console(width=None if sys.stdout.isatty() else 160).print(table(rows))
    for line in footnotes(rows):
        print(line)
    cores, load = machine_before["cores"], machine_before["load_average"][0]
    if broken:
        print(f"broken: {', '.join(broken)}")
    print(f"{seconds:.0f} s on {cores} cores, load {load:g} before; targets missed: {_missed(rows)}")
    if options.json is not None:
        result = document(
            rows, started_at=started_at, seconds=seconds, quick=options.quick, machine_before=machine_before
        )
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return 1 if broken else 0


def _missed(rows: list[Row]) -> str:
    return ", ".join(row.name for row in rows if row.verdict == "missed") or "none"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    parser.add_argument("--only", type=_names, default=list(BENCHMARKS), metavar="NAME,...", help=", ".join(BENCHMARKS))
    parser.add_argument("--reps", type=_positive, metavar="N", help="rounds of each row, instead of its own number")
    parser.add_argument("--quick", action="store_true", help="fewer rounds and small sizes: for a first look")
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return names


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
