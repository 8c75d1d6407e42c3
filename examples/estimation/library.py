"""The standard library of the interpreter that runs this: what the swarm estimates, and how it really is."""

import random
import sysconfig
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Final

SAMPLE_FILES: Final = 40
LEFT_OUT: Final = frozenset({"site-packages", "__pycache__", "test", "tests", "idle_test"})


@cache
def files() -> tuple[Path, ...]:
    """The Python files, without tests and installed packages."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found = (path for path in root.rglob("*.py") if not LEFT_OUT & set(path.relative_to(root).parts))
    return tuple(sorted(found))


@cache
def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n")


def part_of(path: Path) -> str:
    """The package that a file belongs to; `modules` for those that belong to none."""
    parts = path.relative_to(Path(sysconfig.get_paths()["stdlib"])).parts
    return parts[0] if len(parts) > 1 else "modules"


def sample(seed: str) -> list[Path]:
    """The files that one member looks at: few, and others than the others' ones."""
    return random.Random(seed).sample(files(), min(SAMPLE_FILES, len(files())))  # noqa: S311 - not a secret


def estimated_lines(seed: str) -> int:
    """From a sample: the average file's lines, times the number of files."""
    looked_at = sample(seed)
    return round(sum(map(lines_of, looked_at)) / len(looked_at) * len(files()))


def largest_parts(seed: str, parts: list[str]) -> list[str]:
    """The packages by their lines in a sample, those that it missed left out."""
    lines: Counter[str] = Counter()
    for path in sample(seed):
        lines[part_of(path)] += lines_of(path)
    return sorted((part for part in parts if lines[part]), key=lambda part: (-lines[part], part))


def true_lines() -> int:
    return sum(map(lines_of, files()))


def true_parts(parts: list[str]) -> list[str]:
    lines: Counter[str] = Counter()
    for path in files():
        lines[part_of(path)] += lines_of(path)
    return sorted(parts, key=lambda part: -lines[part])
