"""The referees. A match runs again when the referee's process is killed, and comes out the same."""

from typing import Any

from examples.tournament.connect_four import play
from examples.tournament.players import PLAYERS
from orchestration_agent import Task, TaskFailed


def referee(task: Task) -> dict[str, Any]:
    """Carries out one match."""
    if task.action != "match":
        raise TaskFailed(f"a referee knows no action {task.action!r}", code="UNKNOWN_ACTION")
    one, other = task.input["players"]
    unknown = [name for name in (one, other) if name not in PLAYERS]
    if unknown:
        raise TaskFailed(f"there is no player {unknown[0]!r}", code="UNKNOWN_PLAYER", retryable=False)
    return match(one, other)


def match(one: str, other: str) -> dict[str, Any]:
    """Two games, each begins one. Who has more wins goes on; if nobody has, who took fewer moves for a win, and if
    there was none, the first in the alphabet."""
    wins = {one: 0, other: 0}
    quickest: dict[str, int] = {}
    games = []
    for first, second in ((one, other), (other, one)):
        outcome, moves = play(PLAYERS[first], PLAYERS[second])
        winner = {1: first, 2: second}.get(outcome)
        games.append({"first": first, "winner": winner, "moves": "".join(map(str, moves))})
        if winner is not None:
            wins[winner] += 1
            quickest[winner] = min(quickest.get(winner, len(moves)), len(moves))
    best = min((one, other), key=lambda name: (-wins[name], quickest.get(name, 99), name))
    return {"players": [one, other], "winner": best, "games": games}
