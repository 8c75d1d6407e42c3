"""The repository that is built: laid out from texts, examined with ruff and pytest, and changed one file at a time."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

HERE: Final = Path(__file__).resolve().parent
SUFFIX: Final = ".txt"
"""Of the files that are kept here, so that nobody takes them for ours."""

PACKAGE: Final = "textkit"
PROGRAM_SECONDS_MAX: Final = 120.0
RULES: Final = "F,I,E"


def lay_out(folder: Path) -> None:
    """The broken repository, anew."""
    shutil.rmtree(folder, ignore_errors=True)
    subject = HERE / "subject"
    for source in sorted(subject.rglob(f"*{SUFFIX}")):
        target = folder / source.relative_to(subject).with_suffix("")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)


def released(name: str) -> str:
    """What the last release has under this name."""
    return (HERE / "released" / f"{name}{SUFFIX}").read_text(encoding="utf-8")


def lint(folder: Path, *, repair: bool = False) -> str:
    """What ruff finds; nothing when all is well."""
    more = ["--fix", "--quiet"] if repair else []
    done = _run(
        folder, "ruff", "check", "--isolated", "--no-cache", "--output-format", "concise", "--select", RULES, *more
    )
    return "" if done.returncode == 0 else done.stdout.strip()


def test(folder: Path, module: str) -> str:
    """What pytest says of a module's failing tests; nothing when all pass."""
    here = ("-c", os.devnull, "--rootdir", str(folder), "-p", "no:cacheprovider")
    done = _run(folder, "pytest", "-q", "--tb=no", *here, f"tests/test_{module}.py")
    return "" if done.returncode == 0 else done.stdout.strip()


def module_path(folder: Path, module: str) -> Path:
    return folder / PACKAGE / f"{module}.py"


def passes_with(folder: Path, module: str, source: str) -> bool:
    """Whether the module's tests pass with this source. Tried on a copy: others look at the repository meanwhile."""
    with tempfile.TemporaryDirectory(prefix="build-and-fix-") as name:
        copy = Path(name) / "copy"
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("dist", "__pycache__"))
        module_path(copy, module).write_text(source, encoding="utf-8")
        return not test(copy, module)


def replace(path: Path, text: str) -> None:
    """In one step."""
    draft = path.with_suffix(f".{os.getpid()}.draft")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)


def _run(folder: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    settings = {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder, env={**os.environ, **settings},
        capture_output=True, text=True, timeout=PROGRAM_SECONDS_MAX, check=False,
    )  # fmt: skip
