"""Level 3: builders, which examine and package, and a fixer, which repairs. Each step may run twice, and then does no
harm."""

import os
import zipfile
from pathlib import Path
from typing import Any, Final

from examples.build_and_fix import repository
from examples.build_and_fix.mending import mend
from orchestration_agent import Task, TaskFailed

Result = dict[str, Any]
MESSAGE_LENGTH_MAX: Final = 1_500


def build(task: Task) -> Result:
    """Lints, tests, packages, signs."""
    folder = _folder(task)
    if task.action == "lint":
        _check(repository.lint(folder), "LINT")
        return {"clean": True}
    if task.action.startswith("test-"):
        _check(repository.test(folder, str(task.input["module"])), "TESTS")
        return {"passed": task.input["module"]}
    if task.action == "package":
        return _package(folder, str(task.input["version"]))
    if task.action == "sign":
        raise TaskFailed("there is no key to sign with", code="NO_KEY")
    raise TaskFailed(f"a builder knows no action {task.action!r}", code="UNKNOWN_ACTION")


def fix(task: Task) -> Result:
    """Repairs, and then does what a builder would do."""
    folder = _folder(task)
    if task.action == "lint":
        repository.lint(folder, repair=True)
    elif task.action.startswith("test-"):
        _mend(folder, str(task.input["module"]))
    return build(task)


def restore(task: Task) -> Result:
    """Takes a module back to what was released; for who may."""
    folder, module = _folder(task), str(task.input["module"])
    repository.replace(repository.module_path(folder, module), repository.released(f"{module}.py"))
    return build(task)


def _mend(folder: Path, module: str) -> None:
    path = repository.module_path(folder, module)
    source = path.read_text(encoding="utf-8")
    if not repository.test(folder, module):
        return  # an earlier attempt has done it
    mended, tried = mend(source, lambda candidate: repository.passes_with(folder, module, candidate))
    if mended is None:
        raise TaskFailed(f"none of {tried} small changes makes the tests of {module} pass", code="CANNOT_MEND")
    repository.replace(path, mended)


def _package(folder: Path, version: str) -> Result:
    if version == repository.released("version").strip():
        raise TaskFailed(f"version {version} is released already", code="VERSION_TAKEN")
    target = folder / "dist" / f"{repository.PACKAGE}-{version}.zip"
    target.parent.mkdir(exist_ok=True)
    draft = target.with_suffix(f".{os.getpid()}.draft")
    with zipfile.ZipFile(draft, "w") as archive:
        for path in sorted((folder / repository.PACKAGE).glob("*.py")):
            archive.write(path, path.relative_to(folder))
    draft.replace(target)
    return {"package": target.name, "version": version}


def _folder(task: Task) -> Path:
    return Path(str(task.execution_input["repository"]))


def _check(report: str, code: str) -> None:
    if report:
        raise TaskFailed(report[-MESSAGE_LENGTH_MAX:], code=code)
