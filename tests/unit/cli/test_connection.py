import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.connection import ENGINE_FILE, Connection, find_connection, read_engine_file, require_connection
from engine.errors import ConfigurationError, UnavailableError


def write_engine_file(data_dir: Path, **changes: object) -> None:
    document = {"url": "http://127.0.0.1:1/", "token": "local", "pid": os.getpid()} | changes
    (data_dir / ENGINE_FILE).write_text(json.dumps(document))


def test_options_come_before_the_engine_on_the_data_directory(tmp_path: Path) -> None:
    write_engine_file(tmp_path)
    assert find_connection("http://other:9/", "t", tmp_path) == Connection("http://other:9", "t")


def test_the_engine_on_the_data_directory_is_found(tmp_path: Path) -> None:
    write_engine_file(tmp_path)
    assert find_connection(None, None, tmp_path) == Connection("http://127.0.0.1:1", "local")


def test_another_token_may_be_used_with_the_local_engine(tmp_path: Path) -> None:
    write_engine_file(tmp_path)
    assert find_connection(None, "tenant-b", tmp_path) == Connection("http://127.0.0.1:1", "tenant-b")


def test_an_engine_that_ended_without_a_word_does_not_run(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    write_engine_file(tmp_path, pid=ended.pid)
    assert find_connection(None, None, tmp_path) is None


def test_a_process_of_another_user_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    write_engine_file(tmp_path)
    monkeypatch.setattr(os, "kill", refuse)
    assert read_engine_file(tmp_path) is not None


def test_without_any_engine_the_message_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="orchestrator up"):
        require_connection(None, None, tmp_path)


def test_an_address_without_a_token_or_a_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="--token"):
        find_connection("http://other:9", None, tmp_path)
    with pytest.raises(ConfigurationError, match="http://HOST:PORT"):
        find_connection("other:9", "t", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", '{"pid": "x"}'])
def test_a_broken_engine_file_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / ENGINE_FILE).write_text(content)
    with pytest.raises(ConfigurationError, match=ENGINE_FILE):
        read_engine_file(tmp_path)
