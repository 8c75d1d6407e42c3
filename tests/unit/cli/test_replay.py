import json
import os
from pathlib import Path

import pytest

from cli import replay
from cli.connection import ENGINE_FILE
from engine.errors import NotFoundError
from engine.settings import Settings
from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID
from workflows.replay import Replayed


class FakeTemporal:
    """Has these runs of one execution of the tenant `acme`."""

    def __init__(self, *runs: Replayed) -> None:
        self.runs = list(runs)
        self.addresses: list[tuple[str, str]] = []

    async def connect(self, settings: Settings, *stores: object) -> "FakeTemporal":
        self.addresses.append((settings.temporal_address, settings.temporal_namespace))
        return self

    async def replay(self, client: "FakeTemporal", tenant: str, execution_id: str) -> list[Replayed]:
        if (tenant, execution_id) != ("acme", EXECUTION_ID):
            raise NotFoundError("Temporal has no such execution")
        return client.runs


def run_of(failure: str | None) -> Replayed:
    return Replayed(workflow_id=f"acme/{EXECUTION_ID}", run_id="r1", events=12, failure=failure)


def use(temporal: FakeTemporal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replay, "connect", temporal.connect)
    monkeypatch.setattr(replay, "replay_execution", temporal.replay)


def test_a_history_that_replays_is_ok(orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    use(FakeTemporal(run_of(None)), monkeypatch)
    outcome = orchestrator("replay", EXECUTION_ID, "--tenant", "acme")
    assert (outcome.code, outcome.stdout) == (0, "run r1, 12 events: follows the history\n")


def test_a_history_that_does_not_replay_ends_with_1_and_the_reason(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FakeTemporal(run_of(None), run_of("nondeterminism")), monkeypatch)
    outcome = orchestrator("replay", EXECUTION_ID, "--tenant", "acme", "--json")
    assert outcome.code == 1
    assert outcome.document["ok"] is False
    assert [run["failure"] for run in outcome.document["runs"]] == [None, "nondeterminism"]
    assert "nondeterminism" in orchestrator("replay", EXECUTION_ID, "--tenant", "acme").stdout


def test_an_execution_of_another_tenant_is_not_found(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(FakeTemporal(run_of(None)), monkeypatch)
    assert orchestrator("replay", EXECUTION_ID).code == 3


def test_the_local_engines_temporal_is_asked(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    temporal = FakeTemporal(run_of(None))
    use(temporal, monkeypatch)
    engine = {"pid": os.getpid(), "temporal_address": "127.0.0.1:9", "temporal_namespace": "local"}
    (tmp_path / ENGINE_FILE).write_text(json.dumps(engine))
    orchestrator("replay", EXECUTION_ID, "--tenant", "acme", "--data-dir", str(tmp_path))
    assert temporal.addresses == [("127.0.0.1:9", "local")]
