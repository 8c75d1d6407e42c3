from pathlib import Path

import pytest

from cli.configuration import load_settings
from cli.connection import TOKEN_KEY_FILE
from engine.embedded import engine as embedded
from engine.errors import ConfigurationError
from engine.security.keys import FixedKeys, create_key_file
from engine.security.principal import Principal
from engine.security.tokens import TokenVerifier
from tests.unit.cli.conftest import Orchestrator


async def verified(token: str, key_file: Path) -> Principal:
    return await TokenVerifier(FixedKeys.from_file(key_file), "orchestrator", "orchestrator").verify(token)


async def test_a_token_carries_tenant_roles_and_subject(orchestrator: Orchestrator, tmp_path: Path) -> None:
    key_file = tmp_path / TOKEN_KEY_FILE
    create_key_file(key_file)
    outcome = orchestrator(
        "token", "--tenant", "acme", "--role", "operator", "--role", "developer", "--subject", "ci",
        "--data-dir", str(tmp_path), "--json",
    )  # fmt: skip
    principal = await verified(outcome.document["token"], key_file)
    assert (principal.tenant, set(principal.roles), principal.subject) == ("acme", {"operator", "developer"}, "ci")
    plain = orchestrator("token", "--data-dir", str(tmp_path))
    assert (await verified(plain.stdout.strip(), key_file)).roles == ("viewer",)


async def test_a_key_file_may_be_named(
    orchestrator: Orchestrator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_key_file(tmp_path / "elsewhere.pem")
    monkeypatch.setenv("ORCHESTRATOR_TOKEN_KEY_FILE", str(tmp_path / "elsewhere.pem"))
    outcome = orchestrator("token", "--data-dir", str(tmp_path / "none"))
    assert (await verified(outcome.stdout.strip(), tmp_path / "elsewhere.pem")).tenant == "default"


def test_without_a_key_the_message_says_what_makes_one(orchestrator: Orchestrator, tmp_path: Path) -> None:
    outcome = orchestrator("token", "--data-dir", str(tmp_path))
    assert outcome.code == 2
    assert "orchestrator up" in outcome.stderr


async def test_a_key_is_made_when_asked_for_and_kept_afterwards(orchestrator: Orchestrator, tmp_path: Path) -> None:
    for _ in range(2):
        outcome = orchestrator("token", "--create-key", "--data-dir", str(tmp_path))
        key = (tmp_path / TOKEN_KEY_FILE).read_bytes()
        assert (await verified(outcome.stdout.strip(), tmp_path / TOKEN_KEY_FILE)).tenant == "default"
        assert key == (tmp_path / TOKEN_KEY_FILE).read_bytes()


def test_an_unknown_role_is_refused_with_those_that_there_are(orchestrator: Orchestrator, tmp_path: Path) -> None:
    create_key_file(tmp_path / TOKEN_KEY_FILE)
    outcome = orchestrator("token", "--role", "root", "--data-dir", str(tmp_path))
    assert outcome.code == 2
    assert "admin" in outcome.stderr


def test_the_embedded_engine_and_the_command_mean_the_same_key() -> None:
    assert embedded.TOKEN_KEY_FILE == TOKEN_KEY_FILE


class TestSettings:
    def test_options_come_before_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("ORCHESTRATOR_PORT", "1")
        assert load_settings(port=2, host=None).port == 2
        assert load_settings(port=None).port == 1

    @pytest.mark.parametrize("variable", ["ORCHESTRATOR_PORT", "ORCHESTRATOR_EVENT_PARTITIONS"])
    def test_a_wrong_value_names_its_variable(self, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
        monkeypatch.setenv(variable, "many")
        with pytest.raises(ConfigurationError, match=variable):
            load_settings()
