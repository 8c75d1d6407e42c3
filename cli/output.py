"""Where output goes: data to stdout, messages to stderr; with `--json` exactly one document on stdout."""

import json
import sys
from collections.abc import Iterable
from typing import Any

from engine.errors import EngineError

_PROBLEMS_SHOWN_MAX = 50


def print_document(document: Any) -> None:
    """The one JSON document: on one line for programs, indented for a terminal."""
    indent = 2 if sys.stdout.isatty() else None
    print(json.dumps(document, indent=indent, ensure_ascii=False, default=str), flush=True)


def print_message(text: str) -> None:
    print(printable(text), file=sys.stderr, flush=True)


def print_more(page: dict[str, Any]) -> None:
    """How to go on, where the listing has another page."""
    if page.get("next_page_token"):
        print_message(f"more: --page-token {page['next_page_token']}")


def printable(text: str) -> str:
    """Without control characters, which could drive the terminal: names and messages come from others."""
    return "".join(c if c in "\n\t" or (ord(c) >= 32 and not 127 <= ord(c) < 160) else "�" for c in text)


def print_error(error: EngineError, *, as_json: bool) -> None:
    """The message with what is wrong, where and the remedy; with `--json` the same as the document."""
    reason = f" ({error.data['reason']})" if "reason" in error.data else ""
    print_message(f"error: {error.message}{reason}")
    problems = describe_problems(error.data.get("errors", ()))
    for problem in problems[:_PROBLEMS_SHOWN_MAX]:
        print_message(f"  - {problem}")
    if len(problems) > _PROBLEMS_SHOWN_MAX:
        print_message(f"  ... and {len(problems) - _PROBLEMS_SHOWN_MAX} more (--json shows all)")
    if as_json:
        print_document(error_document(error))


def error_document(error: EngineError) -> dict[str, Any]:
    document: dict[str, Any] = {"code": error.code, "message": error.message}
    problems = describe_problems(error.data.get("errors", ()))
    if problems:
        document["errors"] = problems
    if "reason" in error.data:
        document["reason"] = str(error.data["reason"])
    return {"error": document}


def describe_problems(problems: Any) -> list[str]:
    """Problems as text, whether they came as models, as JSON objects or as text already."""
    if not isinstance(problems, Iterable) or isinstance(problems, str | bytes):
        return []
    return [_describe(problem) for problem in problems]


def _describe(problem: Any) -> str:
    if isinstance(problem, dict) and "message" in problem:
        location = problem.get("location")
        return f"{location}: {problem['message']}" if location else str(problem["message"])
    return str(problem)
