"""ruff on files that lead elsewhere, and what a command may see and write: in every sandbox that there is."""

import os
import sys
from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.settings import Settings
from hooks.actions.command import limits_of
from hooks.sandbox.launch import Sandbox, SandboxFailedError
from hooks.sandbox.probe import SandboxProbe, SandboxSetting
from hooks.sandbox.spec import Command, Ended, Limits
from tests.integration.hooks.actions.conftest import CANARY, OWNER, Bench, bubblewrap, sandbox_of

SHELL = Path("/bin/sh").resolve()
UNFORMATTED = "x  =  1\n"
FORMATTED = "x = 1\n"
LIMITS = Limits(10.0, 256 * 1024**2, 32, 1024**2, 1024**2, 4096, 65536)


@pytest.mark.parametrize("setting", ["auto", "bubblewrap", "off"])
async def test_the_file_that_a_task_wrote_is_formatted(setting: SandboxSetting, bench: Bench) -> None:
    """The flow of the specification: `ruff format {file}` after a task."""
    bench.setting = setting
    file = bench.write("src/made.py", UNFORMATTED)
    other = bench.write("src/other.py", UNFORMATTED)
    outcome = await bench.run("ruff format {file}", result={"file": "src/made.py"})
    if await sandbox_of(setting) is None:
        assert outcome.error_code == "CONFIGURATION"
        return
    assert (outcome.status, outcome.output) == ("completed", "1 file reformatted"), outcome
    assert file.read_text() == FORMATTED
    assert other.read_text() == UNFORMATTED
    outcome = await bench.run("ruff check --select F {file}", file=str(file))
    assert outcome.status == "completed", outcome
    outcome = await bench.run("ruff", "check", "src/none.py")
    assert (outcome.status, outcome.error_code) == ("failed", "EXIT_STATUS")


@pytest.mark.parametrize("setting", ["auto", "off"])
@pytest.mark.parametrize("command", ["ruff format", "ruff format .", "ruff format a", "ruff check --fix --select I"])
async def test_links_are_not_followed_out_of_the_directory(command: str, setting: SandboxSetting, bench: Bench) -> None:
    bench.setting = setting
    bench.write("a/inner.py", UNFORMATTED)
    (bench.work_dir / "a" / "link.py").symlink_to(bench.canary)
    (bench.work_dir / "a" / "up").symlink_to(bench.outside)
    outcome = await bench.run(command)
    if setting == "off":
        assert (outcome.error_code, outcome.refused) == ("PATH_OUTSIDE_WORK_DIRECTORY", True)
    assert bench.canary.read_text() == CANARY


@pytest.mark.parametrize("setting", ["auto", "off"])
@pytest.mark.parametrize(
    "text",
    [
        "extend = '{outside}/canary.py'",
        "cache-dir = '{outside}/cache'",
        "src = ['{outside}']",
        "include = ['{outside}/*.py']",
        "extend-include = ['../outside/*.py']",
        "[format]\ndocstring-code-format = true\nexclude = []",
    ],
)
async def test_a_configuration_of_the_directory_reaches_nothing_outside(
    text: str, setting: SandboxSetting, bench: Bench
) -> None:
    bench.setting = setting
    bench.write("ruff.toml", text.replace("{outside}", str(bench.outside)))
    bench.write("made.py", UNFORMATTED)
    outcome = await bench.run("ruff format")
    assert "untouched" not in outcome.output
    sandbox = await sandbox_of(setting)
    if sandbox is not None and not sandbox.isolates:
        # Without a sandbox the configuration is not read at all.
        assert (bench.work_dir / "made.py").read_text() == FORMATTED


@pytest.mark.parametrize("name", ["-x.py", "--config=x.py", "@x.py", "a;b.py", "$(x).py", "a b.py", "-"])
async def test_names_that_look_like_something_else_are_only_names(name: str, bench: Bench) -> None:
    file = bench.write(name, UNFORMATTED)
    outcome = await bench.run("ruff format")
    assert outcome.status == "completed", outcome
    assert file.read_text() == (FORMATTED if name.endswith(".py") else UNFORMATTED)


async def test_a_pipe_in_the_directory_does_not_hold_a_command_for_ever(bench: Bench) -> None:
    os.mkfifo(bench.work_dir / "pipe.py")
    outcome = await bench.run("ruff", "check", "pipe.py", timeout_seconds=1.0)
    assert outcome.status in ("timeout", "failed", "completed")


