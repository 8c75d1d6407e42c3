"""Use case: statistics of executions, as they were counted last."""

from engine.contracts.statistics import Statistics
from engine.ports import StatisticsReader
from gateway.operations.operation import Caller, Id, PageParameters


class ReadStatistics(PageParameters):
    workflow_id: Id | None = None


class StatisticsOperations:
    def __init__(self, store: StatisticsReader) -> None:
        self._store = store

    async def get(self, caller: Caller, request: ReadStatistics) -> Statistics:
        return await self._store.report(
            caller.tenant, limit=request.limit, page_token=request.page_token, workflow_id=request.workflow_id
        )
