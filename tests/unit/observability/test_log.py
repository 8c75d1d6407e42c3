"""Logs go to stderr, structured, with the role that wrote them and nothing below the level that was asked for."""

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from engine.observability.log import configure, get_logger
from engine.settings import Settings


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
    logging.root.handlers[:], logging.root.level = handlers, level


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    captured = capsys.readouterr()
    assert captured.out == "", "stdout belongs to the command's answer"
    return captured.err.splitlines()


def test_json_lines_hold_event_level_time_role_and_fields(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings.model_validate({"log_json": True}), "bridge")
    get_logger("engine.x").warning("something.happened", tenant="t")
    [line] = lines(capsys)
    entry = json.loads(line)
    assert entry.pop("timestamp").endswith("Z")
    assert entry == {
        "event": "something.happened", "level": "warning", "role": "bridge", "tenant": "t", "logger_name": "engine.x"
    }  # fmt: skip


def test_text_is_for_people_and_without_colours(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings.model_validate({}), "gateway")
    get_logger("engine.x").info("started")
    [line] = lines(capsys)
    assert "started" in line
    assert "\x1b" not in line


@pytest.mark.parametrize(("level", "expected"), [("error", 1), ("WARNING", 2), ("nonsense", 3), ("debug", 4)])
def test_the_level_is_the_settings_and_info_when_it_makes_no_sense(
    level: str, expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(Settings.model_validate({"log_level": level}), "x")
    log = get_logger("engine.x")
    for name in ("debug", "info", "warning", "error"):
        getattr(log, name)("said")
    assert len(lines(capsys)) == expected


def test_an_exception_is_logged_with_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings.model_validate({"log_json": True}), "x")
    try:
        raise ValueError("the reason")
    except ValueError:
        get_logger("engine.x").exception("broken")
    [line] = lines(capsys)
    assert "ValueError: the reason" in json.loads(line)["exception"]
