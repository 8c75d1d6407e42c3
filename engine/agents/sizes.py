"""What an agent takes: what its definition says, or else its type in the catalogue, or else the settings.

The gateway and the allocator must agree on it, so that an execution's constraints hold for the pods that are made.
"""

from dataclasses import dataclass
from typing import Final

from engine.agents.catalogue import runs_in_pods
from engine.contracts.capacity import MICROS, NO_CEILING, AgentCeiling, AgentNeed
from engine.contracts.catalogue import Catalogue
from engine.contracts.definition import AgentRequirement
from engine.contracts.resources import parse_cpu_cores, parse_memory_bytes
from engine.settings import Settings

KUBERNETES: Final = "kubernetes"
MILLI: Final = MICROS // 1000


@dataclass(frozen=True, slots=True)
class AgentSizes:
    """`need` for definitions, `amounts` for what the kernel carries."""

    catalogue: Catalogue
    in_pods: bool
    cpu_micros: int = 0
    memory_bytes: int = 0
    ceiling: AgentCeiling = NO_CEILING
    """What all agents of a tenant may take together: the quota of its namespace."""

    @classmethod
    def of(cls, settings: Settings, catalogue: Catalogue) -> "AgentSizes":
        if settings.allocator != KUBERNETES:
            return cls(catalogue, in_pods=False)
        return cls(
            catalogue,
            in_pods=True,
            cpu_micros=round(settings.kubernetes_agent_cpu_cores * MICROS),
            memory_bytes=settings.kubernetes_agent_memory_bytes,
            ceiling=AgentCeiling(
                agents=settings.kubernetes_quota_pods,
                cpu_micros=round(settings.kubernetes_quota_cpu_cores * MICROS),
                memory_bytes=settings.kubernetes_quota_memory_bytes,
            ),
        )

    def need(self, agent: AgentRequirement) -> AgentNeed:
        said = AgentNeed.of(agent)
        cpu_micros, memory_bytes = self.amounts(agent.type, said.cpu_micros, said.memory_bytes)
        return AgentNeed(count=agent.count, cpu_micros=cpu_micros, memory_bytes=memory_bytes)

    def amounts(self, agent_type: str, cpu_micros: int, memory_bytes: int) -> tuple[int, int]:
        """CPU and memory of one agent, of which the definition says so much (0: nothing)."""
        known = self.catalogue.agents.get(agent_type)
        if not self.in_pods or not runs_in_pods(known):
            return cpu_micros, memory_bytes
        pod = known.kubernetes
        cpu = round(parse_cpu_cores(pod.cpu) * MICROS) if pod.cpu is not None else self.cpu_micros
        memory = parse_memory_bytes(pod.memory) if pod.memory is not None else self.memory_bytes
        # Kubernetes counts thousandths of a core: what is rounded up there must be counted as much here.
        return -(-(cpu_micros or cpu) // MILLI) * MILLI, memory_bytes or memory
