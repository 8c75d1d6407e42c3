"""Use cases about the engine rather than one execution: patterns, agents, capacity, the operation log."""

from typing import Any, Final, Literal
from uuid import UUID, uuid5

from pydantic import Field

from engine.contracts.execution import ExecutionStatus
from engine.contracts.model import Model, StrictModel
from engine.contracts.patterns import PATTERNS, PatternDescription
from engine.contracts.views import Page
from engine.errors import NotFoundError
from engine.ports import ExecutionStore, HostRecord, HostStore, OperationLog
from gateway.operations.operation import Caller, NoParameters, PageParameters, whole_number_token

PATTERN_NAMESPACE: Final = UUID("0b1e5a0e-6f0e-5d0c-8a53-5d7a5a2f1c77")
COUNT_PAGE: Final = 1_000
COUNT_PAGES_MAX: Final = 10


PatternFilter = Literal["built-in", "custom", "all"]


class ListAgents(PageParameters):
    type: str | None = Field(None, max_length=255)


class ListPatterns(StrictModel):
    filter: PatternFilter = "all"


class PagePatterns(PageParameters):
    filter: PatternFilter = "all"


class PatternReference(StrictModel):
    name: str = Field(max_length=255)


class PatternView(Model):
    pattern_id: UUID
    name: str
    version: str
    type: Literal["built-in", "custom"]
    description: str
    supported: bool


class PatternDetail(PatternView):
    config_schema: dict[str, Any]


class PatternList(Model):
    patterns: tuple[PatternView, ...]


class Capacity(Model):
    executions: dict[str, int]
    counted_to: int = Field(description="counts stop here")
    hosts: int
    slots: int


class SystemOperations:
    def __init__(self, executions: ExecutionStore, hosts: HostStore, log: OperationLog) -> None:
        self._executions = executions
        self._hosts = hosts
        self._log = log

    async def patterns(self, _caller: Caller, request: ListPatterns) -> PatternList:
        return PatternList(patterns=_shown(request.filter))

    async def page_of_patterns(self, _caller: Caller, request: PagePatterns) -> Page[PatternView]:
        shown, start = _shown(request.filter), whole_number_token(request.page_token)
        end = start + request.limit
        return Page[PatternView](items=shown[start:end], next_page_token=str(end) if end < len(shown) else None)

    async def pattern(self, _caller: Caller, request: PatternReference) -> PatternDetail:
        pattern = PATTERNS.get(request.name)
        if pattern is None:
            raise NotFoundError("no such pattern")
        return PatternDetail(**_described(pattern), config_schema=pattern.config_schema())

    async def agents(self, caller: Caller, request: ListAgents) -> Page[HostRecord]:
        return await self._hosts.page(
            caller.tenant,
            limit=request.limit,
            page_token=request.page_token,
            agent_type=request.type,
            state="live",
        )

    async def capacity(self, caller: Caller, _request: NoParameters) -> Capacity:
        open_statuses = [status for status in ExecutionStatus if not status.closed]
        counts = {status.value: await self._count(caller.tenant, status) for status in open_statuses}
        hosts = (await self._hosts.page(caller.tenant, limit=COUNT_PAGE, page_token=None, state="live")).items
        return Capacity(
            executions=counts,
            counted_to=COUNT_PAGE * COUNT_PAGES_MAX,
            hosts=len(hosts),
            slots=sum(host.slots for host in hosts),
        )

    async def audit(self, caller: Caller, request: PageParameters) -> Page[dict[str, Any]]:
        return await self._log.list(caller.tenant, limit=request.limit, page_token=request.page_token)

    async def _count(self, tenant: str, status: ExecutionStatus) -> int:
        count, token = 0, None
        for _ in range(COUNT_PAGES_MAX):
            page = await self._executions.list(tenant, limit=COUNT_PAGE, page_token=token, status=status)
            count, token = count + len(page.items), page.next_page_token
            if token is None:
                break
        return count


def _shown(which: PatternFilter) -> tuple[PatternView, ...]:
    shown = () if which == "custom" else PATTERNS.values()
    return tuple(PatternView(**_described(pattern)) for pattern in shown)


def _described(pattern: PatternDescription) -> dict[str, Any]:
    return {
        "pattern_id": uuid5(PATTERN_NAMESPACE, f"{pattern.name}\n{pattern.version}"),
        "name": pattern.name,
        "version": pattern.version,
        "type": "built-in",
        "description": pattern.description,
        "supported": pattern.supported,
    }
