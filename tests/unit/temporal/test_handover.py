"""Handing a tick to its local activity as an object."""

import gc
from collections.abc import Sequence

import pytest
from temporalio.contrib.pydantic import pydantic_data_converter

from engine.contracts.circuits import CircuitRule, CircuitView
from engine.contracts.events import InboxBatch
from engine.contracts.handover import HandedTick, taken
from engine.contracts.kernel import AgentBinding, BindRequest, Delta, TickProposal
from engine.temporal.connection import DATA_CONVERTER
from engine.temporal.handover import ENCODING, HandedPayloadConverter


class Nothing:
    """A FollowUp that is only handed over."""

    bind_request: BindRequest | None = None

    @property
    def proposal(self) -> TickProposal:
        raise NotImplementedError

    @property
    def circuit_rule(self) -> CircuitRule | None:
        raise NotImplementedError

    def begin(self) -> int:
        raise NotImplementedError

    def open(self, bindings: Sequence[AgentBinding], now_ms: int, circuits: Sequence[CircuitView] = ()) -> TickProposal:
        raise NotImplementedError

    def follow_up(self, attempt: int, batches: Sequence[InboxBatch], now_ms: int) -> TickProposal | None:
        raise NotImplementedError


async def test_the_activity_gets_the_very_object_and_only_a_number_is_written() -> None:
    handed = HandedTick(Nothing())
    [payload] = await DATA_CONVERTER.encode([handed])
    assert payload.metadata["encoding"] == ENCODING.encode()
    assert int(payload.data) == handed.token
    [found] = await DATA_CONVERTER.decode([payload], [HandedTick])
    assert found is handed


async def test_each_attempt_gets_it_again() -> None:
    handed = HandedTick(Nothing())
    payloads = await DATA_CONVERTER.encode([handed])
    for _ in range(3):
        assert (await DATA_CONVERTER.decode(payloads, [HandedTick]))[0] is handed


def test_every_tick_has_a_number_of_its_own() -> None:
    ticks = [HandedTick(Nothing()) for _ in range(100)]
    assert len({tick.token for tick in ticks}) == 100
    assert [taken(tick.token) for tick in ticks] == ticks


async def test_the_tick_of_a_workflow_that_is_gone_is_unknown() -> None:
    handed = HandedTick(Nothing())
    payloads = await DATA_CONVERTER.encode([handed])
    del handed
    gc.collect()
    with pytest.raises(LookupError, match="not in this process any more"):
        await DATA_CONVERTER.decode(payloads, [HandedTick])


async def test_an_activity_that_has_begun_keeps_it_to_the_end() -> None:
    handed = HandedTick(Nothing())
    token, [payload] = handed.token, await DATA_CONVERTER.encode([handed])
    [running] = await DATA_CONVERTER.decode([payload], [HandedTick])
    del handed
    gc.collect()
    assert taken(token) is running


def test_everything_else_is_written_as_before() -> None:
    converter = HandedPayloadConverter()
    assert [converter.to_payload(value) for value in (None, 1, "x", b"x", Delta(tick=1, at_ms=1))] == [None] * 5


async def test_an_older_reader_does_not_take_the_number_for_something_else() -> None:
    [payload] = await DATA_CONVERTER.encode([HandedTick(Nothing())])
    with pytest.raises(KeyError, match=ENCODING):
        await pydantic_data_converter.decode([payload], [TickProposal])
