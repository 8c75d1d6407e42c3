"""Use cases about the engine rather than one execution: capacity, the operation log."""

from typing import Any, Final

from pydantic import Field

from engine.contracts.capacity import MICROS, PRIORITIES, CapacityLimits, Usage
from engine.contracts.execution import ExecutionStatus, Priority
from engine.contracts.model import Model
from engine.contracts.views import Page
from engine.ports import CapacityReader, HostStore, OperationLog
from gateway.operations.operation import Caller, NoParameters, PageParameters

HOSTS_COUNTED_MAX: Final = 1_000


class CapacityAmounts(Model):
    """None is no limit."""

    executions: int | None = None
    agents: int | None = None
    cpu_cores: float | None = None
    memory_bytes: int | None = None


class CapacityShare(Model):
    in_use: CapacityAmounts = Field(description="held by executions that were started and are not closed")
    waiting: dict[Priority, int]


class TenantCapacity(CapacityShare):
    executions_max: int | None = None
    available_executions: int | None = Field(None, description="that would start at once; null is no limit")


class Capacity(CapacityShare):
    """The engine's totals, and the caller's tenant's own numbers."""

    limits: CapacityAmounts
    waiting_max: int = Field(description="when so many wait, new executions of low priority are refused")
    accepts: dict[Priority, bool]
    tenant: TenantCapacity
    executions: dict[str, int] = Field(description="the tenant's open executions by status")
    hosts: int = Field(description="the tenant's live hosts; of at most 1,000")
    slots: int


class SystemOperations:
    def __init__(
        self, capacity: CapacityReader, hosts: HostStore, log: OperationLog, limits: CapacityLimits | None = None
    ) -> None:
        self._capacity = capacity
        self._hosts = hosts
        self._log = log
        self._limits = limits or CapacityLimits()

    async def capacity(self, caller: Caller, _request: NoParameters) -> Capacity:
        report, limits = await self._capacity.report(caller.tenant), self._limits
        hosts = (await self._hosts.page(caller.tenant, limit=HOSTS_COUNTED_MAX, page_token=None, state="live")).items
        engine, tenant = report.engine, report.tenant
        waiting = sum(engine.waiting.values())
        cpu_micros = limits.cpu_micros
        return Capacity(
            limits=CapacityAmounts(
                executions=limits.executions,
                agents=limits.agents,
                cpu_cores=None if cpu_micros is None else cpu_micros / MICROS,
                memory_bytes=limits.memory_bytes,
            ),
            in_use=_amounts(engine.used),
            waiting=engine.waiting,
            waiting_max=limits.waiting,
            accepts={priority: priority != "low" or waiting < limits.waiting for priority in PRIORITIES},
            tenant=TenantCapacity(
                in_use=_amounts(tenant.used),
                waiting=tenant.waiting,
                executions_max=limits.tenant_executions,
                available_executions=_available(limits, engine.used, tenant.used, waiting),
            ),
            executions={
                status.value: report.open_executions.get(status.value, 0)
                for status in ExecutionStatus
                if not status.closed
            },
            hosts=len(hosts),
            slots=sum(host.slots for host in hosts),
        )

    async def audit(self, caller: Caller, request: PageParameters) -> Page[dict[str, Any]]:
        return await self._log.list(caller.tenant, limit=request.limit, page_token=request.page_token)


def _amounts(used: Usage) -> CapacityAmounts:
    return CapacityAmounts(
        executions=used.executions,
        agents=used.agents,
        cpu_cores=used.cpu_micros / MICROS,
        memory_bytes=used.memory_bytes,
    )


def _available(limits: CapacityLimits, engine: Usage, tenant: Usage, waiting: int) -> int | None:
    """Executions of one small agent that would start at once; where anybody waits, a new one waits too."""
    if waiting:
        return 0
    left = [
        most - used
        for most, used in (
            (limits.executions, engine.executions),
            (limits.agents, engine.agents),
            (limits.tenant_executions, tenant.executions),
        )
        if most is not None
    ]
    return max(0, min(left)) if left else None
