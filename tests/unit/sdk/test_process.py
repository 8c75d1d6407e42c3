import os
import sys
from pathlib import Path

import pytest

from orchestration_agent import HostOptions, process, synthetic
from orchestration_agent.host import AgentHost, HostGivenUp


def test_functions_are_named_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "some_agents.py").write_text("async def work(task): ...\nnumber = 1\n")
    (tmp_path / "broken_agents.py").write_text("raise RuntimeError('no')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert process.load_function("python:some_agents:work").__name__ == "work"
    assert process.load_function("synthetic") is synthetic.run
    for entry in ("", "python:some_agents", "work", "python:some_agents:number", "python:some_agents:none",
                  "python:broken_agents:work", "python:no_such_module_here:work"):  # fmt: skip
        with pytest.raises(process.UsageError, match="entry"):
            process.load_function(entry)


@pytest.mark.parametrize("missing", ["REDIS_URL", "TENANT", "TYPES"])
def test_what_is_missing_is_named(missing: str) -> None:
    variables = {process.PREFIX + name: "x" for name in ("REDIS_URL", "TENANT", "TYPES")}
    del variables[process.PREFIX + missing]
    with pytest.raises(process.UsageError, match=missing):
        process.run_host(synthetic.run, environment=variables)


@pytest.mark.parametrize("setting", ["SLOTS", "GRACE_SECONDS", "HEARTBEAT_SECONDS"])
def test_a_number_that_is_none_is_refused(setting: str) -> None:
    variables = {process.PREFIX + name: "x" for name in ("REDIS_URL", "TENANT", "TYPES", setting)}
    with pytest.raises(process.UsageError, match="numbers"):
        process.run_host(synthetic.run, environment=variables)


def test_a_list_that_is_not_json_is_refused() -> None:
    with pytest.raises(process.UsageError, match="JSON"):
        process.run_host(synthetic.run, redis_url="x", tenant="t", environment={process.PREFIX + "TYPES": "[a"})


@pytest.mark.parametrize(("text", "dedicated_to"), [("", None), ("/", ("", "")), ("e-1/worker-1", ("e-1", "worker-1"))])
def test_a_host_may_be_dedicated_to_one_agent(
    text: str, dedicated_to: tuple[str, str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[HostOptions] = []

    async def serve(host: AgentHost) -> None:
        seen.append(host.options)

    monkeypatch.setattr(process, "_serve", serve)
    variables = {process.PREFIX + "DEDICATED_TO": text}
    process.run_host(synthetic.run, redis_url="redis://h", tenant="t", types=["a"], environment=variables)
    assert seen[0].dedicated_to == dedicated_to


def test_arguments_come_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[HostOptions] = []

    async def serve(host: AgentHost) -> None:
        seen.append(host.options)

    monkeypatch.setattr(process, "_serve", serve)
    variables = {
        process.PREFIX + "TENANT": "other",
        process.PREFIX + "SLOTS": "3",
        process.PREFIX + "CAPABILITIES": "*",
    }
    process.run_host(synthetic.run, redis_url="redis://h", tenant="t", types=["a,b"], environment=variables)
    process.run_host(
        synthetic.run, redis_url="redis://h", tenant="t", types=("a",), capabilities=["x", "y"], slots=5, environment={}
    )
    first, second = seen
    assert (first.tenant, first.types, first.slots, first.capabilities) == ("t", ("a,b",), 3, "*")
    assert (second.capabilities, second.slots) == (("x", "y"), 5)


def test_the_command_says_what_is_wrong_and_does_not_pass_the_address_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delenv(process.REDIS_URL_VARIABLE, raising=False)
    assert process.main(["--entry", "synthetic"]) == process.EXIT_USAGE
    assert "REDIS_URL" in caplog.text

    async def serve(host: AgentHost) -> None:
        assert process.REDIS_URL_VARIABLE not in os.environ

    monkeypatch.setattr(process, "_serve", serve)
    monkeypatch.setenv(process.REDIS_URL_VARIABLE, "redis://h")
    arguments = ["--entry", "synthetic", "--tenant", "t", "--types", "a", "--python-path", str(tmp_path)]
    assert process.main(arguments) == 0
    assert sys.path[0] == str(tmp_path)


def test_a_host_that_was_given_up_says_so_by_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(host: AgentHost) -> None:
        raise HostGivenUp("silent for too long")

    monkeypatch.setattr(process, "_serve", serve)
    monkeypatch.setenv(process.REDIS_URL_VARIABLE, "redis://h")
    assert process.main(["--entry", "synthetic", "--tenant", "t", "--types", "a"]) == process.EXIT_GIVEN_UP


def test_without_uvloop_the_standard_loop_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert process._loop_factory() is None


def test_a_host_whose_parent_is_gone_does_not_start() -> None:
    with pytest.raises(process.UsageError, match="parent"):
        process.end_with_parent({process.PARENT_VARIABLE: "1234567"})
    process.end_with_parent({})


@pytest.mark.parametrize("wrong", [{"types": ()}, {"tenant": ""}, {"slots": 0}])
def test_a_host_needs_a_tenant_a_type_and_a_slot(wrong: dict[str, object]) -> None:
    options = HostOptions(**{"redis_url": "redis://h", "tenant": "t", "types": ("a",), **wrong})  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ValueError, match="a host needs"):
        AgentHost(synthetic.run, options)
