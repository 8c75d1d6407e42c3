"""Where a demo's engine keeps its data."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def data_dir() -> Iterator[Path]:
    """Not in pytest's own folder: that one is closed to the user as whom PostgreSQL runs when the tests run as root."""
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-demo-"))
    directory.chmod(0o711)
    yield directory / "data"
    shutil.rmtree(directory)
