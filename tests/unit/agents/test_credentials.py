import stat
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from engine.agents.credentials import agent_password, agent_url, load_agent_secret
from engine.errors import ConfigurationError
from engine.settings import Settings


def settings(tmp_path: Path, **given: Any) -> Settings:
    return Settings(data_dir=tmp_path / "data", _env_file=None, **given)


def test_the_secret_is_made_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    first = load_agent_secret(settings(tmp_path))
    assert load_agent_secret(settings(tmp_path)) == first
    file = tmp_path / "data" / "agent-secret"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert list(file.parent.iterdir()) == [file]


def test_a_secret_from_elsewhere_is_used(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"s" * 32)
    assert load_agent_secret(settings(tmp_path, agent_secret_file=file)) == b"s" * 32
    file.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="too short"):
        load_agent_secret(settings(tmp_path, agent_secret_file=file))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_agent_secret(settings(tmp_path, agent_secret_file=tmp_path))


def test_whoever_makes_the_secret_second_takes_the_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_agent_secret(settings(tmp_path))
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: False if self.name == "agent-secret" else exists(self))
    assert load_agent_secret(settings(tmp_path)) == first


def test_each_tenant_has_a_login_of_its_own() -> None:
    assert agent_password(b"s", "a") != agent_password(b"s", "b") != agent_password(b"t", "b")
    parts = urlsplit(agent_url("redis://:engine@h:1/2", b"s", "a"))
    assert (parts.username, parts.password, parts.hostname, parts.port, parts.path) == (
        "agent-a", agent_password(b"s", "a"), "h", 1, "/2",
    )  # fmt: skip
    assert "engine" not in agent_url("rediss://user:engine@h", b"s", "a")
