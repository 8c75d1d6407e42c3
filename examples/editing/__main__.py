"""`python -m examples.editing`: how a page went from hand to hand, what was refused, and what came of it."""

import sys
from pathlib import Path
from typing import Any, Final

from examples.editing.agents import WORDS_MAX
from examples.editing.text import (
    PAGE,
    doubled,
    join_lines,
    longest_sentence,
    sentences,
    split_long,
    without_doubled,
    words,
)
from examples.running import Demonstration, Run, main

HERE: Final = Path(__file__).parent
LINES_SHOWN: Final = 12


def show(run: Run) -> bool:
    _show_hands(run)
    page = run.result("layout")["context"]["page"]
    lines_max = run.definition["pattern_config"]["stations"]["layout"]["gate"]["json_schema"]["properties"]["lines"]
    run.say(f"The page, {len(page)} lines of at most {lines_max['maximum']}:\n")
    for line in [*page[:LINES_SHOWN], "..."]:
        run.say(f"    {line}")
    scan = join_lines(PAGE.read_text())
    run.say(f"\nThe scan has {len(doubled(scan))} doubled words, the page {len(doubled([' '.join(page)]))}.")
    run.say(f"Its longest sentence has {longest_sentence(scan)} words; {WORDS_MAX} are allowed.")
    cut = missing_sentences(page)
    run.say(f"Of the {len(restored())} sentences of the restored text, {len(cut)} had to go for the page to fit:")
    for sentence in cut:
        run.say(f"    {sentence}")
    good = is_right(page, cut) and len(page) <= lines_max["maximum"]
    run.say("\nEvery other word is there, whole and in its place." if good else "\nThe page is not what it should be.")
    return good


def restored() -> list[str]:
    """The sentences of the scan, put right here and now."""
    return [s for text in split_long(without_doubled(join_lines(PAGE.read_text())), WORDS_MAX) for s in sentences(text)]


def missing_sentences(page: list[str]) -> list[str]:
    there = " " + " ".join(words("\n".join(page))) + " "
    return [s for s in restored() if f" {' '.join(words(s))} " not in there]


def is_right(page: list[str], cut: list[str]) -> bool:
    """Whether the page is the restored text without those sentences, word by word."""
    wanted = [word for s in restored() if s not in cut for word in words(s)]
    return words("\n".join(page)) == wanted and len(cut) < len(restored()) / 4


def _show_hands(run: Run) -> None:
    """From the audit log: who handed over what, and what was refused."""
    what = {"handoff.accepted": "hands over", "handoff.rejected": "is refused", "handoff.rolled_back": "rolls back"}
    told = [event for event in run.events() if event["event_type"] in what]
    for event in told:
        said = event["payload"]
        run.say(f"{said['agent_id']:<13} {said['task_id']:<8} {what[event['event_type']]:<11} {_told(said)}")
    counts = {kind: sum(event["event_type"] == kind for event in told) for kind in what}
    run.say(
        f"\n{counts['handoff.accepted']} hand-overs counted, {counts['handoff.rejected']} were refused, "
        f"{counts['handoff.rolled_back']} went back to the last accepted state.\n"
    )


def _told(said: dict[str, Any]) -> str:
    if "reason" in said:
        return str(said["reason"])
    if "back_to" in said:
        return f"to {said['back_to']}, which is done again"
    to = f", to the {said['handed_to']}" if "handed_to" in said else ""
    return f"{', '.join(said['added'])}{to}"


DEMONSTRATION: Final = Demonstration(
    title="A scanned page of Darwin's goes from hand to hand, and is refused until it is right.",
    workflow=HERE / "workflow.yaml",
    catalogue=HERE / "catalogue.yaml",
    show=show,
)

if __name__ == "__main__":
    sys.exit(main(DEMONSTRATION))
