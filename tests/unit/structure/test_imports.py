"""What import-linter cannot see: modules instead of packages, imports inside functions, what a workflow may call."""

import ast
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engine.installation import AGENT_PACKAGE, APPLICATION_PACKAGES

ROOT = Path(__file__).resolve().parents[3]
OURS = {*APPLICATION_PACKAGES, AGENT_PACKAGE}
FOUNDATIONS = {"starlette", "pydantic-core"}
"""What FastAPI and pydantic are made of, and pin."""

RUFF = Path(sys.executable).with_name("ruff")


def sources() -> Iterator[Path]:
    for name in APPLICATION_PACKAGES:
        yield from (ROOT / name).rglob("*.py")
    yield ROOT / "worker.py"
    yield from (ROOT / "sdk" / "src").rglob("*.py")


def imported(node: ast.AST) -> set[str]:
    """Top-level names that an import statement names."""
    if isinstance(node, ast.Import):
        return {alias.name.split(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
        return {node.module.split(".")[0]}
    return set()


def test_no_function_imports_what_is_ours() -> None:
    """A cycle hidden in a function is still a cycle."""
    found = [
        f"{path.relative_to(ROOT)}: {ast.unparse(node)}"
        for path in sources()
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for node in ast.walk(function)
        if imported(node) & OURS
    ]
    assert found == []


def test_the_worker_needs_neither_gateway_nor_command() -> None:
    tree = ast.parse((ROOT / "worker.py").read_text())
    names = set().union(*(imported(node) for node in ast.walk(tree)))
    assert names & OURS <= {"activities", "engine", "hooks", "planner", "workflows"}


@pytest.mark.parametrize(
    "code",
    [
        "import time\n\nprint(time.time())\n",
        "import random\n\nprint(random.random())\n",
        "import uuid\n\nprint(uuid.uuid4())\n",
        "from uuid import uuid4\n\nprint(uuid4())\n",
        "from datetime import UTC, datetime\n\nprint(datetime.now(UTC))\n",
        "import os\n\nprint(os.environ)\n",
    ],
)
def test_a_workflow_that_a_replay_could_not_repeat_is_refused(code: str) -> None:
    command = [str(RUFF), "check", "--select", "TID251", "--output-format", "concise", "--stdin-filename"]
    for file, allowed in (("workflows/kernel/sample.py", False), ("activities/sample.py", True)):
        result = subprocess.run(
            [*command, file, "-"], input=code, text=True, capture_output=True, cwd=ROOT, timeout=60, check=False
        )
        assert (result.returncode == 0) is allowed, result.stdout
        assert ("TID251" in result.stdout) is not allowed


def test_importing_a_module_starts_nothing() -> None:
    """No threads, no files, no connections: composition roots build, imports only define."""
    code = (
        "import sys, threading; import gateway, hooks, planner, activities;"
        "import engine.settings, engine.ports, engine.errors;"
        "print(threading.active_count())"
    )
    result = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (result.returncode, result.stdout) == (0, "1\n"), result.stderr


def opened(node: ast.AST) -> set[str]:
    """Packages whose data is read with importlib.resources: as good as an import."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "files":
        return {str(arg.value).split(".")[0] for arg in node.args if isinstance(arg, ast.Constant)}
    return set()


def declared(extras: tuple[str, ...] = ()) -> set[str]:
    """Distributions that pyproject.toml names."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(text).name) for text in texts}


def undeclared(paths: Iterable[Path], allowed: set[str]) -> list[str]:
    owners = metadata.packages_distributions()
    found = set()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            for name in (
                (imported(node) | opened(node)) - OURS - {"tests", "examples", "benchmarks"} - sys.stdlib_module_names
            ):
                distributions = {canonicalize_name(owner) for owner in owners.get(name, [name])}
                if not distributions & allowed:
                    found.add(f"{path.relative_to(ROOT)} imports {name}")
    return sorted(found)


def test_what_the_engine_imports_is_declared() -> None:
    """What another package happens to bring may be gone with its next release, and is missing in the image."""
    assert undeclared(sources(), declared() | FOUNDATIONS) == []


def test_what_the_tests_import_is_declared() -> None:
    every = declared(("embedded", "dev")) | FOUNDATIONS
    paths = [path for folder in ("tests", "examples", "benchmarks") for path in (ROOT / folder).rglob("*.py")]
    assert undeclared(paths, every) == []
