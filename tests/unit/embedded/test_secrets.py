import stat
from pathlib import Path

from engine.embedded.server import kept_secret, write_secret


def test_a_password_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "password"
    first = kept_secret(path)
    assert len(first) >= 32
    assert kept_secret(path) == first
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_secret(tmp_path / "other") != first


def test_a_secret_is_replaced_whole_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "engine.json"
    path.write_text("old and readable by all")
    write_secret(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
