"""Readiness and the queue."""

from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient

from engine.contracts.pressure import Pressure
from engine.errors import UnavailableError
from gateway import intake
from gateway.intake import QueueIntake
from gateway.probes import Probe, Readiness, probe_routes


class Engine:
    """The queue and the streams as the test says that they are."""

    def __init__(self) -> None:
        self.waiting = 0
        self.pressure = Pressure.OK
        self.down = False
        self.asked = 0

    async def totals(self) -> SimpleNamespace:
        self.asked += 1
        if self.down:
            raise UnavailableError("PostgreSQL does not answer")
        return SimpleNamespace(waiting={"high": 0, "normal": self.waiting, "low": 0})

    async def level(self) -> Pressure:
        return self.pressure

    async def ping(self) -> None:
        if self.down:
            raise ConnectionError


@pytest.fixture
def engine() -> Engine:
    return Engine()


@pytest.fixture
def http(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> AsyncClient:
    monkeypatch.setattr(intake, "FRESH_SECONDS", 0.0)
    app = FastAPI()
    app.include_router(probe_routes(Readiness((Probe("postgresql", engine.ping),)), QueueIntake(engine, 10, engine)))
    return AsyncClient(transport=ASGITransport(app=app), base_url="http://gateway.test")


async def test_with_a_full_queue_it_is_not_ready_until_there_is_room(http: AsyncClient, engine: Engine) -> None:
    assert (await http.get("/ready")).status_code == 200
    engine.waiting = 10
    answer = await http.get("/ready")
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "full",
        "servers": {"postgresql": True},
        "reason": "10 executions wait for capacity: 10 may",
    }
    assert (await http.get("/health")).status_code == (await http.get("/startup")).status_code == 200
    engine.waiting = 9
    assert (await http.get("/ready")).json()["status"] == "ready"


async def test_with_full_event_streams_it_is_not_ready(http: AsyncClient, engine: Engine) -> None:
    await http.get("/ready")
    engine.pressure = Pressure.STOP
    assert (await http.get("/ready")).json()["reason"] == "the event streams are almost full"


async def test_an_engine_that_starts_with_a_full_queue_starts(http: AsyncClient, engine: Engine) -> None:
    engine.waiting = 1_000
    assert (await http.get("/ready")).status_code == 200
    assert (await http.get("/ready")).status_code == 503


async def test_a_queue_that_cannot_be_asked_is_a_server_that_is_away(http: AsyncClient, engine: Engine) -> None:
    await http.get("/ready")
    engine.down = True
    answer = await http.get("/ready")
    assert (answer.status_code, answer.json()["status"]) == (503, "unavailable")


async def test_the_sums_are_not_read_for_each_probe(engine: Engine) -> None:
    queue = QueueIntake(engine, 10, engine)
    await queue.full()
    await queue.full()
    assert engine.asked == 1
