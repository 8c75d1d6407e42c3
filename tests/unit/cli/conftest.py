"""A fake engine, and the command run in this process."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from cli.app import run
from tests.unit.cli.fake_engine import TOKEN, FakeEngine, serving


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    stdout: str
    stderr: str

    @property
    def document(self) -> Any:
        """The one JSON document; more than one would not parse."""
        return orjson.loads(self.stdout)


Orchestrator = Callable[..., Outcome]


@pytest.fixture
def orchestrator(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Orchestrator:
    """Runs the command; its exit code and what it wrote."""
    for variable in ("ORCHESTRATOR_URL", "ORCHESTRATOR_TOKEN", "ORCHESTRATOR_DATA_DIR", "ORCHESTRATOR_DEBUG"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def invoke(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = run(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return invoke


@pytest.fixture
def engine() -> Iterator[FakeEngine]:
    with serving(FakeEngine()) as running:
        yield running


@pytest.fixture
def at(engine: FakeEngine) -> tuple[str, ...]:
    """Options that name the fake engine."""
    return ("--url", engine.url, "--token", TOKEN)
