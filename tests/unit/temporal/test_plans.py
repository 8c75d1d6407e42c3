"""One `KernelPlan` a process for each plan, and references only to what is stored."""

import asyncio
import gc
import hashlib

import orjson
import pytest

from engine.contracts.definition import RetryPolicy
from engine.contracts.kernel import KernelPlan, KernelRole, KernelTask
from engine.contracts.limits import PLAN_INLINE_BYTES_MAX
from engine.errors import NotFoundError
from engine.plans import PlanCache, PlanLoader, plan_document, referenced_plan, with_reference


def plan_of(tasks: int, prefix: str = "task") -> KernelPlan:
    made = tuple(KernelTask(id=f"{prefix}-{n}", role="r", retry=RetryPolicy()) for n in range(tasks))
    return KernelPlan(tasks=made, roles={"r": KernelRole(type="synthetic", count=1)})


LARGE = plan_of(1_000)


class FakePlans:
    def __init__(self, **plans: KernelPlan) -> None:
        self.documents: dict[tuple[str, str], str] = {}
        self.reads = 0
        for tenant, plan in plans.items():
            document = plan_document(plan)
            self.documents[tenant, hashlib.sha256(document.encode()).hexdigest()] = document

    async def plan(self, tenant: str, plan_hash: str) -> str:
        self.reads += 1
        await asyncio.sleep(0)
        if (tenant, plan_hash) not in self.documents:
            raise NotFoundError("no such plan")
        return self.documents[tenant, plan_hash]


def test_only_a_large_plan_that_is_stored_for_the_tenant_is_referred_to() -> None:
    cache, small = PlanCache(), plan_of(3)
    assert cache.reference("acme", LARGE) is None
    cache.note_stored("acme", LARGE)
    cache.note_stored("acme", small)
    assert cache.reference("acme", LARGE) == cache.identity(LARGE).plan_hash
    assert cache.reference("other", LARGE) is None
    assert cache.reference("acme", small) is None


def test_a_copy_of_a_plan_is_another_plan() -> None:
    """What changed it must not go on under the name of the one that is stored."""
    cache = PlanCache()
    cache.note_stored("acme", LARGE)
    longer = LARGE.model_copy(update={"tasks": (*LARGE.tasks, LARGE.tasks[0])})
    assert cache.reference("acme", longer) is None
    assert cache.identity(longer) != cache.identity(LARGE)


def test_what_is_known_of_a_plan_goes_with_it() -> None:
    cache, plan = PlanCache(), plan_of(3)
    cache.identity(plan)
    assert len(cache._known) == 1
    del plan
    gc.collect()
    assert not cache._known


def test_a_stored_plan_is_parsed_once_and_keeps_its_hash() -> None:
    cache, document = PlanCache(), LARGE.model_dump_json()
    plan_hash = hashlib.sha256(document.encode()).hexdigest()
    plan = cache.keep("acme", plan_hash, document)
    assert plan == LARGE
    assert cache.keep("acme", plan_hash, document) is plan
    assert cache.find("acme", plan_hash) is plan
    assert cache.find("other", plan_hash) is None
    assert plan_document(plan) != document
    assert cache.reference("acme", plan) == plan_hash


def test_what_is_not_what_its_hash_says_is_refused() -> None:
    with pytest.raises(ValueError, match="something else"):
        PlanCache().keep("acme", "0" * 64, plan_document(LARGE))


def test_equal_small_plans_are_one_object_and_large_ones_are_not_kept() -> None:
    cache = PlanCache()
    content = plan_document(plan_of(3)).encode()
    assert cache.inline(content) is cache.inline(bytes(bytearray(content)))
    large = plan_document(LARGE).encode()
    assert len(large) > PLAN_INLINE_BYTES_MAX
    assert cache.inline(large) is not cache.inline(large)


def test_the_oldest_go_first_but_what_is_in_use_is_found() -> None:
    cache = PlanCache(tasks_max=25)
    contents = [plan_document(plan_of(10, prefix)).encode() for prefix in "abc"]
    used = cache.inline(contents[0])
    for content in contents[1:]:
        cache.inline(content)
    assert cache._tasks == 20
    assert cache.inline(contents[0]) is used
    assert cache._tasks == 20


def test_one_plan_is_kept_however_large() -> None:
    cache = PlanCache(tasks_max=1)
    plan = cache.inline(plan_document(plan_of(10)).encode())
    assert cache.inline(plan_document(plan).encode()) is plan


async def test_a_plan_that_many_ask_for_at_once_is_read_once() -> None:
    store, cache = FakePlans(acme=LARGE), PlanCache()
    loader, [(tenant, plan_hash)] = PlanLoader(store, cache), store.documents
    plans = await asyncio.gather(*(loader.load(tenant, plan_hash) for _ in range(5)))
    assert store.reads == 1
    assert all(plan is plans[0] for plan in plans)
    assert await loader.load(tenant, plan_hash) is plans[0]


async def test_a_plan_that_is_missing_is_named() -> None:
    with pytest.raises(NotFoundError, match="plan abc of tenant acme is not stored"):
        await PlanLoader(FakePlans(), PlanCache()).load("acme", "abc")


def test_a_launch_document_says_which_plan_it_refers_to() -> None:
    document = orjson.loads(with_reference('{"tenant":"acme"}', "abc"))
    assert document == {"plan": {"reference": "abc"}, "tenant": "acme"}
    assert referenced_plan(document) == "abc"
    assert referenced_plan({"plan": LARGE}) is None
    assert referenced_plan({"plan": {"tasks": []}}) is None
    assert referenced_plan({}) is None
