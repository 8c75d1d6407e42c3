"""The agent that asks a language model, against a server that speaks the protocol."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cli.outcome import ExitCode
from examples.language_model import agents
from examples.language_model.__main__ import start, write_catalogue
from orchestration_agent import Task, TaskFailed
from tests.fakes.language_model import ModelServer, model_server


def task(**fields: Any) -> Task:
    values: dict[str, Any] = {"input": {"system": "You write.", "prompt": "Write."}, **fields}
    return Task(task_id="t", agent_id="a-1", action="t", execution_id="x", report=lambda _: None, **values)


@pytest.fixture
def model() -> Iterator[ModelServer]:
    with model_server() as server:
        yield server


@pytest.fixture
async def asked(model: ModelServer, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[ModelServer]:
    monkeypatch.setenv("OPENAI_BASE_URL", model.base_url)
    monkeypatch.setenv("LANGUAGE_MODEL", "small")
    monkeypatch.delenv("OPENAI_API_KEY_FILE", raising=False)
    agents._client.cache_clear()
    yield model
    await agents._client().close()
    agents._client.cache_clear()


async def test_the_answer_has_text_model_and_tokens(asked: ModelServer) -> None:
    result = await agents.ask(task())
    assert result == {"text": "On 6 letters: Write.", "model": "small", "complete": True, "tokens": 7}
    assert asked.requests[0]["messages"][0] == {"role": "system", "content": "You write."}


async def test_the_model_is_told_the_subject_what_was_written_before_and_the_patterns_remarks(
    asked: ModelServer,
) -> None:
    given = task(
        input={"prompt": "Go on."},
        execution_input={"subject": "sagas"},
        results={"b": {"text": "second"}, "a": "first"},
        context="shorter",
    )
    await agents.ask(given)
    [message] = asked.requests[0]["messages"]
    assert message["content"] == (
        "Go on.\n\nSubject: sagas\n\nFrom a:\nfirst\n\nFrom b:\nsecond\n\nRemarks on your last answer: shorter"
    )


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (429, "MODEL_UNAVAILABLE", True),
        (500, "MODEL_UNAVAILABLE", True),
        (401, "MODEL_REFUSED", False),
        (400, "MODEL_REFUSED", False),
    ],
)
async def test_what_may_pass_is_left_to_the_engines_retries_and_what_may_not_is_final(
    asked: ModelServer, status: int, code: str, retryable: bool
) -> None:
    asked.errors.append(status)
    with pytest.raises(TaskFailed) as raised:
        await agents.ask(task())
    assert (raised.value.code, raised.value.retryable) == (code, retryable)
    assert str(status) in raised.value.message
    assert len(asked.requests) == 1


async def test_an_empty_answer_is_tried_again(asked: ModelServer) -> None:
    asked.content = ""
    with pytest.raises(TaskFailed) as raised:
        await agents.ask(task())
    assert (raised.value.code, raised.value.retryable) == ("MODEL_SILENT", True)


async def test_a_task_without_a_prompt_fails_for_good(asked: ModelServer) -> None:
    with pytest.raises(TaskFailed) as raised:
        await agents.ask(task(input={}))
    assert raised.value.code == "NO_PROMPT"
    assert asked.requests == []


async def test_the_key_is_read_from_its_file(
    asked: ModelServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("from-a-file\n")
    monkeypatch.setenv("OPENAI_API_KEY_FILE", str(tmp_path / "key"))
    await agents.ask(task())
    assert asked.keys == ["Bearer from-a-file"]


def test_hosts_get_the_endpoint_and_the_keys_file_by_the_catalogue(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setenv("LANGUAGE_MODEL", "small")
    monkeypatch.setenv("OPENAI_API_KEY", "never-written-down")
    path = write_catalogue(tmp_path)
    assert "never-written-down" not in path.read_text()
    environment = yaml.safe_load(path.read_text())["agents"]["language-model"]["environment"]
    assert environment["OPENAI_BASE_URL"] == "http://127.0.0.1:1/v1"


def test_without_an_endpoint_the_example_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.delenv("LANGUAGE_MODEL", raising=False)
    assert start([]) == ExitCode.USAGE
    assert "OPENAI_BASE_URL and LANGUAGE_MODEL must be set" in capsys.readouterr().err