async def test_a_test_gets_the_secrets_that_are_named_and_shows_none(bench: Bench) -> None:
    bench.secrets = {
        "ORCHESTRATOR_HOOK_SECRET_DEFAULT__API_KEY": "s3cret-value",
        "ORCHESTRATOR_HOOK_SECRET_DEFAULT__OTHER": "other-value",
    }
    bench.settings = {"hooks_unsandboxed_code": True}
    bench.write(
        "test_secret.py",
        "import base64, os, urllib.parse\n\n"
        "def test_secret():\n"
        "    value = os.environ['API_TOKEN']\n"
        "    assert sorted(value)[0] == '-' and len(value) == 12\n"
        "    assert 'other-value' not in str(os.environ)\n"
        "    print(value, value[:6] + value[6:], base64.b64encode(b'x' + value.encode()), repr([value]))\n"
        "    print(urllib.parse.quote(value), value.encode().hex())\n",
    )
    outcome = await bench.run("pytest -q -s", secrets={"API_TOKEN": "api-key"})
    assert outcome.status == "completed", outcome
    assert "[secret:api-key]" in outcome.output
    for form in ("s3cret", "czNjcmV0", "M2NyZXQtdmFsd", "7333637265742d76616c7565"):
        assert form not in outcome.model_dump_json()


@pytest.mark.parametrize("setting", ["namespaces", "bubblewrap"])
async def test_a_sandbox_shows_a_command_nothing_but_what_it_needs(setting: SandboxSetting, bench: Bench) -> None:
    sandbox = await sandbox_of(setting)
    if sandbox is None:
        bench.setting = setting
        assert (await bench.run("ruff check")).error_code == "CONFIGURATION"
        return
    script = (
        "ls -A / /etc /home 2>/dev/null; id -u; pwd; echo made > made; touch /usr/x /etc/x /x 2>/dev/null; "
        "echo in > /tmp/x && cat /tmp/x; cat .masked; cat /proc/net/dev | wc -l; echo $HOME"
    )
    bench.write(".masked", "the file's own\n")
    ended = await sandbox.run(
        Command(
            program=SHELL,
            argv=("sh", "-c", script),
            environment={"PATH": "/usr/bin:/bin", "HOME": "/tmp/home"},
            work_dir=bench.work_dir,
            limits=LIMITS,
            masks={".masked": b"laid over\n"},
        )
    )
    output = ended.stdout.decode()
    assert ended.exit_code == 0, ended
    assert "shadow" not in output
    assert "/hookwork\n" in output
    assert "in\nlaid over\n3\n/tmp/home\n" in output
    assert (bench.work_dir / "made").read_text() == "made\n"
    assert (bench.work_dir / ".masked").read_text() == "the file's own\n"


@pytest.mark.parametrize(("owner", "expected"), [(OWNER, OWNER), (0, 65534)])
async def test_without_a_sandbox_an_engine_of_roots_runs_nothing_as_root(
    owner: int, expected: int, bench: Bench
) -> None:
    if os.geteuid() != 0:
        owner = expected = os.geteuid()
    os.chown(bench.work_dir, owner, owner if os.geteuid() == 0 else -1)
    secret = bench.write("secret", "of root alone\n")
    secret.chmod(0o600 if os.geteuid() == 0 else 0)
    script = "id -ru; id -u; id -G; grep CapEff /proc/self/status; cat secret; echo x > $TMPDIR/x && cat $TMPDIR/x"
    environment = {"PATH": "/usr/bin:/bin"}
    command = Command(SHELL, ("sh", "-c", script), environment, bench.work_dir, LIMITS)
    ended = await Sandbox("limits").run(command)
    lines = ended.stdout.decode().splitlines()
    assert lines[:2] == [str(expected), str(expected)], ended
    assert os.geteuid() != 0 or lines[2] == str(expected)
    assert lines[3:] == ["CapEff:\t0000000000000000", "x"]
    assert b"Permission denied" in ended.stderr


