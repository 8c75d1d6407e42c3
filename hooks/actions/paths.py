"""Where paths lead: nothing that a command is given may leave its working directory, links included.

In a sandbox there is nothing outside to be reached. These checks answer with a reason before anything runs, and are
what there is where no sandbox can be had.
"""

import os
from pathlib import Path
from typing import Final

from hooks.actions.refusal import refused

LINKS_SEARCHED_MAX: Final = 20_000


def resolve_work_dir(work_dir: Path | None) -> Path:
    """The directory itself, without links on the way to it."""
    if work_dir is None:
        raise refused("WORK_DIRECTORY_INVALID", "work_dir", "is not given", "commands need a working directory")
    resolved = Path(os.path.realpath(work_dir))
    if not resolved.is_dir() or work_dir.is_symlink() or len(resolved.parts) < 3:
        raise refused("WORK_DIRECTORY_INVALID", "work_dir", "is not a directory of its own", "make the directory")
    return resolved


def relative_to_work_dir(value: str, work_dir: Path, given: Path, field: str) -> str:
    """An absolute path below the working directory, as a path from there. Others stay as they are."""
    if not value.startswith("/"):
        return value
    normal = os.path.normpath(value)
    for base in (work_dir, Path(os.path.abspath(given))):
        if normal == str(base):
            return "."
        if normal.startswith(f"{base}/"):
            return normal[len(str(base)) + 1 :]
    raise refused(
        "PATH_OUTSIDE_WORK_DIRECTORY", field, "leads out of the working directory", "give a path from that directory"
    )


def check_inside(path: str, work_dir: Path, field: str) -> None:
    """Raises when links on the way lead out, or into the repository's own files."""
    resolved = os.path.realpath(work_dir / path)
    inside = resolved == str(work_dir) or resolved.startswith(f"{work_dir}/")
    if not inside or ".git" in (part.lower() for part in resolved[len(str(work_dir)) :].split("/")):
        raise refused(
            "PATH_OUTSIDE_WORK_DIRECTORY", field, f"{path[:100]!r} leads elsewhere by a link", "remove the link"
        )


def refuse_links_outwards(work_dir: Path) -> None:
    """Without a sandbox a command that walks the directory would follow them."""
    seen = 0
    for directory, names, files in os.walk(work_dir, followlinks=False):
        for name in (*names, *files):
            seen += 1
            if seen > LINKS_SEARCHED_MAX:
                raise refused(
                    "SANDBOX_REQUIRED", "work_dir", "has too many files to look for links", "run it in a sandbox"
                )
            path = os.path.join(directory, name)
            if os.path.islink(path):
                check_inside(os.path.relpath(path, work_dir), work_dir, "work_dir")
