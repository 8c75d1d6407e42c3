"""The hands through which the text goes.

Each is told in `task.context` what the ones before have made of it and, when a gate has refused its work, why.
"""

import re
from typing import Any, Final

from examples.editing.text import (
    PAGE,
    doubled,
    join_lines,
    longest_sentence,
    set_page,
    shorten,
    split_long,
    without_doubled,
    words,
)
from orchestration_agent import Task, TaskFailed

WORDS_MAX: Final = 45
"""Of a sentence."""

WIDTH: Final = 58
WORDS_A_LINE: Final = 11

Result = dict[str, Any]


def restore(task: Task) -> Result:
    """Reads the scan. What it does not do at once it does when it is told."""
    paragraphs = join_lines(PAGE.read_text())
    if "doubled" in _complaints(task):
        paragraphs = without_doubled(paragraphs)
    return {
        "context": {"paragraphs": paragraphs},
        "doubled": doubled(paragraphs),
        "handoff_to": "historian" if re.search(r"\b1[789]\d\d\b", " ".join(paragraphs)) else None,
    }


def date(task: Task) -> Result:
    """The years that a text names, and how far they are apart."""
    text = " ".join(task.context["context"]["paragraphs"])
    years = sorted({int(found) for found in re.findall(r"\b1[789]\d\d\b", text)})
    return {"context": {"years": years, "span": years[-1] - years[0]}}


def edit(task: Task) -> Result:
    """Breaks up long sentences; and cuts, when the page has come back as too long."""
    paragraphs = split_long(task.context["context"]["paragraphs"], WORDS_MAX)
    too_many = re.search(r"lines: (\d+) is greater than the maximum of (\d+)", _complaints(task))
    if too_many:
        paragraphs = shorten(paragraphs, (int(too_many[1]) - int(too_many[2])) * WORDS_A_LINE)
    return {"context": {"paragraphs": paragraphs}, "longest": longest_sentence(paragraphs)}


def layout(task: Task) -> Result:
    """Sets the page; with words broken at the ends of lines, until somebody minds."""
    lines = set_page(task.context["context"]["paragraphs"], WIDTH, hyphens="broken" not in _complaints(task))
    return {"context": {"page": lines}, "lines": len(lines)}


def read(task: Task) -> Result:
    """The judging agent: reads the page against the text, word by word."""
    told = task.context
    text = [word for paragraph in told["context"]["paragraphs"] for word in words(paragraph)]
    page = words("\n".join(told["result"]["context"]["page"]))
    for position, (wanted, found) in enumerate(zip(text, page, strict=False)):
        if wanted != found:
            return {"verdict": "reject", "feedback": f"word {position + 1}, {wanted!r}, is broken: {found!r}"}
    if len(text) != len(page):
        return {"verdict": "reject", "feedback": f"the page has {len(page)} words, the text {len(text)}"}
    return {"verdict": "accept", "feedback": f"all {len(text)} words are there"}


HANDS: Final = {"restore": restore, "date": date, "edit": edit, "layout": layout, "judge": read}


def hand(task: Task) -> Result:
    """By role, where one takes over what another began, and else by action."""
    name = "date" if task.role == "historian" else task.action
    if name not in HANDS:
        raise TaskFailed(f"nobody here can {name}", code="UNKNOWN_ACTION")
    return HANDS[name](task)


def _complaints(task: Task) -> str:
    return " ".join(item["feedback"] for item in task.context["feedback"])
