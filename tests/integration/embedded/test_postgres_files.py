"""Where PostgreSQL's files lie, and what becomes of them."""

import os
import shutil
from pathlib import Path

import pytest

from engine.embedded.postgres import OTHER_USER_ID, PostgresServer
from engine.errors import ConfigurationError, UnavailableError
from tests.integration.embedded.processes import is_root
from tests.integration.embedded.test_servers import query

needs_root = pytest.mark.skipif(not is_root(), reason="only root runs PostgreSQL as another user")


def new_server(directory: Path, system_directory: Path) -> PostgresServer:
    return PostgresServer(directory, durable=False, system_directory=system_directory)


def location_noted_in(directory: Path) -> Path:
    return Path((directory / "location").read_text("utf-8").strip())


def owner_of(path: Path) -> int:
    return path.stat().st_uid


async def test_they_lie_in_the_data_directory_when_it_can_be_entered(open_directory: Path) -> None:
    server = new_server(open_directory / "postgres", open_directory / "system")
    await server.start()
    await server.stop()
    assert server.cluster_directory == open_directory / "postgres" / "cluster"
    assert (server.cluster_directory / "data" / "PG_VERSION").exists()


@needs_root
async def test_they_lie_elsewhere_when_the_other_user_cannot_enter_and_are_found_again(open_directory: Path) -> None:
    closed = open_directory / "closed"
    closed.mkdir(mode=0o700)
    system = open_directory / "system"
    server = new_server(closed / "postgres", system)
    await server.start()
    await query(server.url, "CREATE TABLE kept ()")
    await server.stop()
    noted = location_noted_in(closed / "postgres")
    assert noted == server.cluster_directory
    assert noted.parent == system
    assert owner_of(noted) == OTHER_USER_ID
    closed.chmod(0o711)  # opened later: the note counts, not the permissions of today
    again = new_server(closed / "postgres", system)
    await again.start()
    assert await query(again.url, "SELECT count(*) FROM pg_class WHERE relname = 'kept'") == 1
    await again.stop()


@needs_root
async def test_files_of_a_removed_data_directory_are_set_aside(open_directory: Path) -> None:
    closed = open_directory / "closed"
    system = open_directory / "system"
    clusters = []
    for _ in range(2):
        closed.mkdir(mode=0o700)
        server = new_server(closed / "postgres", system)
        await server.start()
        clusters.append(server.cluster_directory)
        await server.stop()
        shutil.rmtree(closed)
    assert clusters[0] == clusters[1]
    assert (system / f"{clusters[0].name}.old" / "data" / "PG_VERSION").exists()


@needs_root
async def test_the_copied_programs_can_be_used_by_everybody(open_directory: Path) -> None:
    before = os.umask(0o077)
    try:
        server = new_server(open_directory / "postgres", open_directory / "system")
        (open_directory / "system" / "binaries-18.6.3.new").mkdir(parents=True)  # of a start that was killed
        (open_directory / "system").chmod(0o755)
        await server.start()
    finally:
        os.umask(before)
    await server.stop()
    [copy] = (open_directory / "system").glob("binaries-*[0-9]")
    programs = [path for path in copy.rglob("bin/*") if path.is_file()]
    assert programs
    assert all(path.stat().st_mode & 0o005 == 0o005 for path in programs)


async def test_files_that_vanished_are_an_error_and_not_a_fresh_start(open_directory: Path) -> None:
    server = new_server(open_directory / "postgres", open_directory / "system")
    await server.start()
    await server.stop()
    shutil.rmtree(server.cluster_directory)
    with pytest.raises(ConfigurationError, match="are gone"):
        await new_server(open_directory / "postgres", open_directory / "system").start()


async def test_a_first_start_that_was_killed_is_repeated(open_directory: Path) -> None:
    unfinished = open_directory / "postgres" / "cluster" / "unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "half").write_text("written")
    (open_directory / "postgres" / "location").write_text(str(unfinished.parent))
    server = new_server(open_directory / "postgres", open_directory / "system")
    await server.start()
    assert await query(server.url, "SELECT 1") == 1
    await server.stop()
    assert not unfinished.exists()


async def test_initdb_that_fails_says_why(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.embedded.postgres.SUPERUSER", "pg_reserved")
    with pytest.raises(ConfigurationError, match=r"(?s)initdb failed with exit code 1.*pg_"):
        await new_server(open_directory / "postgres", open_directory / "system").start()


async def test_initdb_that_hangs_is_ended(open_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.embedded.postgres.INITDB_TIMEOUT_SECONDS", 0.01)
    with pytest.raises(UnavailableError, match=r"initdb is not done after 0\.01 s"):
        await new_server(open_directory / "postgres", open_directory / "system").start()


@needs_root
async def test_a_system_directory_that_cannot_be_written_is_an_error_with_a_remedy(open_directory: Path) -> None:
    (open_directory / "file").touch()
    with pytest.raises(ConfigurationError, match="Run the engine as an ordinary user"):
        await new_server(open_directory / "postgres", open_directory / "file" / "system").start()
