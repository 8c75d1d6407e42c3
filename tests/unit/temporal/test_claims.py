"""The argument of an execution's workflow: its plan by reference, and marks that must be true."""

from typing import Any
from uuid import UUID, uuid4

import pytest
from temporalio.api.common.v1 import Payload
from temporalio.contrib.pydantic import ToJsonOptions

from engine.contracts.events import AgentEvent, AgentEventType, InboxBatch
from engine.contracts.kernel import Carry, Delta, ExecutionInput, KernelPlan
from engine.errors import NotFoundError
from engine.plans import PlanCache, PlanLoader
from engine.temporal import codec
from engine.temporal.claims import EXECUTION_MARK, PLAN_MARK, ClaimCheckConverter, mark, marked
from engine.temporal.codec import ENCODING, REFERENCE_ENCODING, CompressionCodec
from tests.unit.temporal.test_plans import LARGE, FakePlans, plan_of

BATCH = InboxBatch(
    entry_id="1-0", partition=0, fence=1, low="1-0",
    events=(AgentEvent(type=AgentEventType.TASK_COMPLETED, at_ms=1, task_id="a", result={"n": [1, None, "ü"]}),),
)  # fmt: skip


def launch_of(plan: KernelPlan, **fields: Any) -> ExecutionInput:
    given = {"tenant": "acme", "execution_id": str(uuid4()), "workflow_id": str(uuid4()), "workflow_name": "w",
             "pattern": "supervisor", "partition": 0, "trace_id": str(uuid4()), "timeout_ms": 1,
             "checkpoint_interval_ms": 1, "pause_grace_ms": 1, "started_at_ms": 1}  # fmt: skip
    return ExecutionInput(plan=plan, **{**given, **fields})


def converter_with(*stored: KernelPlan) -> ClaimCheckConverter:
    cache = PlanCache()
    for plan in stored:
        cache.keep("acme", cache.identity(plan).plan_hash, plan.model_dump_json(exclude_defaults=True))
        cache.note_stored("acme", plan)
    return ClaimCheckConverter(ToJsonOptions(exclude_unset=True), cache)


def written(converter: ClaimCheckConverter, value: Any) -> Payload:
    payload = converter.to_payload(value)
    assert payload is not None
    return payload


def test_a_large_stored_plan_becomes_a_reference_and_the_same_object_comes_back() -> None:
    converter = converter_with(LARGE)
    launch = launch_of(LARGE, carry=Carry(state={"tick": 3}, inbox=(BATCH,)), pattern_config={"a": 1})
    payload = written(converter, launch)
    assert len(payload.data) < 2_000
    first, second = (converter.from_payload(payload, ExecutionInput) for _ in range(2))
    assert first == launch
    assert first.plan is second.plan


def test_small_plans_are_written_as_ever_and_shared() -> None:
    converter, launch = converter_with(), launch_of(plan_of(3))
    payload = written(converter, launch)
    assert payload.data.decode() == launch.model_dump_json(exclude_unset=True)
    assert dict(payload.metadata) == {"encoding": b"json/plain"}
    first, second = (converter.from_payload(payload, ExecutionInput) for _ in range(2))
    assert first == launch
    assert first.plan is second.plan


def test_other_values_are_the_sdks_affair() -> None:
    converter, delta = converter_with(), Delta(tick=1, at_ms=2)
    payload = written(converter, delta)
    assert payload.data == b'{"tick":1,"at_ms":2}'
    assert converter.from_payload(payload, Delta) == delta


