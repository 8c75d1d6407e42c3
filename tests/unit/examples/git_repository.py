"""Small git repositories for the code review's tests."""

import os
import subprocess
from pathlib import Path

IDENTITY = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")


def git(folder: Path, *arguments: str) -> str:
    # Nothing of the machine's own configuration, and of a hook that runs the tests, must matter.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    environment |= {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null"}
    return subprocess.run(
        ["git", "-C", str(folder), *IDENTITY, *arguments], env=environment, capture_output=True, text=True, check=True
    ).stdout


def new_repository(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    git(folder, "init", "--quiet", "--initial-branch", "main")
    return folder


def commit(folder: Path, **files: str) -> None:
    """Files by name, with __ for / and _py for .py: `commit(folder, pkg__a_py="x = 1")`."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/").removesuffix("_py") + (".py" if name.endswith("_py") else ""))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "change")
