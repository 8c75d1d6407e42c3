"""Which example `make demo PATTERN=...` runs."""

import importlib.util
import sys
from collections.abc import Sequence

import pytest

from cli.outcome import ExitCode
from engine.contracts.definition import Pattern
from examples.__main__ import main
from examples.registry import EXAMPLES, Example, find_example


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.module)
def test_what_is_registered_is_there_and_belongs_to_a_pattern(example: Example) -> None:
    assert importlib.util.find_spec(f"examples.{example.module}.__main__") is not None
    assert example.pattern in set(Pattern)
    assert find_example(example.module) == example


def test_a_pattern_without_an_example_is_refused_with_those_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["quantum"]) == ExitCode.USAGE
    assert "supervisor" in capsys.readouterr().err


def test_without_a_pattern_the_command_lists_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == ExitCode.USAGE
    assert main(["--help"]) == ExitCode.OK
    assert "supervisor" in capsys.readouterr().out


def test_the_examples_own_command_line_gets_what_follows() -> None:
    became: list[Sequence[str]] = []
    assert main(["supervisor", "--keep"], become=lambda _path, command: became.append(command)) == ExitCode.OK
    assert became == [[sys.executable, "-m", f"examples.{module_of('supervisor')}", "--keep"]]


def module_of(pattern: str) -> str:
    example = find_example(pattern)
    assert example is not None
    return example.module
