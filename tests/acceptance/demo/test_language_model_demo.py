"""The example with language models, from end to end, against a server on loopback that speaks their protocol."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fakes.language_model import model_server

ROOT = Path(__file__).resolve().parents[3]
TIMEOUT_SECONDS = 240

pytestmark = pytest.mark.acceptance


def test_an_article_is_written_although_the_model_is_busy_at_first(data_dir: Path) -> None:
    with model_server() as model:
        model.errors.append(429)
        environment = {**os.environ, "OPENAI_BASE_URL": model.base_url, "LANGUAGE_MODEL": "small"}
        ended = subprocess.run(
            [sys.executable, "-m", "examples.language_model", "--data-dir", str(data_dir)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "4 answers of small, 28 tokens." in ended.stdout
    assert len(model.requests) == 5
    last = model.requests[-1]["messages"][-1]["content"]
    assert "From first:" in last
    assert "From second:" in last
