"""`orchestrator patterns`: listing, showing, checking and registering."""

from pathlib import Path
from typing import Any

import yaml

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import FakeEngine, Refusal

At = tuple[str, ...]


def item(name: str, kind: str = "built-in") -> dict[str, Any]:
    return {"name": name, "version": "1.0.0", "type": kind, "description": f"{name} things"}


def test_patterns_are_listed_from_every_page(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    engine.pages["/api/v1/patterns"] = [{"items": [item("supervisor")]}, {"items": [item("mine", "custom")]}]
    outcome = orchestrator("patterns", "list", *at)
    assert outcome.code == 0
    assert ["mine", "1.0.0", "custom", "mine", "things"] in [line.split() for line in outcome.stdout.splitlines()]
    assert len(orchestrator("patterns", "list", *at, "--json").document["items"]) == 2


def test_a_pattern_is_shown_with_its_schema(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    engine.methods["pattern.get"] = lambda params: {**item(params["name"]), "config_schema": {"type": "object"}}
    assert orchestrator("patterns", "get", "saga", *at).document["config_schema"] == {"type": "object"}
    orchestrator("patterns", "get", "mine", "--version", "2", *at)
    assert engine.calls[-1] == ("pattern.get", {"name": "mine", "version": "2"})


def test_a_file_is_registered(orchestrator: Orchestrator, engine: FakeEngine, at: At, tmp_path: Path) -> None:
    engine.methods["pattern.register"] = lambda params: {"pattern_id": "id-1", "name": params["name"]}
    file = tmp_path / "mine.yaml"
    file.write_text(orchestrator("patterns", "templates", "debate").stdout)
    outcome = orchestrator("patterns", "register", str(file), *at)
    assert "debate is registered: id-1" in outcome.stdout
    assert engine.calls[-1][1]["coordination_logic"]["start"] == "rounds"
    assert orchestrator("patterns", "register", str(file), *at, "--json").document["pattern_id"] == "id-1"


def test_what_the_engine_refuses_is_shown_with_its_places(
    orchestrator: Orchestrator, engine: FakeEngine, at: At, tmp_path: Path
) -> None:
    problem = {"code": "UNKNOWN_STATE", "location": "coordination_logic.start", "message": "there is no state"}

    def refuse(code: int) -> Any:
        def answer(_params: dict[str, Any]) -> dict[str, Any]:
            raise Refusal(code, "refused", errors=[problem])

        return answer

    file = tmp_path / "mine.yaml"
    file.write_text("name: mine\n")
    for code, ends in ((-32010, 1), (-32009, 4)):
        engine.methods["pattern.register"] = refuse(code)
        outcome = orchestrator("patterns", "register", str(file), *at)
        assert outcome.code == ends
        assert "coordination_logic.start" in outcome.stderr


def test_a_file_is_checked_without_an_engine(orchestrator: Orchestrator, tmp_path: Path) -> None:
    document = orchestrator("patterns", "templates", "tournament", "--json").document
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(document))
    assert "tournament 1.0.0 is valid: 7 states" in orchestrator("patterns", "check", str(file)).stdout
    assert orchestrator("patterns", "check", str(file), "--json").document == {"valid": True, "states": 7}
    document["coordination_logic"]["start"] = "nowhere"
    file.write_text(yaml.safe_dump(document))
    outcome = orchestrator("patterns", "check", str(file))
    assert outcome.code == 1
    assert "coordination_logic.start" in outcome.stderr
    del document["version"]
    file.write_text(yaml.safe_dump(document))
    assert "version: is required" in orchestrator("patterns", "check", str(file)).stderr


def test_templates_are_listed_and_an_unknown_one_is_not_found(orchestrator: Orchestrator) -> None:
    listed = orchestrator("patterns", "templates")
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [
        "debate", "map-reduce", "review-loop", "tournament"
    ]  # fmt: skip
    assert len(orchestrator("patterns", "templates", "--json").document["items"]) == 4
    unknown = orchestrator("patterns", "templates", "quantum")
    assert unknown.code == 3
    assert "debate" in unknown.stderr
