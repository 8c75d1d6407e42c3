"""What the API server's answers mean, and what is repeated."""

import time
from pathlib import Path
from typing import Any

import pytest

from engine.agents.kubernetes.client import (
    BREAKER,
    BREAKER_RULE,
    PODS,
    ConflictError,
    GoneError,
    NotAnsweringError,
    ObjectExistsError,
    QuotaExceededError,
    RefusedError,
    ThrottledError,
)
from engine.breakers import CircuitBreaker, LocalBreakers
from engine.contracts.circuits import CircuitState
from engine.errors import CircuitOpenError, ConfigurationError, NotFoundError, UnavailableError
from tests.unit.agents.kubernetes.api_server import Answer, failure, scripted

POD = {"metadata": {"name": "p"}}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (failure(400, "BadRequest"), RefusedError),
        (failure(401, "Unauthorized"), ConfigurationError),
        (failure(403, "Forbidden", "pods is forbidden: violates PodSecurity"), RefusedError),
        (failure(403, "Forbidden", "exceeded quota: agents, requested: pods=1"), QuotaExceededError),
        (failure(403, "Forbidden", "error looking up service account a/default"), UnavailableError),
        (failure(403, "Forbidden", "status unknown for quota: agents"), UnavailableError),
        (failure(403, "Forbidden", "because it is being terminated"), UnavailableError),
        (failure(404, "NotFound"), NotFoundError),
        (failure(409, "AlreadyExists"), ObjectExistsError),
        (failure(409, "Conflict"), ConflictError),
        (failure(410, "Expired"), GoneError),
        (failure(422, "Invalid"), RefusedError),
        (failure(500, "InternalError"), NotAnsweringError),
        (failure(503, "ServiceUnavailable"), NotAnsweringError),
        (Answer(200, b"<html>a proxy</html>"), UnavailableError),
        (Answer(200, b"[]"), UnavailableError),
        (Answer(502, b"<html>bad gateway</html>"), NotAnsweringError),
    ],
)
async def test_each_answer_is_an_error_that_says_whether_it_may_pass(
    answer: Answer, error: type[Exception], tmp_path: Path
) -> None:
    async with scripted(tmp_path, answer) as (api, _):
        with pytest.raises(error) as raised:
            await api.create(PODS, "n", POD)
    assert type(raised.value) is error


async def test_a_throttled_call_is_repeated_after_the_time_that_was_asked_for(tmp_path: Path) -> None:
    throttled = failure(429, "TooManyRequests", Retry_After="1")
    async with scripted(tmp_path, throttled, Answer(201, POD), request_seconds=8.0) as (api, script):
        began = time.monotonic()
        assert await api.create(PODS, "n", POD) == POD
        assert time.monotonic() - began >= 1.0
        assert len(script.requests) == 2
        assert api.calls["POST pods"] == 2


@pytest.mark.parametrize("asked", ["30", "soon"])
async def test_throttling_beyond_the_deadline_is_told_with_the_time(tmp_path: Path, asked: str) -> None:
    throttled = failure(429, "TooManyRequests", Retry_After=asked)
    async with scripted(tmp_path, throttled, request_seconds=0.5) as (api, script):
        with pytest.raises(ThrottledError) as raised:
            await api.create(PODS, "n", POD)
    assert raised.value.retry_after_seconds == (30.0 if asked == "30" else 1.0)
    assert len(script.requests) == 1


async def test_a_server_that_says_nothing_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    async with scripted(tmp_path, Answer(silent=True), request_seconds=0.3) as (api, _):
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="does not answer"):
            await api.get(PODS, "n", "p")
        assert time.monotonic() - began < 2.0


async def test_a_server_that_fails_three_times_is_left_alone_until_its_breaker_lets_one_call_try(
    tmp_path: Path,
) -> None:
    now = 100.0
    breaker = CircuitBreaker(BREAKER, LocalBreakers(lambda: now), BREAKER_RULE, clock=lambda: now)
    broken = [failure(500, "InternalError"), failure(503, "ServiceUnavailable"), failure(502, "BadGateway")]
    async with scripted(tmp_path, *broken, Answer(200, POD), breaker=breaker) as (api, script):
        for _ in broken:
            with pytest.raises(NotAnsweringError):
                await api.get(PODS, "n", "p")
        with pytest.raises(CircuitOpenError, match=BREAKER):
            await api.get(PODS, "n", "p")
        assert len(script.requests) == 3
        now += BREAKER_RULE.timeout_ms / 1000
        assert await api.get(PODS, "n", "p") == POD
        assert breaker.state is CircuitState.CLOSED


async def test_a_server_that_refuses_or_asks_for_less_does_answer(tmp_path: Path) -> None:
    breaker = CircuitBreaker(BREAKER, LocalBreakers(), BREAKER_RULE)
    refusals = [failure(403, "Forbidden", "error looking up service account a/default")] * 4
    throttled = [failure(429, "TooManyRequests", Retry_After="30")] * 4
    async with scripted(tmp_path, *refusals, *throttled, breaker=breaker) as (api, script):
        for _ in (*refusals, *throttled):
            with pytest.raises(UnavailableError):
                await api.get(PODS, "n", "p")
        assert len(script.requests) == 8
        assert breaker.state is CircuitState.CLOSED


async def test_a_list_without_end_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.agents.kubernetes.client.PAGES_MAX", 3)
    page = Answer(200, {"metadata": {"resourceVersion": "1", "continue": "more"}, "items": [POD]})
    async with scripted(tmp_path, page) as (api, script):
        with pytest.raises(UnavailableError, match="more than 3"):
            await api.list(PODS, "n")
    assert len(script.requests) == 3


async def test_a_replacement_names_the_object(tmp_path: Path) -> None:
    async with scripted(tmp_path, Answer(200, POD)) as (api, script):
        assert await api.replace(PODS, "n", "p", POD) == POD
    assert script.requests == ["PUT /api/v1/namespaces/n/pods/p HTTP/1.1"]


async def _told(api: Any) -> list[str]:
    return [event.type async for event in api.watch(PODS, "n", "7", silence_seconds=0.5)]


async def test_a_watch_ends_with_the_server_and_tells_its_bookmarks(tmp_path: Path) -> None:
    lines = [{"type": "ADDED", "object": POD}, {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": "9"}}}]
    async with scripted(tmp_path, Answer(lines=lines)) as (api, script):
        assert await _told(api) == ["ADDED", "BOOKMARK"]
    assert "resourceVersion=7" in script.requests[0]
    assert "allowWatchBookmarks=true" in script.requests[0]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(lines=[{"type": "ERROR", "object": {"code": 410, "reason": "Expired", "message": "old"}}]), GoneError),
        (failure(410, "Expired"), GoneError),
        (failure(429, "TooManyRequests", Retry_After="2"), ThrottledError),
        (Answer(lines=["half a"]), UnavailableError),
        (Answer(silent=True), UnavailableError),
    ],
)
async def test_a_watch_that_breaks_says_how(answer: Answer, error: type[Exception], tmp_path: Path) -> None:
    async with scripted(tmp_path, answer, request_seconds=0.5) as (api, _):
        with pytest.raises(error):
            await _told(api)