async def test_an_engine_of_roots_does_not_use_bubblewrap(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    stub = bench.write("bwrap", "#!/bin/sh\ntouch pwned\n")
    stub.chmod(0o755)
    with pytest.raises(ConfigurationError, match="would run as root"):
        await SandboxProbe("bubblewrap", bubblewrap=stub).sandbox()


async def test_the_answer_of_the_probe_is_kept_and_none_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = SandboxProbe("auto", bubblewrap=bubblewrap())
    assert await probe.sandbox() is await probe.sandbox()
    failing = True
    run = Sandbox.run

    async def fails(self: Sandbox, command: Command) -> Ended:
        if failing:
            raise SandboxFailedError("not here")
        return await run(self, command)

    monkeypatch.setattr(Sandbox, "run", fails)
    later = SandboxProbe("auto")
    assert (await later.sandbox()).mode == "limits"
    failing = False
    assert (await later.sandbox()).mode == "limits"
    monkeypatch.setattr("hooks.sandbox.probe.NONE_REMEMBERED_SECONDS", -1.0)
    asked = SandboxProbe("auto")
    failing = True
    assert (await asked.sandbox()).mode == "limits"
    failing = False
    assert (await asked.sandbox()).mode == (await probe.sandbox()).mode


async def test_a_busy_machine_does_not_pass_for_one_without_a_sandbox(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def too_slow(self: Sandbox, command: Command) -> Ended:
        return Ended(None, "time", b"", b"", False, 10_000)

    monkeypatch.setattr(Sandbox, "run", too_slow)
    outcome = await bench.run("ruff format")
    assert (outcome.status, outcome.error_code, outcome.retryable) == ("failed", "SANDBOX_FAILED", True)


async def test_a_sandbox_that_shows_what_is_outside_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def open_to_all(self: Sandbox, command: Command) -> Ended:
        return Ended(1, None, b"", b"", False, 1)

    monkeypatch.setattr(Sandbox, "run", open_to_all)
    assert not (await SandboxProbe("auto").sandbox()).isolates
    with pytest.raises(ConfigurationError, match="the probe ended with 1"):
        await SandboxProbe("namespaces").sandbox()


async def test_a_sandbox_that_cannot_be_made_is_an_error_that_says_why(bench: Bench) -> None:
    command = Command(Path("/no/such/program"), ("x",), {}, bench.work_dir, LIMITS)
    sandbox = await SandboxProbe("auto").sandbox()
    with pytest.raises(SandboxFailedError, match="No such file"):
        await sandbox.run(command)
    broken = Sandbox("bubblewrap", Path("/no/such/bwrap"))
    with pytest.raises(SandboxFailedError, match="cannot be started"):
        await broken.run(command)
    with pytest.raises(SandboxFailedError, match="without a word"):
        await Sandbox("bubblewrap", Path("/bin/false")).run(command)


async def test_a_sandbox_whose_end_is_late_is_killed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The program inside obeys when it is told to end; if it did not, its processes would be killed."""
    monkeypatch.setattr("hooks.sandbox.launch.GRACE_SECONDS", 0.2)
    stubborn = bench.write("bwrap", "#!/bin/sh\nexec sleep 600\n")
    stubborn.chmod(0o755)
    command = Command(Path("/bin/true"), ("true",), {}, bench.work_dir, Limits(0.3, 1, 1, 1, 1, 1, 1))
    ended = await Sandbox("bubblewrap", stubborn).run(command)
    assert (ended.exit_code, ended.reason) == (None, "time")


def test_limits_come_from_the_settings() -> None:
    settings = Settings(_env_file=None, hooks_memory_bytes_max=128 * 1024**2, hooks_processes_max=3)
    limits = limits_of(settings, 7.0)
    assert (limits.timeout_seconds, limits.memory_bytes_max, limits.processes_max) == (7.0, 128 * 1024**2, 3)


def test_the_program_inside_needs_no_packages() -> None:
    source = (Path(sys.modules["hooks.sandbox.launch"].__file__ or "").with_name("inside.py")).read_text()
    imported = {line.split()[1] for line in source.splitlines() if line.startswith(("import ", "from "))}
    assert {name.split(".")[0] for name in imported} <= sys.stdlib_module_names


async def test_a_link_that_takes_a_files_place_after_the_look_leads_nowhere(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is looked at may be something else when it runs: the sandbox does not depend on the look."""
    file = bench.write("made.py", UNFORMATTED)
    sandbox = await sandbox_of("auto")
    run = Sandbox.run

    async def swapped(self: Sandbox, command: Command) -> Ended:
        if command.program.name == "ruff":
            file.unlink()
            file.symlink_to(bench.canary)
        return await run(self, command)

    if sandbox is None or not sandbox.isolates:
        return  # without a sandbox there is this gap, which the documentation names
    monkeypatch.setattr(Sandbox, "run", swapped)
    outcome = await bench.run("ruff format made.py")
    assert "untouched" not in outcome.output
    assert bench.canary.read_text() == CANARY
