"""`python -m examples.estimation`: what the swarm decided, how it came to it, and how it really is."""

import sys
from pathlib import Path
from typing import Any, Final

from examples.estimation.library import files, true_lines, true_parts
from examples.running import Demonstration, Run, main

HERE: Final = Path(__file__).parent
ERROR_SHARE_MAX: Final = 0.25
"""How far off a decision may be: a median of samples of 40 of many hundred files."""

RULES: Final[tuple[dict[str, Any], ...]] = (
    {"rule": "majority"},
    {"rule": "quorum"},
    {"rule": "unanimous"},
    {"rule": "quorum", "tolerance": 50_000},
)


def show(run: Run) -> bool:
    decided, largest = run.result("lines"), run.result("largest")
    _show_rounds(run)
    truth = true_lines()
    error = abs(decided["decision"] - truth) / truth
    run.say(f"The swarm says {decided['decision']:,} lines; counted, {len(files()):,} files have {truth:,}.")
    run.say(f"It is off by {error:.1%}. {decided['dissent_total']} of {decided['members']} dissent.\n")
    options = run.definition["pattern_config"]["questions"]["largest"]["options"]
    run.say(f"Largest package: {largest['decision']}, after {len(largest.get('eliminated', []))} were struck.")
    run.say(f"Counted, they come in this order: {', '.join(true_parts(options)[:3])}, ...\n")
    _show_recounts(run)
    return bool(error <= ERROR_SHARE_MAX)


def _show_rounds(run: Run) -> None:
    """From the audit log: how the votes drew together."""
    votes: dict[int, list[int]] = {}
    for event in run.events():
        said = event["payload"]
        if event["event_type"] == "vote.cast" and said["task_id"] == "lines":
            votes.setdefault(said["round"], []).extend(said["choices"])
    run.say("round   votes   lowest      highest     spread")
    for number, cast in sorted(votes.items()):
        low, high = min(cast), max(cast)
        run.say(f"{number:>5}   {len(cast):>5}   {low:>9,}   {high:>9,}   {high - low:>9,}")
    run.say()


def _show_recounts(run: Run) -> None:
    run.say("The kept votes of the last round under other rules, without asking anybody again:")
    for voting in RULES:
        asked = {"execution_id": run.execution_id, "task_id": "lines", "voting": voting}
        (item,) = run.client.call("swarm.recount", asked)["items"]
        outcome, name = item["recounted"], " ".join(f"{key}={value}" for key, value in voting.items())
        decision = "no decision" if outcome["decision"] is None else f"{outcome['decision']:,}"
        run.say(f"  {name:<34} {decision:<14} {outcome['verdict']}")


DEMONSTRATION: Final = Demonstration(
    title="A swarm estimates the size of Python's standard library, and votes.",
    workflow=HERE / "workflow.yaml",
    catalogue=HERE / "catalogue.yaml",
    show=show,
)

if __name__ == "__main__":
    sys.exit(main(DEMONSTRATION))
