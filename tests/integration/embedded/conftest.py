import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def open_directory() -> Iterator[Path]:
    """A directory that every user can enter, unlike pytest's `tmp_path`."""
    directory = Path(tempfile.mkdtemp(prefix="orchestrator-embedded-"))
    directory.chmod(0o711)
    yield directory
    shutil.rmtree(directory)
