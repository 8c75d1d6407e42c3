"""Steps that were left to operators, in memory."""

from datetime import UTC, datetime
from uuid import UUID, uuid5

from engine.contracts.compensation import (
    CompensationAnswer,
    CompensationView,
    PendingRetry,
    RetryOutcome,
    RetryRequest,
    TaskToUndo,
)
from engine.contracts.views import Page
from engine.errors import InvalidTransitionError, NotFoundError

Key = tuple[str, UUID]


class FakeCompensationStore:
    """Implements `engine.ports.CompensationStore`, as far as the gateway asks."""

    def __init__(self) -> None:
        self.left: dict[Key, dict[str, CompensationView]] = {}
        self.reasons: list[str | None] = []

    def leave(self, tenant: str, execution_id: UUID, *task_ids: str) -> None:
        now = datetime.now(UTC)
        self.left[tenant, execution_id] = {
            task_id: CompensationView(
                task_id=task_id,
                state="waiting" if n else "failed",
                certain=True,
                attempts=1,
                blocked_by=task_ids[:n],
                updated_at=now,
            )
            for n, task_id in enumerate(task_ids)
        }

    async def list(
        self, tenant: str, execution_id: UUID, *, limit: int, page_token: str | None
    ) -> Page[CompensationView]:
        found = self.left.get((tenant, execution_id))
        if found is None:
            raise NotFoundError("no such execution")
        return Page[CompensationView](items=tuple(found.values())[:limit])

    async def begin_retry(self, tenant: str, execution_id: UUID, task_id: str, actor: str) -> RetryRequest:
        view = self._view(tenant, execution_id, task_id)
        if view.state not in ("failed", "retrying"):
            raise InvalidTransitionError("it waits for others", state=view.state)
        self.left[tenant, execution_id][task_id] = view.model_copy(update={"state": "retrying", "actor": actor})
        return self._request(tenant, execution_id, task_id)

    async def mark_done(
        self, tenant: str, execution_id: UUID, task_id: str, actor: str, reason: str | None
    ) -> tuple[CompensationAnswer, RetryRequest | None]:
        view = self._view(tenant, execution_id, task_id)
        self.reasons.append(reason)
        steps = self.left[tenant, execution_id]
        steps[task_id] = view.model_copy(update={"state": "marked_done", "actor": actor})
        waiting = [step.task_id for step in steps.values() if step.state == "waiting"]
        answer = CompensationAnswer(
            task_id=task_id, state="marked_done", compensation_status="partial" if waiting else "completed"
        )
        return answer, self._request(tenant, execution_id, task_id) if waiting else None

    async def task(self, tenant: str, execution_id: UUID, task_id: str) -> TaskToUndo:
        raise NotImplementedError

    async def next_retry(self, request: RetryRequest) -> PendingRetry | None:
        raise NotImplementedError

    async def settle_retry(self, outcome: RetryOutcome) -> None:
        raise NotImplementedError

    def _view(self, tenant: str, execution_id: UUID, task_id: str) -> CompensationView:
        view = self.left.get((tenant, execution_id), {}).get(task_id)
        if view is None:
            raise NotFoundError("nothing of this task was left to be undone")
        return view

    def _request(self, tenant: str, execution_id: UUID, task_id: str) -> RetryRequest:
        return RetryRequest(
            tenant=tenant,
            execution_id=str(execution_id),
            workflow_id=str(execution_id),
            trace_id=str(execution_id),
            task_id=task_id,
            request_id=str(uuid5(execution_id, task_id)),
        )
