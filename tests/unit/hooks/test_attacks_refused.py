"""Attacks that never come to run: each is refused with a stable reason, and a canary stays as it was."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.contracts.hook_actions import HookAction
from engine.errors import InvalidHookActionError
from engine.settings import Settings
from hooks.actions.addresses import AddressPolicy, permitted_addresses, read_url
from hooks.actions.command import CommandRunner, check_command
from hooks.actions.context import HookContext
from hooks.actions.runner import HookActions
from hooks.sandbox.probe import SandboxProbe
from hooks.secrets import EnvironmentSecrets, SecretStore
from tests.unit.hooks.attacks import AT_REGISTRATION, AT_RUN, Attack, RunAttack

CANARY = "untouched\n"
KEY_OF_ANOTHER_TENANT = {"ORCHESTRATOR_HOOK_SECRET_OTHER__KEY": "s3cret-value"}


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "outside"
    directory.mkdir()
    (directory / "x.py").write_text(CANARY)
    yield directory
    assert [path.name for path in directory.iterdir()] == ["x.py"]
    assert (directory / "x.py").read_text() == CANARY


@pytest.fixture
def work_dir(tmp_path: Path, outside: Path) -> Path:
    directory = tmp_path / "work"
    directory.mkdir()
    (directory / "a.py").write_text("x = 1\n")
    (directory / "out.py").symlink_to(outside / "x.py")
    (directory / "up").symlink_to(outside)
    (directory / "etc").symlink_to("/etc")
    (tmp_path / "work-other").mkdir()
    return directory


@pytest.mark.parametrize(
    "attack",
    [
        pytest.param(attack, id=f"{group}: {attack.title}")
        for group, attacks in AT_REGISTRATION.items()
        for attack in attacks
    ],
)
def test_an_attack_is_refused_at_registration(attack: Attack) -> None:
    action = HookAction.model_construct(
        type="command", command=attack.command, function=None, args=list(attack.args), secrets=dict(attack.secrets)
    )
    with pytest.raises(InvalidHookActionError) as refused:
        check_command(action, Settings(_env_file=None))
    assert refused.value.data["reason"] == attack.reason
    assert refused.value.data["field"].startswith("action.")
    assert refused.value.data["remedy"]


def test_there_are_at_least_two_hundred_attacks() -> None:
    titles = [f"{group}: {attack.title}" for group, attacks in AT_REGISTRATION.items() for attack in attacks]
    assert len(titles) == len(set(titles))
    assert len(titles) + len(AT_RUN) + len(ADDRESSES) >= 250


def _context(work_dir: Path, values: dict[str, Any]) -> HookContext:
    if values.get("file") == "git/x":
        (work_dir / ".git").mkdir()
        (work_dir / "git").symlink_to(".git")
    filled = {
        name: value.replace("<work>", str(work_dir)) if isinstance(value, str) else value
        for name, value in ({"work_dir": "<work>"} | values).items()
    }
    return HookContext(tenant="default", trigger="post_task", subject="post_task x", **filled)


@pytest.mark.parametrize("attack", [pytest.param(attack, id=attack.title) for attack in AT_RUN])
@pytest.mark.parametrize("isolates", [True, False])
async def test_an_attack_by_an_events_values_is_refused_at_run(
    attack: RunAttack, isolates: bool, work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(_env_file=None, hooks_unsandboxed_code=True)
    probe = SandboxProbe("off")
    sandbox = await probe.sandbox()
    if isolates:
        monkeypatch.setattr(sandbox, "mode", "namespaces")
    runner = CommandRunner(settings, SecretStore([EnvironmentSecrets(KEY_OF_ANOTHER_TENANT)]), probe=probe)
    action = HookAction(type="command", command=attack.command)
    outcome = await runner.run(check_command(action, settings), _context(work_dir, attack.context), 5.0)
    assert outcome.status == "failed"
    assert outcome.refused
    assert not outcome.retryable
    assert outcome.output == ""
    assert outcome.error_code == attack.reason
    assert "s3cret-value" not in outcome.model_dump_json()


ADDRESSES = [
    "http://127.0.0.1/",
    "http://127.8.9.10:8080/",
    "http://0.0.0.0/",
    "http://10.0.0.1/",
    "http://172.16.0.1/",
    "http://172.31.255.255/",
    "http://192.168.1.1/",
    "http://100.64.0.1/",
    "http://100.100.100.200/latest/meta-data/",
    "http://169.254.169.254/latest/meta-data/",
    "http://169.254.170.2/v2/credentials",
    "http://168.63.129.16/",
    "http://192.0.0.192/opc/v1/",
    "http://192.0.2.1/",
    "http://198.18.0.1/",
    "http://198.51.100.1/",
    "http://203.0.113.1/",
    "http://192.88.99.1/",
    "http://224.0.0.1/",
    "http://240.0.0.1/",
    "http://255.255.255.255/",
    "http://[::]/",
    "http://[::1]/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[::127.0.0.1]/",
    "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:8.8.8.8]/",
    "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::169.254.169.254]/",
    "http://[64:ff9b:1::1]/",
    "http://[2002:7f00:1::]/",
    "http://[2001:0:7f00:1::]/",
    "http://[2001:db8::1]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[fc00::1]/",
    "http://[fd00:ec2::254]/latest/meta-data/",
    "http://[ff02::1]/",
    "http://[100::1]/",
]


async def nobody(host: str, port: int) -> Sequence[str]:
    raise AssertionError("an address is not resolved")


@pytest.mark.parametrize("url", ADDRESSES)
async def test_special_addresses_are_refused_in_every_form(url: str) -> None:
    with pytest.raises(InvalidHookActionError) as refused:
        await permitted_addresses(read_url(url, "url"), AddressPolicy(), nobody, "url")
    assert refused.value.data["reason"] == "ADDRESS_FORBIDDEN"


@pytest.mark.parametrize("address", [url[7:].split("/")[0].strip("[]") for url in ADDRESSES if ":8080" not in url])
async def test_names_that_lead_to_special_addresses_are_refused(address: str) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["93.184.215.14", address]

    with pytest.raises(InvalidHookActionError) as refused:
        await permitted_addresses(read_url("https://innocent.example/", "url"), AddressPolicy(), resolve, "url")
    assert refused.value.data["reason"] == "ADDRESS_FORBIDDEN"


@pytest.mark.parametrize(
    ("entries", "url", "permitted"),
    [
        (["127.0.0.1"], "http://127.0.0.1/", True),
        (["127.0.0.1"], "http://127.0.0.2/", False),
        (["10.1.0.0/16"], "http://10.1.2.3/", True),
        (["10.1.0.0/16"], "http://10.2.2.3/", False),
        (["fd00::/8"], "http://[fd00::1]/", True),
        (["[fd00::1]:80"], "http://[fd00::1]/", True),
        (["inside.example"], "http://inside.example:1234/", True),
        (["inside.example:80"], "http://inside.example/", True),
        (["inside.example:80"], "http://inside.example:81/", False),
        (["inside.example"], "http://sub.inside.example/", False),
        ([], "http://inside.example/", False),
        ([], "http://8.8.8.8/", True),
        ([], "http://[2606:4700::1111]/", True),
    ],
)
async def test_the_operator_lists_what_else_may_be_reached(entries: list[str], url: str, permitted: bool) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        return ["10.9.9.9"]

    policy = AddressPolicy.of(entries)
    if permitted:
        assert await permitted_addresses(read_url(url, "url"), policy, resolve, "url")
        return
    with pytest.raises(InvalidHookActionError) as refused:
        await permitted_addresses(read_url(url, "url"), policy, resolve, "url")
    assert refused.value.data["reason"] == "ADDRESS_FORBIDDEN"


@pytest.mark.parametrize(
    "answers", [[], ["not-an-address"], ["8.8.8.8", "fe80::1%0x"], OSError("none"), TimeoutError()]
)
async def test_a_name_without_usable_addresses_is_refused(answers: list[str] | Exception) -> None:
    async def resolve(host: str, port: int) -> Sequence[str]:
        if isinstance(answers, Exception):
            raise answers
        return answers

    with pytest.raises(InvalidHookActionError) as refused:
        await permitted_addresses(read_url("http://x.example/", "url"), AddressPolicy(), resolve, "url")
    assert refused.value.data["reason"] in ("ADDRESS_INVALID", "ADDRESS_FORBIDDEN")


async def test_a_refusal_by_the_one_door_is_an_outcome(work_dir: Path) -> None:
    actions = HookActions(Settings(_env_file=None, hooks_sandbox="off"))
    action = HookAction(type="command", command="sh -c 'touch x'")
    with pytest.raises(InvalidHookActionError):
        actions.check(action)
    outcome = await actions.run(action, _context(work_dir, {}), 5.0)
    assert (outcome.status, outcome.error_code, outcome.refused) == ("failed", "COMMAND_NOT_ALLOWED", True)
    await actions.close()


async def test_code_does_not_run_where_there_is_no_sandbox(work_dir: Path) -> None:
    settings = Settings(_env_file=None, hooks_sandbox="off")
    outcome = await HookActions(settings).run(HookAction(type="command", command="pytest"), _context(work_dir, {}), 5.0)
    assert (outcome.error_code, outcome.refused) == ("SANDBOX_REQUIRED", True)


async def test_what_is_not_on_the_operators_list_is_refused(work_dir: Path) -> None:
    settings = Settings(_env_file=None, hooks_commands=("ruff", "rm"))
    for command in ("git status", "rm -rf ."):
        with pytest.raises(InvalidHookActionError) as refused:
            check_command(HookAction(type="command", command=command), settings)
        assert refused.value.data["reason"] == "COMMAND_NOT_ALLOWED"
        assert refused.value.data["remedy"] == "allowed by name: ruff"


async def test_a_program_is_not_taken_from_the_working_directory_or_the_environment(
    work_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = work_dir / "ruff"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{work_dir}:{os.environ['PATH']}")
    monkeypatch.chdir(work_dir)
    settings = Settings(_env_file=None, hooks_command_path=(".", "bin"), hooks_sandbox="off")
    for name in ("out.py", "up", "etc"):
        (work_dir / name).unlink()
    outcome = await HookActions(settings).run(
        HookAction(type="command", command="ruff check"), _context(work_dir, {}), 5.0
    )
    assert (outcome.error_code, outcome.refused) == ("COMMAND_NOT_ALLOWED", True)
