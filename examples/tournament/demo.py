"""What the demo does: it registers the pattern, and afterwards plays every match again to see that it came out so."""

import hashlib
import json
from pathlib import Path
from typing import Any, Final

from examples.running import Demonstration, Run
from examples.tournament.agents import match
from planner.language.templates import template_text
from planner.parse import parse_text

HERE: Final = Path(__file__).resolve().parent
TASK: Final = "championship"


def registration() -> dict[str, Any]:
    """The template, under a version of its content: an edited one must not meet the one that is known already."""
    pattern = parse_text(template_text("tournament") or "")
    content = hashlib.sha256(json.dumps(pattern, sort_keys=True).encode()).hexdigest()
    return {**pattern, "version": f"{pattern['version']}-{content[:8]}"}


def prepare(run: Run) -> None:
    """Register the pattern, and have the definition name that version."""
    pattern = registration()
    registered = run.client.call("pattern.register", pattern)
    run.definition["pattern"]["version"] = pattern["version"]
    states = pattern["coordination_logic"]["states"]
    run.say(f"The pattern {pattern['name']} {pattern['version']} is registered: {registered['pattern_id']}")
    run.say(f"  {len(states)} states: {', '.join(states)}\n")


def show(run: Run) -> bool:
    """The rounds, and whether each match comes out the same when it is played here."""
    result = run.result(TASK)
    players = run.definition["pattern_config"]["players"]
    matches = [played for games in result["rounds"] for played in games]
    for number, games in enumerate(result["rounds"], 1):
        run.say(f"Round {number}")
        for played in games:
            one, other = played["players"]
            lengths = " and ".join(f"{len(game['moves'])} moves" for game in played["games"])
            run.say(f"  {one:<12} - {other:<12} {played['winner']:<12} ({lengths})")
    run.say(f"\nThe champion is {result['champion']}.", style="bold green")
    same = all(match(*played["players"]) == played for played in matches)
    once = sorted(loser(played) for played in matches) == sorted(set(players) - {result["champion"]})
    asked = [event for event in run.events() if event["event_type"] == "agent.task_assigned"]
    referees = {event["payload"]["agent_id"] for event in asked}
    run.say(
        f"{len(matches)} matches in {len(result['rounds'])} rounds for {len(players)} players, carried out by "
        f"{len(referees)} referees; {len(asked)} pieces of work were given out."
    )
    run.say("Played again here, every match comes out the same." if same else "A match comes out otherwise here.")
    run.say("Everybody but the champion lost exactly once." if once else "Somebody lost twice, or never.")
    return same and once


def loser(played: dict[str, Any]) -> str:
    (name,) = set(played["players"]) - {played["winner"]}
    return str(name)


DEMONSTRATION: Final = Demonstration(
    title="A knock-out tournament, in a pattern that is registered as data",
    workflow=HERE / "workflow.yaml",
    catalogue=HERE / "catalogue.yaml",
    prepare=prepare,
    show=show,
)
