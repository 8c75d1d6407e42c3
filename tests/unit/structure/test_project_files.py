import re
import subprocess
import tomllib
from pathlib import Path

import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import AliasChoices

from engine.settings import Settings

ROOT = Path(__file__).resolve().parents[3]
LOCK = (ROOT / "requirements.lock").read_text()
TARGETS = ("setup", "demo", "test", "soak", "up", "check", "bench")


def test_every_dependency_is_locked_with_hashes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [Requirement(text) for text in (*project["dependencies"], *extras["embedded"], *extras["dev"])]
    sdk = tomllib.loads((ROOT / "sdk" / "pyproject.toml").read_text())["project"]
    wanted += [Requirement(text) for text in sdk["dependencies"]]
    locked: dict[str, set[str]] = {}
    for name, version in re.findall(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)", LOCK, re.MULTILINE):
        locked.setdefault(canonicalize_name(name), set()).add(version)
    missing = [
        str(each)
        for each in wanted
        if each.name != "orchestration-agent"
        and not any(each.specifier.contains(version) for version in locked.get(canonicalize_name(each.name), ()))
    ]
    assert missing == [], "run `make lock`"
    entries = re.findall(r"^[a-zA-Z0-9][^\n]*==[^\n]*\n(?:    --hash[^\n]*\n)+", LOCK, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^[A-Za-z0-9._-]+==", LOCK, re.MULTILINE))


def test_the_lock_names_no_address_and_no_path() -> None:
    assert "://" not in LOCK
    assert not re.search(r"^(-e|\.|/|file:)", LOCK, re.MULTILINE)


def test_make_has_the_targets_that_people_use() -> None:
    for target in TARGETS:
        result = subprocess.run(
            ["make", "--dry-run", "--assume-old", ".venv/.ready", target],
            cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr


def test_ci_runs_what_people_run() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    commands = [step["run"] for step in workflow["jobs"]["test"]["steps"] if "run" in step]
    assert commands == ["make check", "make test"]
    script = (ROOT / ".ci" / "run").read_text()
    assert script.startswith("#!/usr/bin/env bash")
    assert [line for line in script.splitlines() if line.startswith("make ")] == commands


def test_containers_have_no_more_rights_than_they_need() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        assert "privileged" not in service, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        for port in service.get("ports", []):
            assert str(port).startswith("127.0.0.1:"), f"{name} would be open to the network"
    last_user = re.findall(r"^USER (.+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)[-1]
    assert last_user.split(":")[0] not in ("root", "0")


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    undocumented = []
    for name, field in Settings.model_fields.items():
        alias = field.validation_alias
        variable = str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"ORCHESTRATOR_{name.upper()}"
        if f"`{variable}`" not in page:
            undocumented.append(variable)
    assert undocumented == []


def test_links_between_the_documents_lead_somewhere() -> None:
    broken = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")):
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", page.read_text()):
            if not (page.parent / target).exists():
                broken.append(f"{page.relative_to(ROOT)} -> {target}")
    assert broken == []
