import os
import subprocess
import sys
from types import ModuleType
from typing import NoReturn

import pytest

import cli.app
from cli.app import COMMANDS, main
from cli.outcome import ExitCode, exit_code_of
from engine.errors import (
    AlreadyExecutingError,
    CheckpointNotFoundError,
    ConfigurationError,
    EngineError,
    ForbiddenError,
    InvalidDefinitionError,
    InvalidParametersError,
    NotFoundError,
    TooManyRequestsError,
    UnavailableError,
)
from tests.unit.cli.conftest import Orchestrator

HEAVY = ("asyncpg", "fastapi", "httpx", "networkx", "redis", "temporalio", "websockets")


def python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_explains_itself(name: str, orchestrator: Orchestrator) -> None:
    outcome = orchestrator(name, "--help")
    assert outcome.code == 0
    assert f"Usage: orchestrator {name}" in outcome.stdout


@pytest.mark.parametrize("name", [name for name, command in COMMANDS.items() if not command.group])
def test_each_command_offers_json(name: str, orchestrator: Orchestrator) -> None:
    assert "--json" in orchestrator(name, "--help").stdout


@pytest.mark.parametrize("name", ["list", "show", "replay", "purge"])
def test_each_command_about_dead_letters_offers_json(name: str, orchestrator: Orchestrator) -> None:
    assert "--json" in orchestrator("dlq", name, "--help").stdout


def test_help_lists_the_commands_and_loads_nothing_heavy() -> None:
    result = python(
        "import sys; from cli.app import run; code = run(['--help']);"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr); sys.exit(code)"
    )
    assert result.returncode == 0
    assert all(name in result.stdout for name in COMMANDS)
    assert result.stderr == "[]\n"


def test_a_client_command_loads_no_database_driver() -> None:
    result = python(
        "import sys; from cli.app import run; run(['status', '--help']);"
        "print(sorted({'asyncpg', 'redis', 'temporalio', 'networkx'} & set(sys.modules)), file=sys.stderr)"
    )
    assert result.stderr == "[]\n"


def test_a_mistyped_command_gets_a_suggestion(orchestrator: Orchestrator) -> None:
    outcome = orchestrator("stauts")
    assert outcome.code == 2
    assert "Did you mean 'status'" in outcome.stderr
    assert "see: orchestrator --help" in outcome.stderr


def test_a_usage_error_is_a_document_too(orchestrator: Orchestrator) -> None:
    outcome = orchestrator("status", "--json")
    assert outcome.code == 2
    assert outcome.document["error"]["code"] == "USAGE"


def test_the_version_is_that_of_the_distribution(orchestrator: Orchestrator) -> None:
    outcome = orchestrator("--version")
    assert outcome.code == 0
    assert outcome.stdout.startswith("orchestrator 0.")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFoundError("x"), ExitCode.NOT_FOUND),
        (CheckpointNotFoundError("x"), ExitCode.NOT_FOUND),
        (InvalidDefinitionError("x"), ExitCode.FAILED),
        (InvalidParametersError("x"), ExitCode.USAGE),
        (ConfigurationError("x"), ExitCode.USAGE),
        (UnavailableError("x"), ExitCode.UNAVAILABLE),
        (TooManyRequestsError("x"), ExitCode.UNAVAILABLE),
        (ForbiddenError("x"), ExitCode.REFUSED),
        (AlreadyExecutingError("x"), ExitCode.REFUSED),
        (EngineError("x"), ExitCode.INTERNAL),
    ],
)
def test_each_error_has_its_exit_code(error: EngineError, code: ExitCode) -> None:
    assert exit_code_of(error) is code


class TestEnds:
    """How the process ends when a command raises."""

    @pytest.fixture(autouse=True)
    def _no_clash(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(cli.app, "check_packages", lambda: None)

    def raising(self, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
        def fail() -> None:
            raise error

        monkeypatch.setattr(cli.app, "check_packages", fail)

    def test_a_defect_is_one_line_and_a_code_of_its_own(
        self, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raising(monkeypatch, ZeroDivisionError("oops"))
        outcome = orchestrator("list", "--json")
        assert outcome.code == 70
        assert "Traceback" not in outcome.stderr
        assert outcome.document["error"]["message"].startswith("defect: ZeroDivisionError: oops")

    def test_a_defect_is_shown_in_full_when_asked_for(
        self, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raising(monkeypatch, ZeroDivisionError("oops"))
        orchestrator("--version")
        monkeypatch.setenv("ORCHESTRATOR_DEBUG", "1")
        with pytest.raises(ZeroDivisionError):
            orchestrator("list")

    def test_an_interrupt_ends_with_130(self, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
        self.raising(monkeypatch, KeyboardInterrupt())
        assert orchestrator("list").code == 130

    def test_a_shadowed_package_is_a_clear_message(
        self, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.raising(monkeypatch, ConfigurationError("package 'workflows' is imported from elsewhere"))
        outcome = orchestrator("list")
        assert outcome.code == 2
        assert "package 'workflows'" in outcome.stderr

    @pytest.mark.parametrize("temporal_is_loaded", [True, False])
    def test_main_ends_the_process_with_the_code(
        self, monkeypatch: pytest.MonkeyPatch, temporal_is_loaded: bool
    ) -> None:
        ended_at_once: list[int] = []

        def end(code: int) -> NoReturn:
            ended_at_once.append(code)
            raise SystemExit(code)

        monkeypatch.setattr(cli.app, "run", lambda _: 3)
        if temporal_is_loaded:
            monkeypatch.setitem(sys.modules, "temporalio", ModuleType("temporalio"))
        else:
            monkeypatch.delitem(sys.modules, "temporalio", raising=False)
        with pytest.raises(SystemExit) as ended:
            main([], end)
        assert ended.value.code == 3
        assert ended_at_once == ([3] if temporal_is_loaded else [])


def test_a_reader_that_goes_away_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "cli", "--version"]
    with os.fdopen(writing, "wb") as closed_pipe:
        result = subprocess.run(command, stdout=closed_pipe, stderr=subprocess.PIPE, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, b"")
