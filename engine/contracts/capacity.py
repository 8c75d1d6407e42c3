"""How much may run at once: what an execution's agents take, what one execution and the whole engine may hold.

CPU is counted in millionths of a core, so that sums are exact.
"""

from collections.abc import Mapping
from datetime import datetime
from math import inf
from typing import Final
from uuid import UUID

from pydantic import Field

from engine.contracts.definition import AgentRequirement
from engine.contracts.execution import Priority, ResourceConstraints
from engine.contracts.model import Model
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes

MICROS: Final = 1_000_000

PRIORITY_RANKS: Final[dict[Priority, int]] = {"high": 0, "normal": 1, "low": 2}
"""As the database holds them: lower goes first."""

PRIORITIES: Final[tuple[Priority, ...]] = ("high", "normal", "low")


class AgentNeed(Model):
    """One role: how many agents it wants, and what each of them takes."""

    count: int
    cpu_micros: int = 0
    memory_bytes: int = 0

    @classmethod
    def of(cls, agent: AgentRequirement) -> "AgentNeed":
        resources = agent.resources
        return cls(
            count=agent.count, cpu_micros=round(resources.cpu_cores * MICROS), memory_bytes=resources.memory_bytes
        )


class Demand(Model):
    """What an execution holds from its start to its end: all its agents together."""

    agents: int = 1
    cpu_micros: int = 0
    memory_bytes: int = 0

    def within(self, most: "AgentCeiling") -> bool:
        return not self.exceeding(most)

    def exceeding(self, most: "AgentCeiling") -> tuple[str, ...]:
        """What is above the ceiling, as text for people."""
        found = []
        if most.agents is not None and self.agents > most.agents:
            found.append(f"{self.agents} agents of at most {most.agents}")
        if most.cpu_micros is not None and self.cpu_micros > most.cpu_micros:
            found.append(f"{self.cpu_micros / MICROS:g} cores of at most {most.cpu_micros / MICROS:g}")
        if most.memory_bytes is not None and self.memory_bytes > most.memory_bytes:
            found.append(f"{self.memory_bytes} bytes of memory of at most {most.memory_bytes}")
        return tuple(found)


class AgentCeiling(Model):
    """The most that agents may take together. None is no limit."""

    agents: int | None = None
    cpu_micros: int | None = None
    memory_bytes: int | None = None

    @classmethod
    def of(cls, constraints: ResourceConstraints) -> "AgentCeiling":
        cpu, memory = constraints.max_cpu, constraints.max_memory
        return cls(
            agents=constraints.max_agents,
            cpu_micros=None if cpu is None else round(parse_cpu_cores(cpu) * MICROS),
            memory_bytes=None if memory is None else parse_memory_bytes(memory),
        )


NO_CEILING: Final = AgentCeiling()


class RoleAllotment(Model):
    """How many agents a role has, of those that its definition asks for."""

    wanted: int
    allotted: int


def demand_of(needs: Mapping[str, AgentNeed], counts: Mapping[str, int]) -> Demand:
    """What `counts` agents of each role take together."""
    return Demand(
        agents=sum(counts.values()),
        cpu_micros=sum(needs[role].cpu_micros * count for role, count in counts.items()),
        memory_bytes=sum(needs[role].memory_bytes * count for role, count in counts.items()),
    )


def least_demand(needs: Mapping[str, AgentNeed]) -> Demand:
    """One agent of each role: below this an execution could not do all its tasks."""
    return demand_of(needs, dict.fromkeys(needs, 1))


def allot(needs: Mapping[str, AgentNeed], most: AgentCeiling) -> dict[str, int]:
    """How many agents each role gets: one each, then one more in turn, up to what it wants and the ceiling allows.

    In the end no role could get another one. A higher limit of agents never gives a role fewer; with agents of
    different sizes, a higher limit of cores or memory may, since a large agent then takes what small ones had.

    Raises ValueError when not even one agent of each role fits: the caller asks `least_demand` first.
    """
    wanted = {role: need.count for role, need in needs.items()}
    if demand_of(needs, wanted).within(most):
        return wanted
    held = least_demand(needs)
    if not held.within(most):
        raise ValueError("one agent of each role does not fit")
    counts = dict.fromkeys(needs, 1)
    agents_left = inf if most.agents is None else most.agents - held.agents
    cpu_left = inf if most.cpu_micros is None else most.cpu_micros - held.cpu_micros
    memory_left = inf if most.memory_bytes is None else most.memory_bytes - held.memory_bytes
    growing = [role for role in sorted(needs) if wanted[role] > 1]
    while growing:
        still = []
        for role in growing:
            need = needs[role]
            if agents_left < 1 or need.cpu_micros > cpu_left or need.memory_bytes > memory_left:
                continue  # for good: nothing is given back
            agents_left -= 1
            cpu_left -= need.cpu_micros
            memory_left -= need.memory_bytes
            counts[role] += 1
            if counts[role] < wanted[role]:
                still.append(role)
        growing = still
    return counts


class CapacityLimits(Model):
    """What the engine runs at once, over all tenants. None is no limit."""

    executions: int | None = None
    agents: int | None = None
    cpu_micros: int | None = None
    memory_bytes: int | None = None
    tenant_executions: int | None = Field(None, description="of one tenant")
    waiting: int = Field(1_000, description="when so many wait, new ones of low priority are refused")

    @property
    def ceiling(self) -> AgentCeiling:
        return AgentCeiling(agents=self.agents, cpu_micros=self.cpu_micros, memory_bytes=self.memory_bytes)


class Usage(Model):
    """What is held by executions that were started and are not closed."""

    executions: int = 0
    agents: int = 0
    cpu_micros: int = 0
    memory_bytes: int = 0

    def plus(self, demand: Demand) -> "Usage":
        return Usage(
            executions=self.executions + 1,
            agents=self.agents + demand.agents,
            cpu_micros=self.cpu_micros + demand.cpu_micros,
            memory_bytes=self.memory_bytes + demand.memory_bytes,
        )

    def within(self, limits: CapacityLimits) -> bool:
        if limits.executions is not None and self.executions > limits.executions:
            return False
        held = Demand(agents=self.agents, cpu_micros=self.cpu_micros, memory_bytes=self.memory_bytes)
        return held.within(limits.ceiling)


class Waiting(Model):
    """An execution that waits for its turn."""

    tenant: str
    execution_id: UUID
    priority: Priority
    queued_at: datetime
    demand: Demand


class QueueState(Model):
    """All that decides who is next. `waiting` holds at least the longest waiting of each tenant and priority."""

    used: Usage
    running: dict[str, int] = Field(default_factory=dict, description="started and open executions by tenant")
    waiting: tuple[Waiting, ...] = ()
    now: datetime


class Turn(Model):
    """Who starts now, in order; and who can never start, because the limits were lowered since they were taken."""

    start: tuple[Waiting, ...] = ()
    impossible: tuple[Waiting, ...] = ()


class CapacityUse(Model):
    """What runs and what waits, of the engine or of one tenant."""

    used: Usage
    waiting: dict[Priority, int]


class CapacityReport(Model):
    """Numbers of the whole engine, and those of one tenant."""

    engine: CapacityUse
    tenant: CapacityUse
    open_executions: dict[str, int] = Field(description="the tenant's, by status")
