"""`python -m examples.gossip`: the average that the peers found, and the proof that no message was lost or repeated."""

import os
import signal
import sys
from pathlib import Path
from typing import Any, Final

from cli.board import Board
from examples.gossip.measuring import measure
from examples.running import Demonstration, Run, main
from examples.screen import PAGE_SIZE, Notice

HERE: Final = Path(__file__).parent
ERROR_SHARE_MAX: Final = 0.01
LOSS_SHARE_MAX: Final = 1e-9
"""Of the sums: what floating-point numbers may lose. A single message is a thousand times more."""

KILLED_AFTER_TASKS: Final = 8


def notice(run: Run) -> Notice:
    """Kills the process of some peers in the middle of the conversation."""
    killed: list[int] = []

    def look(board: Board) -> str | None:
        begun = sum(row.attempts > 1 for row in board.tasks.values())
        if killed or begun < KILLED_AFTER_TASKS:
            return None
        hosts = run.client.get("/api/v1/agents", type="gossiper", limit=PAGE_SIZE)["items"]
        pids = [host["pid"] for host in hosts if isinstance(host["pid"], int)]
        if not pids:
            return None
        killed.append(pids[0])
        os.kill(pids[0], signal.SIGKILL)
        return f"killed process {pids[0]}, which serves some of the peers, with SIGKILL"

    return look


def show(run: Run) -> bool:
    ended = run.result("average")
    states: dict[str, dict[str, Any]] = ended["states"]
    truth = [measure(number, len(states)) for number in range(len(states))]
    average = sum(truth) / len(truth)
    run.say("peer            measured     estimate of the average")
    worst = 0.0
    for number, measured in enumerate(truth):
        state = states[f"gossiper-{number + 1}"]
        estimate = state["sum"] / state["weight"]
        worst = max(worst, abs(estimate - average) / average)
        run.say(f"gossiper-{number + 1:<4}{measured:>12,}{estimate:>16,.0f}")
    run.say(f"\nThe average is {average:,.0f}; the worst estimate is off by {worst:.4%}.")
    lost = abs(sum(state["sum"] for state in states.values()) - sum(truth)) / sum(truth)
    weight = sum(state["weight"] for state in states.values())
    run.say(f"{ended['turns']} turns, {ended['messages']} messages, ended by {ended['ended']}.")
    run.say(f"All sums together changed by {lost:.1e} of their size, all weights by {abs(weight - len(states)):.1e}:")
    kept = lost < LOSS_SHARE_MAX and abs(weight - len(states)) < LOSS_SHARE_MAX * len(states)
    run.say("each message took effect exactly once." if kept else "a message was lost or took effect twice!")
    _show_losses(run)
    return kept and ended["ended"] == "quiescence" and worst <= ERROR_SHARE_MAX


def _show_losses(run: Run) -> None:
    """What the killed process had in hand was done again by another."""
    lost = [e for e in run.events() if e["event_type"] == "agent.disconnected"]
    if lost:
        names = ", ".join(sorted({event["payload"]["agent_id"] for event in lost}))
        run.say(f"Lost with a process on the way, and served by another since: {names}.")


DEMONSTRATION: Final = Demonstration(
    title="A network of peers finds an average by gossip, while one of its processes is killed.",
    workflow=HERE / "workflow.yaml",
    catalogue=HERE / "catalogue.yaml",
    show=show,
    notice=notice,
)

if __name__ == "__main__":
    sys.exit(main(DEMONSTRATION))
