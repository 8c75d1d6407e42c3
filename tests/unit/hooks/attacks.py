"""Attacks that are refused before anything runs: what is asked for, and the reason that the audit log gets."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Attack:
    title: str
    command: str
    args: tuple[str, ...]
    reason: str
    secrets: Mapping[str, str] = field(default_factory=dict)


LONG = {
    "ruff": [
        Attack("too many paths", "ruff", ("check", *["a.py"] * 60), "ARGUMENT_INVALID"),
        Attack("path that is too long", "ruff", ("check", "a" * 2000), "PATH_OUTSIDE_WORK_DIRECTORY"),
    ],
    "curl": [
        Attack(f"body that is nested {depth} deep", "curl", ("--json", body, "http://example.com/"), "REQUEST_INVALID")
        for depth, body in ((400, "[" * 400 + "]" * 400), (8000, "[" * 8000))
    ],
}
"""Those that nobody wants to read in full."""


def read_attacks(source: Path) -> dict[str, list[Attack]]:
    groups: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load(source.read_text(encoding="utf-8"))
    return {
        group: [_attack(title, reason, asked) for reason, titles in reasons.items() for title, asked in titles.items()]
        + LONG.get(group, [])
        for group, reasons in groups.items()
    }


def _attack(title: str, reason: str, asked: Any) -> Attack:
    secrets = asked["secrets"] if isinstance(asked, dict) else {}
    words = asked["command"] if isinstance(asked, dict) else asked
    command, *arguments = [words] if isinstance(words, str) else words
    return Attack(title, command, tuple(arguments), reason, secrets)


AT_REGISTRATION = read_attacks(Path(__file__).with_suffix(".yaml"))


@dataclass(frozen=True)
class RunAttack:
    """What passes at registration and is refused when the event's values are there."""

    title: str
    command: str
    context: dict[str, Any]
    reason: str


AT_RUN = [
    RunAttack("flag in a value", "ruff check {file}", {"file": "--config=x"}, "ARGUMENT_INVALID"),
    RunAttack("argument file in a value", "ruff check {file}", {"file": "@x"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("absolute path in a value", "ruff check {file}", {"file": "/etc/passwd"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("path upwards in a value", "ruff check {file}", {"file": "../x"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("newline in a value", "ruff check {file}", {"file": "a\nb"}, "CONTROL_CHARACTER"),
    RunAttack("NUL in a value", "ruff check {file}", {"file": "a\0b"}, "CONTROL_CHARACTER"),
    RunAttack("escape in a value", "git commit -m {role}", {"role": "\x1b]0;x\x07"}, "CONTROL_CHARACTER"),
    RunAttack("override in a value", "git commit -m {role}", {"role": "\u202ex"}, "CONTROL_CHARACTER"),
    RunAttack("shell in a value", "ruff check {file}", {"file": "a; touch x"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("substitution in a value", "ruff check {file}", {"file": "$(x)"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("flag in a task's id", "git show {task_id}", {"task_id": "--output=x"}, "ARGUMENT_INVALID"),
    RunAttack("magic in a task's id", "git show {task_id}", {"task_id": ":/x"}, "ARGUMENT_INVALID"),
    RunAttack("pathspec in a value", "git add {file}", {"file": ":(exclude)x"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("missing value", "ruff check {file}", {}, "VALUE_MISSING"),
    RunAttack("missing part", "ruff check {result.path}", {"result": {"other": 1}}, "VALUE_MISSING"),
    RunAttack("part of a list", "ruff check {result.9}", {"result": ["a"]}, "VALUE_MISSING"),
    RunAttack("value that is an object", "ruff check {result}", {"result": {"a": 1}}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("value that is too long", "git commit -m {role}", {"role": "a" * 9000}, "ARGUMENT_TOO_LONG"),
    RunAttack("number that is too long", "git commit -m {result}", {"result": 10**5000}, "ARGUMENT_TOO_LONG"),
    RunAttack("empty path", "ruff check {file}", {"file": ""}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("link out of the directory", "ruff check {file}", {"file": "out.py"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("link to a directory", "ruff check {file}", {"file": "up/x.py"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("link to the system", "ruff format {file}", {"file": "etc/passwd"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("link into the repository", "ruff format {file}", {"file": "git/x"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack(
        "link by its absolute path", "ruff check {file}", {"file": "<work>/out.py"}, "PATH_OUTSIDE_WORK_DIRECTORY"
    ),
    RunAttack("neighbour's directory", "ruff check {file}", {"file": "<work>-other/x"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("test's id out of the directory", "pytest {file}", {"file": "up/a.py::b"}, "PATH_OUTSIDE_WORK_DIRECTORY"),
    RunAttack("work directory that is missing", "ruff check", {"work_dir": "<work>/none"}, "WORK_DIRECTORY_INVALID"),
    RunAttack("work directory that is a link", "ruff check", {"work_dir": "<work>/up"}, "WORK_DIRECTORY_INVALID"),
    RunAttack("work directory that is the root", "ruff check", {"work_dir": "/"}, "WORK_DIRECTORY_INVALID"),
    RunAttack("no work directory", "ruff check", {"work_dir": None}, "WORK_DIRECTORY_INVALID"),
    RunAttack("no repository", "git status", {}, "WORK_DIRECTORY_INVALID"),
    RunAttack("secret of nobody", "curl -H 'A: {secret:none}' http://example.com/", {}, "VALUE_MISSING"),
    RunAttack("secret of another tenant", "curl -H 'A: {secret:key}' http://example.com/", {}, "VALUE_MISSING"),
    RunAttack(
        "line in a header's value",
        "curl -H 'A: {role}' http://example.com/",
        {"role": "a\r\nB: c"},
        "CONTROL_CHARACTER",
    ),
]
