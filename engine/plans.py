"""Plans by their content: each lies in PostgreSQL once, travels as a reference, and is parsed once a process.

The plan of 10,000 tasks is more than a megabyte of JSON. Temporal would store it with each run of each execution, and
every worker would parse and validate it each time. Instead the payload that Temporal stores says which plan it is, and
all runs in a process share one `KernelPlan`, which is immutable.

Only a plan that is known to be stored for the tenant is written as a reference: any other travels whole.
"""

import asyncio
import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any, Final
from weakref import WeakValueDictionary, ref

from engine.contracts.kernel import KernelPlan
from engine.contracts.limits import PLAN_INLINE_BYTES_MAX
from engine.errors import NotFoundError
from engine.ports import PlanStore

CACHED_TASKS_MAX: Final = 50_000
"""Tasks of all plans that are kept although no run holds them."""

CACHED_PLANS_MAX: Final = 1_000

LOAD_TIMEOUT_SECONDS: Final = 15.0


@dataclass(frozen=True, slots=True)
class PlanIdentity:
    plan_hash: str
    size_bytes: int

    @property
    def large(self) -> bool:
        """Too large to travel with each run."""
        return self.size_bytes > PLAN_INLINE_BYTES_MAX


@dataclass(frozen=True, slots=True)
class _Known:
    plan: "ref[KernelPlan]"
    identity: PlanIdentity
    stored_for: frozenset[str] = frozenset()


def plan_document(plan: KernelPlan) -> str:
    """As it is stored; its hash names it."""
    return plan.model_dump_json(exclude_defaults=True)


def referenced_plan(launch: dict[str, Any]) -> str | None:
    """The hash of the plan, where a launch document or a workflow's argument names it instead of holding it."""
    plan = launch.get("plan")
    return plan.get("reference") if isinstance(plan, dict) else None


def with_reference(document_without_plan: str, plan_hash: str) -> str:
    """The JSON object, which has other fields, with the reference in the plan's place."""
    return f'{{"plan":{{"reference":"{plan_hash}"}},{document_without_plan[1:]}'


class PlanCache:
    """The plans of one process. Safe to use from any thread: workflows run in threads of their own.

    What a run holds is found as long as it holds it; beyond that the latest are kept, up to a number of tasks.
    """

    def __init__(self, tasks_max: int = CACHED_TASKS_MAX) -> None:
        # Re-entrant: a plan may be collected, and be forgotten here, while this very thread is at work here.
        self._lock = threading.RLock()
        self._tasks_max = tasks_max
        self._tasks = 0
        self._known: dict[int, _Known] = {}
        self._alive: WeakValueDictionary[tuple[str, str], KernelPlan] = WeakValueDictionary()
        self._recent: OrderedDict[tuple[str, str], KernelPlan] = OrderedDict()

    def identity(self, plan: KernelPlan) -> PlanIdentity:
        """Written as JSON once in a plan's life."""
        known = self._known_of(plan)
        return known.identity if known is not None else self._register(plan, plan_document(plan).encode()).identity

    def note_stored(self, tenant: str, plan: KernelPlan) -> None:
        """From now on it travels as a reference."""
        self.identity(plan)
        with self._lock:
            known = self._known[id(plan)]
            self._known[id(plan)] = replace(known, stored_for=known.stored_for | {tenant})

    def reference(self, tenant: str, plan: KernelPlan) -> str | None:
        """The hash to write in the plan's place; None when it is to travel whole."""
        identity = self.identity(plan)
        with self._lock:
            stored = tenant in self._known[id(plan)].stored_for
        return identity.plan_hash if stored and identity.large else None

    def find(self, tenant: str, plan_hash: str) -> KernelPlan | None:
        return self._find((tenant, plan_hash))

    def keep(self, tenant: str, plan_hash: str, document: str) -> KernelPlan:
        """Parse a stored plan. It keeps the hash that it is stored under, however this version would write it."""
        content = document.encode()
        if hashlib.sha256(content).hexdigest() != plan_hash:
            raise ValueError(f"what is stored as plan {plan_hash} is something else")
        plan = self._add((tenant, plan_hash), content)
        self.note_stored(tenant, plan)
        return plan

    def inline(self, content: bytes) -> KernelPlan:
        """The plan that stands in a workflow's argument; the same object each time, when it is small."""
        if len(content) > PLAN_INLINE_BYTES_MAX:
            return KernelPlan.model_validate_json(content)
        # Equal content is an equal plan, whoever's it is.
        key = ("", hashlib.sha256(content).hexdigest())
        found = self._find(key)
        return found if found is not None else self._add(key, content)

    def _add(self, key: tuple[str, str], content: bytes) -> KernelPlan:
        """Parsed outside the lock. Whoever is first has made the one object."""
        plan = KernelPlan.model_validate_json(content)
        with self._lock:
            found = self._find(key)
            if found is not None:
                return found
            self._register(plan, content)
            self._remember(key, plan)
        return plan

    def _find(self, key: tuple[str, str]) -> KernelPlan | None:
        with self._lock:
            plan = self._alive.get(key)
            if plan is not None:
                self._remember(key, plan)
        return plan

    def _remember(self, key: tuple[str, str], plan: KernelPlan) -> None:
        self._alive[key] = plan
        if key in self._recent:
            self._recent.move_to_end(key)
            return
        self._recent[key] = plan
        self._tasks += len(plan.tasks)
        while (self._tasks > self._tasks_max or len(self._recent) > CACHED_PLANS_MAX) and len(self._recent) > 1:
            _, oldest = self._recent.popitem(last=False)
            self._tasks -= len(oldest.tasks)

    def _known_of(self, plan: KernelPlan) -> _Known | None:
        with self._lock:
            known = self._known.get(id(plan))
        return known if known is not None and known.plan() is plan else None

    def _register(self, plan: KernelPlan, content: bytes) -> _Known:
        number = id(plan)

        def forget(gone: "ref[KernelPlan]") -> None:
            with self._lock:
                known = self._known.get(number)
                if known is not None and known.plan is gone:
                    del self._known[number]

        identity = PlanIdentity(hashlib.sha256(content).hexdigest(), len(content))
        with self._lock:
            known = self._known_of(plan)
            if known is None:
                known = _Known(ref(plan, forget), identity)
                self._known[number] = known
        return known


PLANS: Final = PlanCache()
"""This process's. One for all, since Temporal's library makes payload converters from their class alone."""


class PlanLoader:
    """Brings stored plans into the cache, one at a time: two at once would only slow each other down."""

    def __init__(self, store: PlanStore, cache: PlanCache = PLANS) -> None:
        self._store = store
        self._cache = cache
        self._turn = asyncio.Lock()

    async def load(self, tenant: str, plan_hash: str) -> KernelPlan:
        """Raises NotFoundError when the tenant has no such plan; UnavailableError when PostgreSQL does not answer."""
        found = self._cache.find(tenant, plan_hash)
        if found is not None:
            return found
        async with self._turn, asyncio.timeout(LOAD_TIMEOUT_SECONDS):
            found = self._cache.find(tenant, plan_hash)
            if found is not None:
                return found
            try:
                document = await self._store.plan(tenant, plan_hash)
            except NotFoundError as error:
                raise NotFoundError(f"plan {plan_hash} of tenant {tenant} is not stored in PostgreSQL") from error
            return await asyncio.to_thread(self._cache.keep, tenant, plan_hash, document)
