from pathlib import Path

import pytest

from engine.agents.catalogue import CapabilityChecker, check_capabilities, load_catalogue
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.definition import WorkflowDefinition
from engine.errors import CapabilitiesUnavailableError, ConfigurationError
from tests.unit.agents.fakes import FakeHosts, record


def definition(agent_type: str, *capabilities: str) -> WorkflowDefinition:
    return WorkflowDefinition.model_validate(
        {
            "name": "n", "version": "1", "orchestration_pattern": "supervisor",
            "agents": {"worker": {"type": agent_type, "capabilities": list(capabilities)}},
            "tasks": [{"id": "a", "agent": "worker"}],
            "coordination": {"type": "hybrid"},
        }
    )  # fmt: skip


def catalogue(**agents: AgentType) -> Catalogue:
    return Catalogue(agents={**load_catalogue(None).agents, **agents})


CODER = AgentType(entry="python:m:f", capabilities=("python", "git"))


def test_without_a_file_there_is_synthetic_only() -> None:
    assert list(load_catalogue(None).agents) == ["synthetic"]


def test_yaml_and_json_are_read_and_folders_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    yaml_file = tmp_path / "catalogue.yaml"
    yaml_file.write_text("agents:\n  coder: {entry: 'python:m:f', python_path: code, slots: 2}\n")
    json_file = tmp_path / "catalogue.json"
    json_file.write_text('{"agents": {"helper": {"entry": "external"}}}')
    coder = load_catalogue(yaml_file).agents["coder"]
    assert (coder.slots, coder.python_path) == (2, str((tmp_path / "code").resolve()))
    assert sorted(load_catalogue(json_file).agents) == ["helper", "synthetic"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("agents: {coder: {entry: 'rm -rf'}}", "agents.coder.entry"),
        ("agents: {coder: {entry: external, slots: 0}}", "agents.coder.slots"),
        ("agents: {coder: {entry: external, colour: red}}", "agents.coder.colour"),
        ("agents: {'a b': {entry: external}}", "agents.a b"),
        ("agents: {synthetic: {entry: external}}", "agents.synthetic"),
        ("agents: {coder: {entry: 'python:m:f', python_path: nowhere}}", "agents.coder.python_path"),
        ("agents: [", "neither YAML nor JSON"),
        ("- list", "mapping"),
        ("", "mapping"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "catalogue.yaml"
    file.write_text(text)
    with pytest.raises(ConfigurationError) as wrong:
        load_catalogue(file)
    assert named in wrong.value.message
    assert str(file) in wrong.value.message


def test_a_file_that_is_not_there_or_far_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_catalogue(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b" " * (1024 * 1024 + 1))
    with pytest.raises(ConfigurationError, match="larger"):
        load_catalogue(large)


def test_a_type_with_the_capabilities_passes() -> None:
    check_capabilities(catalogue(coder=CODER), [], definition("coder", "git"))
    check_capabilities(catalogue(), [], definition("synthetic", "anything"))


def test_an_unknown_type_names_the_role_the_type_and_what_is_known() -> None:
    with pytest.raises(CapabilitiesUnavailableError) as refused:
        check_capabilities(catalogue(coder=CODER), [record("h", types=("tester",))], definition("painter"))
    for part in ("agents.worker", "'painter'", "coder, synthetic, tester"):
        assert part in refused.value.message


def test_a_missing_capability_is_named() -> None:
    with pytest.raises(CapabilitiesUnavailableError, match="capabilities rust"):
        check_capabilities(catalogue(coder=CODER), [], definition("coder", "git", "rust"))


def test_capabilities_of_different_hosts_do_not_add_up() -> None:
    live = [record("h1", capabilities=("a",)), record("h2", capabilities=("b",))]
    check_capabilities(catalogue(), live, definition("coder", "b"))
    with pytest.raises(CapabilitiesUnavailableError, match="a, b"):
        check_capabilities(catalogue(), live, definition("coder", "a", "b"))


async def test_a_live_host_that_registered_itself_makes_its_type_known_to_its_tenant_only() -> None:
    hosts = FakeHosts()
    hosts.put("acme", record("h1"))
    checker = CapabilityChecker(catalogue(), hosts)
    await checker("acme", definition("coder", "anything"))
    with pytest.raises(CapabilitiesUnavailableError):
        await checker("other", definition("coder"))


async def test_hosts_are_not_asked_for_when_the_catalogue_knows_the_type() -> None:
    hosts = FakeHosts()
    await CapabilityChecker(catalogue(coder=CODER), hosts)("acme", definition("coder"))
    assert hosts.reads == 0
