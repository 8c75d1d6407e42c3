"""Binding answers what is there; allocating waits, and says meanwhile that it lives."""

import asyncio
from typing import Any

import pytest
from temporalio.exceptions import ApplicationError
from temporalio.testing import ActivityEnvironment

from activities import allocation
from activities.allocation import AllocationActivities
from engine.contracts.kernel import AgentBinding, BindRequest, BindResult
from engine.errors import ConfigurationError, EngineError, UnavailableError

REQUEST = BindRequest(tenant="t", execution_id="x", roles={})
RESULT = BindResult(bindings=(AgentBinding(agent_id="a", role="r", host_id="h"),))


class FakeBinder:
    def __init__(self, failure: EngineError | None = None) -> None:
        self.failure = failure
        self.ready = asyncio.Event()
        self.ready.set()

    async def bind(self, request: BindRequest) -> BindResult:
        assert request == REQUEST
        await self.ready.wait()
        if self.failure is not None:
            raise self.failure
        return RESULT


@pytest.mark.parametrize("name", ["bind_agents", "allocate_agents"])
async def test_both_answer_the_binders_result(name: str) -> None:
    activity = getattr(AllocationActivities(FakeBinder()), name)
    assert await ActivityEnvironment().run(activity, REQUEST) == RESULT


@pytest.mark.parametrize("name", ["bind_agents", "allocate_agents"])
@pytest.mark.parametrize(
    ("failure", "permanent"), [(UnavailableError("away"), False), (ConfigurationError("wrong"), True)]
)
async def test_errors_keep_their_code_and_whether_they_may_pass(
    name: str, failure: EngineError, permanent: bool
) -> None:
    activity = getattr(AllocationActivities(FakeBinder(failure)), name)
    with pytest.raises(ApplicationError) as caught:
        await ActivityEnvironment().run(activity, REQUEST)
    assert (caught.value.type, caught.value.non_retryable) == (failure.code, permanent)


async def test_allocating_beats_while_it_waits_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "HEARTBEAT_SECONDS", 0.01)
    binder, environment = FakeBinder(), ActivityEnvironment()
    binder.ready.clear()
    beats: list[Any] = []

    def beat(*details: Any) -> None:
        beats.append(details)
        if len(beats) == 3:
            binder.ready.set()

    environment.on_heartbeat = beat
    async with asyncio.timeout(5):
        assert await environment.run(AllocationActivities(binder).allocate_agents, REQUEST) == RESULT
    count = len(beats)
    await asyncio.sleep(0.05)
    assert len(beats) == count
