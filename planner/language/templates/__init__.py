"""Patterns to start from: whole registrations, to be used as they are or changed.

Each is a YAML file of this folder, under its own name.
"""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent


def template_names() -> tuple[str, ...]:
    return tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))


def template_text(name: str) -> str | None:
    """The file's text; None when there is none of that name."""
    return (FOLDER / f"{name}.yaml").read_text("utf-8") if name in template_names() else None
