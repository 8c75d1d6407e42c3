"""What a judging agent answers, read with care: it may be a language model, and anything may come back."""

import json
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from engine.contracts.limits import SPAWN_TASKS_MAX

FEEDBACK_BYTES_MAX: Final = 6 * 1024
"""As JSON; the rest is cut off. The last few go with a task, within what may go with it."""

ANSWER_FIELDS: Final = ("verdict", "feedback", "agent", "tasks")


class BadAnswerError(Exception):
    """It makes no sense; the message says why, for the agent to read."""


@dataclass(frozen=True)
class Verdict:
    kind: str
    feedback: str = ""
    agent: str | None = None
    tasks: tuple[dict[str, Any], ...] = field(default=())


def read_verdict(answer: Any, allowed: Collection[str]) -> Verdict:
    """Raises BadAnswerError. Fields that are not known are left alone."""
    if not isinstance(answer, dict):
        raise BadAnswerError('the answer is no object like {"verdict": "accept"}')
    kind = answer.get("verdict")
    if not isinstance(kind, str) or kind not in allowed:
        raise BadAnswerError(f"verdict is not one of {', '.join(allowed)}")
    feedback = answer.get("feedback", "")
    if feedback is None:
        feedback = ""
    if not isinstance(feedback, str):
        raise BadAnswerError("feedback is no text")
    agent = answer.get("agent") if kind == "reassign" else None
    if agent is not None and not isinstance(agent, str):
        raise BadAnswerError("agent is no agent's name")
    return Verdict(kind, cut(feedback, FEEDBACK_BYTES_MAX), agent, _tasks(answer) if kind == "spawn" else ())


def cut(text: str, bytes_max: int) -> str:
    """As much of it from its beginning as fits, as JSON."""
    while (size_bytes := len(json.dumps(text, ensure_ascii=False).encode("utf-8", "replace"))) > bytes_max:
        text = text[: len(text) * bytes_max // size_bytes - 1]
    return text


def _tasks(answer: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    tasks = answer.get("tasks")
    if not isinstance(tasks, list) or not tasks or not all(isinstance(task, dict) for task in tasks):
        raise BadAnswerError("tasks is no list of tasks to add")
    if len(tasks) > SPAWN_TASKS_MAX:
        raise BadAnswerError(f"{len(tasks)} tasks: at most {SPAWN_TASKS_MAX} can be added")
    return tuple(tasks)
