"""The agents: what a lead and a reviewer do with a task.

Each function may run twice, when the process that ran it first is killed: so none changes anything, save that the lead
puts a finished report in its place in one step.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from examples.code_review.complexity import measure
from examples.code_review.history import trends
from examples.code_review.lint import LintError, lint
from examples.code_review.report import Subject, write_report
from examples.code_review.repository import Repository, RepositoryError
from orchestration_agent import Task, TaskFailed

SHARDS: Final = 3
FUNCTIONS_KEPT_MAX: Final = 10
"""Of each file, the most complex."""

Result = dict[str, Any]


def lead(task: Task) -> Result:
    """Splits the work, and writes the report."""
    return _carry_out(task, {"plan": _plan, "report": _report})


def review(task: Task) -> Result:
    """Examines a shard of the files, or the history."""
    actions = {"lint": _lint, "complexity": _complexity, "churn": _churn, "trend": _trend}
    return _carry_out(task, actions)


def _carry_out(task: Task, actions: Mapping[str, Callable[[Task], Result]]) -> Result:
    action = actions.get(task.action)
    if action is None:
        raise TaskFailed(f"a {task.role} knows no action {task.action!r}", code="UNKNOWN_ACTION")
    try:
        return action(task)
    except (RepositoryError, LintError) as error:
        raise TaskFailed(str(error), code="CANNOT_REVIEW") from error


def _root(task: Task) -> Path:
    return Path(str(task.execution_input["repository"]))


def _plan(task: Task) -> Result:
    root = _root(task)
    python = [path for path in Repository(root).files() if path.endswith(".py")]
    return {"shards": split([(path, (root / path).stat().st_size) for path in python], SHARDS)}


def split(sized: list[tuple[str, int]], shards: int) -> list[list[str]]:
    """Into shards of about the same size together: the largest first, each to the shard that is smallest so far."""
    totals = [0] * shards
    parts: list[list[str]] = [[] for _ in range(shards)]
    for path, size in sorted(sized, key=lambda item: (-item[1], item[0])):
        smallest = totals.index(min(totals))
        totals[smallest] += size
        parts[smallest].append(path)
    return [sorted(part) for part in parts]


def _shard(task: Task) -> list[str]:
    paths: list[str] = task.results["plan"]["shards"][task.input["shard"]]
    return paths


def _lint(task: Task) -> Result:
    return {"findings": [asdict(finding) for finding in lint(_root(task), _shard(task))]}


def _complexity(task: Task) -> Result:
    root, paths = _root(task), _shard(task)
    measures: dict[str, Any] = {}
    for done, path in enumerate(paths, 1):
        measured = measure((root / path).read_bytes())
        if measured is not None:
            functions = sorted(measured.functions, key=lambda function: (-function.complexity, function.line))
            kept = [{"name": f.name, "line": f.line, "complexity": f.complexity} for f in functions]
            measures[path] = {
                "lines": measured.lines, "complexity": measured.total, "functions": kept[:FUNCTIONS_KEPT_MAX]
            }  # fmt: skip
        task.progress(done / len(paths))
    return {"measures": measures}


def _churn(task: Task) -> Result:
    commits, churn = Repository(_root(task)).churn()
    return {"commits": commits, "churn": churn}


def _trend(task: Task) -> Result:
    paths = [path for shard in task.results["plan"]["shards"] for path in shard]
    found = trends(Repository(_root(task)), paths, task.progress, task.cancelled.is_set)
    return {"revisions": found["revisions"], "trends": found["files"]}


def _report(task: Task) -> Result:
    repository = Repository(_root(task))
    subject = Subject(_root(task).name, repository.head(), len(repository.files()))
    document, ranked = write_report(subject, task.results)
    path = Path(str(task.execution_input["report"]))
    _replace(path, document)
    return {"report": str(path), "files_ranked": len(ranked), "look_first_at": ranked[:10]}


def _replace(path: Path, document: str) -> None:
    try:
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(document)
        os.chmod(draft, 0o644)
        os.replace(draft, path)
    except OSError as error:
        raise TaskFailed(f"cannot write {path}: {error.strerror}", code="CANNOT_WRITE") from error
