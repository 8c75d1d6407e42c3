"""What the catalogue may say about pods: what is wrong or not allowed is refused with the field's name and a remedy."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from engine.agents.catalogue import hosts_started_here, load_catalogue, runs_in_pods
from engine.contracts.catalogue import AgentType
from engine.contracts.pods import Image, PodSettings
from engine.errors import ConfigurationError


def problem_of(directory: Path, **fields: Any) -> str:
    file = directory / "catalogue.yaml"
    file.write_text(yaml.safe_dump({"agents": {"coder": {"entry": "python:m:f", **fields}}}))
    with pytest.raises(ConfigurationError) as raised:
        load_catalogue(file)
    return raised.value.message


@pytest.mark.parametrize(
    "template",
    [
        {"privileged": True},
        {"securityContext": {"privileged": True}},
        {"hostNetwork": True},
        {"hostPID": True},
        {"hostIPC": True},
        {"host_path": "/etc"},
        {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]},
        {"capabilities": {"add": ["SYS_ADMIN"]}},
        {"serviceAccountName": "admin"},
        {"automountServiceAccountToken": True},
        {"initContainers": [{"image": "x"}]},
        {"spec": {"hostNetwork": True}},
        {"hostPorts": [80]},
        {"nodeName": "master"},
        {"allow_privilege_escalation": True},
        {"runAsUser": 0},
        {"env": [{"name": "A"}]},
        {"tolerations": [{"key": "a", "hostPath": "/"}]},
    ],
)
def test_what_a_pod_template_would_say_is_refused_by_name(template: dict[str, Any], tmp_path: Path) -> None:
    message = problem_of(tmp_path, kubernetes=template)
    assert "agents.coder.kubernetes" in message
    name = next(iter(template))
    assert name in message
    assert "cannot be set" in message
    assert "remove it" in message


@pytest.mark.parametrize(
    "image",
    [
        "", "a b", "a;rm -rf /", "$(reboot)", "`reboot`", "a\n", "a\nb", "a|b", "a&&b", "-a", "--privileged", "A/B",
        "a:", "a:b:c", "a@sha256:12", "a" * 600, "../a", "http://a/b", "a\0b", "a'b", 'a"b', "ä", "a//b", "a/",
    ],
)  # fmt: skip
def test_an_image_that_is_none_is_refused(image: str, tmp_path: Path) -> None:
    message = problem_of(tmp_path, image=image)
    assert "agents.coder.image" in message
    assert "registry/name:tag" in message


@pytest.mark.parametrize(
    "image",
    ["a", "a:1", "library/python:3.11-slim", "localhost:5000/a_b/c.d:v1", "r.example/a@sha256:" + "f" * 64, "a__b"],
)
def test_an_image_is_taken_as_it_stands(image: str) -> None:
    assert AgentType(entry="python:m:f", image=image).image == image


@given(st.text(max_size=100))
def test_no_image_holds_what_a_shell_would_read(text: str) -> None:
    try:
        TypeAdapter(Image).validate_python(text)
    except ValidationError:
        return
    assert not set(text) & set(" \t\r\n;&|$`'\"\\<>(){}*?!#~\0")


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"cpu": "-1"}, "cpu"),
        ({"cpu": "0"}, "cpu"),
        ({"cpu": "many"}, "cpu"),
        ({"cpu": "1000000000"}, "cpu"),
        ({"cpu": "1e30"}, "cpu"),
        ({"memory": "-4GB"}, "memory"),
        ({"memory": "4 elephants"}, "memory"),
        ({"memory": "9999999P"}, "memory"),
        ({"tmp_bytes": -1}, "tmp_bytes"),
        ({"node_selector": {"a" * 64: "b"}}, "node_selector"),
        ({"node_selector": {"a": "b" * 64}}, "node_selector"),
        ({"node_selector": {"a": "b c"}}, "node_selector"),
        ({"nodes": [{"key": "zone"}]}, "nodes.0"),
        ({"nodes": [{"key": "zone", "operator": "Exists", "values": ["a"]}]}, "nodes.0"),
        ({"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}, "tolerations.0"),
        ({"tolerations": [{"key": "a", "toleration_seconds": 5}]}, "tolerations.0"),
        ({"topology": "not a key"}, "topology"),
        ({"placement": "anywhere"}, "placement"),
        ({"priority_class": "High!"}, "priority_class"),
        ({"grace_seconds": -1}, "grace_seconds"),
        ({"image_pull_policy": "Sometimes"}, "image_pull_policy"),
        ({"command": []}, "command"),
        ({"command": ["a\0b"]}, "command.0"),
        ({"secrets": {"1A": {"secret": "s", "key": "k"}}}, "secrets"),
        ({"secrets": {"ORCHESTRATION_AGENT_TENANT": {"secret": "s", "key": "k"}}}, "secrets"),
        ({"secrets": {"A": {"secret": "S!", "key": "k"}}}, "secrets.A.secret"),
        ({"secrets": {"A": {"secret": "s", "key": "../k"}}}, "secrets.A.key"),
        ({"secrets": {"A": "in clear"}}, "secrets.A"),
        ({"egress": [{"network": "everywhere"}]}, "egress.0.network"),
        ({"egress": [{"network": "10.1.2.3/8"}]}, "egress.0.network"),
        ({"egress": [{"network": "10.0.0.0/8", "ports": [0]}]}, "egress.0.ports"),
        ({"replicas": 3}, "replicas"),
    ],
)
def test_a_wrong_setting_is_refused_by_name(settings: dict[str, Any], field: str, tmp_path: Path) -> None:
    assert f"agents.coder.kubernetes.{field}" in problem_of(tmp_path, kubernetes=settings)


def test_a_secret_may_be_called_what_a_template_may_not_say() -> None:
    settings = PodSettings.model_validate({"secrets": {"PRIVILEGED": {"secret": "s", "key": "env"}}})
    assert settings.secrets["PRIVILEGED"].key == "env"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"entry": "container"}, "image"),
        ({"entry": "external", "image": "a"}, "image"),
        ({"entry": "container", "image": "a", "local_fallback": True}, "local_fallback"),
        ({"entry": "external", "local_fallback": True}, "local_fallback"),
    ],
)
def test_a_type_that_cannot_be_started_is_refused(fields: dict[str, Any], field: str, tmp_path: Path) -> None:
    assert field in problem_of(tmp_path, **fields)


def test_who_runs_where() -> None:
    container = AgentType(entry="container", image="a")
    assert runs_in_pods(container)
    assert not hosts_started_here(container)
    assert runs_in_pods(AgentType(entry="python:m:f"))
    assert not runs_in_pods(AgentType(entry="external"))
    assert not runs_in_pods(None)
