"""Secret settings from files."""

from pathlib import Path

import pytest

from engine.errors import ConfigurationError
from engine.secret_files import BYTES_MAX
from engine.settings import Settings

ADDRESS = "redis://engine:hidden@127.0.0.1:6379/0"


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("DATABASE_URL", "database_url"),
        ("DATABASE_MAINTENANCE_URL", "database_maintenance_url"),
        ("DATABASE_OWNER_URL", "database_owner_url"),
        ("REDIS_URL", "redis_url"),
        ("ORCHESTRATOR_KUBERNETES_REDIS_URL", "kubernetes_redis_url"),
    ],
)
def test_a_secret_is_read_from_the_file_unless_it_is_given_itself(
    variable: str, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_text(f"{ADDRESS}\n")
    monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv(f"{variable}_FILE", str(tmp_path / "secret"))
    assert getattr(Settings(_env_file=None), field).get_secret_value() == ADDRESS
    monkeypatch.setenv(variable, "redis://other")
    assert getattr(Settings(_env_file=None), field).get_secret_value() == "redis://other"


@pytest.mark.parametrize("content", [None, b"", b" \n", b"\xff\xfe", b"x" * (BYTES_MAX + 1)])
def test_a_file_without_a_secret_is_refused_by_name(
    content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    monkeypatch.setenv("REDIS_URL_FILE", str(tmp_path / "secret"))
    with pytest.raises(ConfigurationError, match="REDIS_URL_FILE"):
        Settings(_env_file=None)


def test_what_is_no_secret_is_not_read_from_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "port").write_text("1")
    monkeypatch.setenv("ORCHESTRATOR_PORT_FILE", str(tmp_path / "port"))
    assert Settings(_env_file=None).port == 8002
