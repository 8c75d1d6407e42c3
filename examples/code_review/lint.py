"""What ruff finds, with rules that are stricter than most projects' own, whatever the project's configuration says."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

RULES: Final = "F,B,BLE,S,A,ASYNC,C90,DTZ,ERA,PERF,PIE,PL,RET,SIM,TRY,RUF,PTH"
IGNORED: Final = "RUF001,RUF002,RUF003,RUF100,S603,S607,TRY003,PLC0415,PLR0913,PLR0917"
IGNORED_IN_TESTS: Final = "S,PLR2004,PLR0915,PLR0904"
"""Tests assert, use numbers that speak for themselves, and hold no secrets."""

FILES_AT_ONCE: Final = 500
RUFF_TIMEOUT_SECONDS: Final = 120.0


class LintError(Exception):
    """Ruff cannot be run."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding."""

    path: str
    line: int
    rule: str
    message: str


def ruff_program() -> Path:
    """Ruff of the environment that this program runs in. Raises LintError."""
    program = Path(sys.executable).with_name("ruff")
    if not program.is_file():
        raise LintError(f"there is no {program}: install ruff into this environment, for example with `make setup`")
    return program


def lint(root: Path, paths: Sequence[str]) -> Iterator[Finding]:
    """Findings in these files of the repository. Raises LintError."""
    for first in range(0, len(paths), FILES_AT_ONCE):
        for item in _ruff(root, paths[first : first + FILES_AT_ONCE]):
            path = Path(item["filename"]).relative_to(root.resolve()).as_posix()
            line = (item.get("location") or {}).get("row", 1)
            yield Finding(path, line, item.get("code") or "syntax-error", item["message"])


def _ruff(root: Path, paths: Sequence[str]) -> list[dict[str, Any]]:
    command = [
        str(ruff_program()), "check", "--isolated", "--no-cache", "--exit-zero", "--quiet",
        "--output-format", "json", "--select", RULES, "--ignore", IGNORED,
        "--per-file-ignores", *_in_tests(), "--", *paths,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=root.resolve(), capture_output=True, timeout=RUFF_TIMEOUT_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise LintError(f"ruff took over {RUFF_TIMEOUT_SECONDS:g} s for {len(paths)} files") from error
    if done.returncode != 0:
        raise LintError(f"ruff: {done.stderr.decode('utf-8', 'replace').strip()[:500]}")
    findings: list[dict[str, Any]] = json.loads(done.stdout or b"[]")
    return findings


def _in_tests() -> list[str]:
    patterns = ("**/tests/**", "**/test_*.py", "**/conftest.py")
    return [",".join(f"{pattern}:{rule}" for pattern in patterns for rule in IGNORED_IN_TESTS.split(","))]
