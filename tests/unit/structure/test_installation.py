import subprocess
import sys
import venv
from pathlib import Path

import pytest

from engine import installation
from engine.errors import ConfigurationError
from engine.installation import AGENT_PACKAGE, APPLICATION_PACKAGES, check_packages, locate_package

ROOT = Path(__file__).resolve().parents[3]


def check_with(path_first: Path) -> subprocess.CompletedProcess[str]:
    """The check in a process whose import path starts with another folder."""
    code = (
        f"import sys; import engine.installation as i; sys.path.insert(0, {str(path_first)!r});"
        "sys.modules.pop('workflows', None); i.check_packages()"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def add_package(folder: Path, name: str = "workflows") -> None:
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text("")


def test_each_of_our_packages_resolves_inside_our_own_tree() -> None:
    check_packages()
    for name in APPLICATION_PACKAGES:
        location = locate_package(name)
        assert location is not None
        assert location.parent == ROOT
    assert locate_package(AGENT_PACKAGE) == ROOT / "sdk" / "src" / AGENT_PACKAGE


def test_every_top_level_package_of_ours_is_checked() -> None:
    tops = {path.parent.name for path in ROOT.glob("*/__init__.py")} | {path.stem for path in ROOT.glob("*.py")}
    assert tops - {"tests", "examples", "benchmarks"} == set(APPLICATION_PACKAGES)


def test_a_folder_that_comes_first_is_named(tmp_path: Path) -> None:
    add_package(tmp_path)
    result = check_with(tmp_path)
    assert result.returncode != 0
    assert f"'workflows' is imported from {tmp_path / 'workflows'}" in result.stderr
    assert "a file or folder of that name comes first" in result.stderr


def test_the_distribution_that_shadows_a_package_is_named(tmp_path: Path) -> None:
    add_package(tmp_path)
    info = tmp_path / "llama_index_workflows-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llama-index-workflows\nVersion: 1.0\n")
    (info / "top_level.txt").write_text("workflows\n")
    result = check_with(tmp_path)
    assert "the distribution llama-index-workflows installs a package of the same name" in result.stderr


def test_a_namespace_package_in_the_way_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "only_a_folder").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert locate_package("only_a_folder") == tmp_path / "only_a_folder"


def test_a_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "APPLICATION_PACKAGES", ("engine", "no_such_package"))
    with pytest.raises(ConfigurationError, match="'no_such_package' is not importable"):
        check_packages()


def test_another_tree_than_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="'engine' is imported from"):
        check_packages(tmp_path)


def test_an_environment_without_the_engine_says_so(tmp_path: Path) -> None:
    # The module alone, as a distribution that lost its other packages would have it.
    venv.create(tmp_path / "venv", with_pip=False)
    for name in ("installation.py", "errors.py", "__init__.py"):
        (tmp_path / "engine").mkdir(exist_ok=True)
        (tmp_path / "engine" / name).write_bytes((ROOT / "engine" / name).read_bytes())
    result = subprocess.run(
        [tmp_path / "venv" / "bin" / "python", "-c", "import engine.installation as i; i.check_packages()"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
    )
    assert "package 'workflows' is not importable" in result.stderr