def test_a_plan_that_is_not_at_hand_is_said_to_need_the_database() -> None:
    payload = written(converter_with(LARGE), launch_of(LARGE))
    with pytest.raises(LookupError, match="takes the engine's database"):
        converter_with().from_payload(payload, ExecutionInput)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (PLAN_MARK, b"other/" + b"0" * 64),
        (PLAN_MARK, b"acme/" + b"0" * 64),
        (PLAN_MARK, b"acme"),
        (EXECUTION_MARK, b"other/1"),
        (EXECUTION_MARK, b"acme/1"),
        (EXECUTION_MARK, b"/"),
    ],
)
def test_a_mark_that_says_something_else_than_the_document_is_refused(key: str, value: bytes) -> None:
    converter = converter_with(LARGE)
    payload = written(converter, launch_of(LARGE, carry=Carry(state={})))
    payload.metadata[key] = value
    with pytest.raises(ValueError, match="mark"):
        converter.from_payload(payload, ExecutionInput)


def test_an_argument_without_a_plan_is_malformed() -> None:
    with pytest.raises(ValueError, match="KernelPlan"):
        converter_with().from_payload(Payload(metadata={"encoding": b"json/plain"}, data=b"{}"), ExecutionInput)


class FakePayloads:
    def __init__(self) -> None:
        self.stored: dict[tuple[str, UUID, str], bytes] = {}

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        self.stored[tenant, execution_id, "sha256:1"] = payload
        return "sha256:1"

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        if (tenant, execution_id, reference) not in self.stored:
            raise NotFoundError("no such payload")
        return self.stored[tenant, execution_id, reference]


@pytest.fixture
def large_carry(monkeypatch: pytest.MonkeyPatch) -> ExecutionInput:
    monkeypatch.setattr(codec, "CARRY_INLINE_BYTES_MAX", 1_000)
    return launch_of(plan_of(3), carry=Carry(state={"ids": [str(uuid4()) for _ in range(1_000)]}))


async def test_a_large_carry_goes_by_reference_and_comes_back(large_carry: ExecutionInput) -> None:
    converter, payloads = converter_with(), FakePayloads()
    claims = CompressionCodec(None, payloads)
    [stored] = await claims.encode([written(converter, large_carry)])
    assert stored.metadata["encoding"] == REFERENCE_ENCODING
    assert len(stored.data) < 100
    [back] = await claims.decode([stored])
    assert converter.from_payload(back, ExecutionInput) == large_carry


async def test_without_a_store_a_large_carry_is_compressed_and_a_reference_stays_one(
    large_carry: ExecutionInput,
) -> None:
    converter, payloads, alone = converter_with(), FakePayloads(), CompressionCodec()
    payload = written(converter, large_carry)
    [packed] = await alone.encode([payload])
    assert packed.metadata["encoding"] == ENCODING
    assert await alone.decode([packed]) == [payload]
    [stored] = await CompressionCodec(None, payloads).encode([payload])
    assert await alone.decode([stored]) == [stored]


async def test_a_reference_to_another_executions_payload_is_refused(large_carry: ExecutionInput) -> None:
    """The mark beside the reference may be forged; the one inside says whose it is."""
    converter, payloads = converter_with(), FakePayloads()
    claims = CompressionCodec(None, payloads)
    other = large_carry.model_copy(update={"execution_id": str(uuid4())})
    [stored] = await claims.encode([written(converter, large_carry)])
    stored.metadata[EXECUTION_MARK] = mark("acme", other.execution_id)
    with pytest.raises(NotFoundError):
        await claims.decode([stored])


async def test_decoding_brings_the_plan_into_the_cache() -> None:
    payload, store = written(converter_with(LARGE), launch_of(LARGE)), FakePlans(acme=LARGE)
    cache = PlanCache()
    plans = CompressionCodec(PlanLoader(store, cache))
    assert await plans.decode([payload, payload, Payload()]) == [payload, payload, Payload()]
    assert store.reads == 1
    assert cache.find(*marked(payload.metadata[PLAN_MARK])) == LARGE


async def test_what_is_compressed_in_a_thread_comes_back() -> None:
    payload = Payload(metadata={"encoding": b"json/plain"}, data=uuid4().bytes * 40_000)
    [packed] = await CompressionCodec().encode([payload])
    assert await CompressionCodec().decode([packed]) == [payload]
