"""What stands around the bridge and the dispatcher, in memory: Temporal, and the stores that they ask."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any
from uuid import UUID

from engine.contracts.compensation import RetryRequest
from engine.contracts.dead_letters import (
    DeadLetter,
    DeadLetterDetail,
    DeadLetterPage,
    DeadLettersPurged,
    DeadLettersReplayed,
)
from engine.contracts.events import InboxBatch
from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import ExecutionInput
from engine.contracts.pressure import Pressure
from engine.contracts.views import TaskResultView
from engine.errors import NotFoundError, UnavailableError
from engine.ports import StoredBody


async def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what fakes record has no event
            await asyncio.sleep(0.005)


async def eventually(probe: Callable[[], Awaitable[object]], seconds: float = 60.0) -> None:
    async with asyncio.timeout(seconds):
        while not await probe():  # noqa: ASYNC110 - what a server holds has no event
            await asyncio.sleep(0.005)


class FakeLauncher:
    """A Launcher. `failure` is raised by every call while it is set; `gate` holds signals up while it is clear."""

    def __init__(self) -> None:
        self.launched: list[ExecutionInput] = []
        self.signals: list[tuple[str, str, str, tuple[Any, ...]]] = []
        self.closed: dict[str, ExecutionStatus | None] = {}
        self.retries: list[RetryRequest] = []
        self.failure: BaseException | None = None
        self.tried = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def launch(self, launch: ExecutionInput) -> None:
        self._fail()
        self.launched.append(launch)

    async def signal(self, tenant: str, execution_id: UUID, name: str, *args: Any) -> None:
        self._fail()
        self.signals.append((tenant, str(execution_id), name, args))
        await self.gate.wait()

    async def retry_compensations(self, request: RetryRequest) -> None:
        self._fail()
        self.retries.append(request)

    async def closed_status(self, tenant: str, execution_id: UUID) -> ExecutionStatus | None:
        self._fail()
        if str(execution_id) not in self.closed:
            raise NotFoundError("Temporal has no such execution")
        return self.closed[str(execution_id)]

    def _fail(self) -> None:
        self.tried += 1
        if self.failure is not None:
            raise self.failure

    def batches(self, execution_id: str) -> list[InboxBatch]:
        """All that was signalled to it, in order, repeats included."""
        return [b for _, x, name, args in self.signals if x == execution_id and name == "events" for b in args[0]]

    def entry_ids(self, execution_id: str) -> list[str]:
        return [batch.entry_id for batch in self.batches(execution_id)]


class FakeDispatchStore:
    """A DispatchStore; `asked` records what dispatch did not know by itself."""

    def __init__(self) -> None:
        self.bodies: dict[str, StoredBody] = {}
        self.stored: dict[str, Any] = {}
        self.completed: dict[tuple[str, UUID], dict[str, TaskResultView]] = {}
        self.payloads: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.down = False

    async def body(self, tenant: str, execution_id: UUID) -> StoredBody:
        self.asked.append("body")
        return self.bodies[str(execution_id)]

    async def results(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> dict[str, Any]:
        self.asked.append("results:" + ",".join(task_ids))
        return {task_id: self.stored[task_id] for task_id in task_ids if task_id in self.stored}

    async def result(self, tenant: str, execution_id: UUID, task_id: str) -> TaskResultView:
        try:
            return self.completed[tenant, execution_id][task_id]
        except KeyError:
            raise NotFoundError("no such task, or it has no result") from None

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        if self.down:
            raise UnavailableError("PostgreSQL does not answer")
        reference = "sha256:" + sha256(payload).hexdigest()
        self.payloads[reference] = payload
        return reference

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        return self.payloads[reference]


class FakeDeadLetters:
    """A DeadLetterBox; letters by tenant, the oldest first."""

    def __init__(self) -> None:
        self.letters: dict[str, dict[str, DeadLetterDetail]] = {}

    def add(self, tenant: str, letter_id: str, **fields: Any) -> DeadLetterDetail:
        values = {"reason": "no JSON", "tries": 1, "partition": 0, "entry_id": "1-0", "size_bytes": 3,
                  "replayable": True, "fields": {"b": "["}, "buried_at": datetime.now(UTC), **fields}  # fmt: skip
        letter = DeadLetterDetail(letter_id=letter_id, **values)
        self.letters.setdefault(tenant, {})[letter_id] = letter
        return letter

    async def page(self, tenant: str, *, limit: int, page_token: str | None) -> DeadLetterPage:
        own = list(reversed(self.letters.get(tenant, {}).values()))
        ids = [letter.letter_id for letter in own]
        first = 0 if page_token is None else ids.index(page_token) + 1
        items = tuple(DeadLetter(**letter.model_dump(exclude={"fields"})) for letter in own[first : first + limit])
        more = first + limit < len(own)
        return DeadLetterPage(items=items, next_page_token=items[-1].letter_id if more else None, total=len(own))

    async def get(self, tenant: str, letter_id: str) -> DeadLetterDetail:
        try:
            return self.letters.get(tenant, {})[letter_id]
        except KeyError:
            raise NotFoundError("no such letter") from None

    async def replay(self, tenant: str, letter_ids: Sequence[str] | None) -> DeadLettersReplayed:
        own = self.letters.get(tenant, {})
        chosen = list(own) if letter_ids is None else letter_ids
        refused = {name: "no such letter" for name in chosen if name not in own}
        replayed = tuple(name for name in chosen if own.pop(name, None) is not None)
        return DeadLettersReplayed(replayed=replayed, refused=refused)

    async def purge(self, tenant: str, letter_ids: Sequence[str] | None) -> DeadLettersPurged:
        own = self.letters.get(tenant, {})
        chosen = list(own) if letter_ids is None else letter_ids
        return DeadLettersPurged(purged=sum(own.pop(name, None) is not None for name in chosen))


class FakeTickets:
    """WatchTickets; time does not pass here."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.used: set[str] = set()
        self.available = True

    async def keep(self, token: str, document: dict[str, Any], seconds: float) -> None:
        self._check()
        self.kept[token] = document

    async def take(self, token: str) -> dict[str, Any] | None:
        self._check()
        return self.kept.pop(token, None)

    async def use_once(self, token: str, seconds: float) -> bool:
        self._check()
        first = token not in self.used
        self.used.add(token)
        return first

    def _check(self) -> None:
        if not self.available:
            raise UnavailableError("Redis does not answer")


class FakeGauge:
    """How full the streams are said to be."""

    def __init__(self) -> None:
        self.now = Pressure.OK

    async def level(self) -> Pressure:
        return self.now


class FakeClosings:
    """The part of MaintenanceStore that the bridge and the progress board use."""

    def __init__(self) -> None:
        self.closed: dict[tuple[str, str], bool] = {}
        self.counted: set[str] = set()
        self.progress: list[tuple[str, UUID, str, int, float]] = []
        self.writes = 0
        self.failure: Exception | None = None

    async def is_closed(self, tenant: str, execution_id: UUID) -> bool | None:
        if self.failure is not None:
            raise self.failure
        return self.closed.get((tenant, str(execution_id)))

    async def completed_tasks(self, tenant: str, execution_id: UUID, task_ids: Sequence[str]) -> Sequence[str]:
        return [task_id for task_id in task_ids if task_id in self.counted]

    async def write_progress(self, tenant: str, updates: Sequence[tuple[UUID, str, int, float]]) -> None:
        self.writes += 1
        if self.failure is not None:
            raise self.failure
        self.progress += [(tenant, *update) for update in updates]
