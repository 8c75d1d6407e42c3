"""What a definition needs: agents, time, CPU and memory."""

from typing import Final

from engine.contracts.plan import EstimatedResources
from planner.draft import Draft
from planner.schedule import MICROSECONDS

BYTES_PER_GB: Final = 1_000_000_000


def estimated_resources(draft: Draft) -> EstimatedResources:
    """For all instances of all roles at once; the duration rounded up to whole seconds."""
    agents = draft.definition.agents.values()
    return EstimatedResources(
        agents_required=sum(agent.count for agent in agents),
        estimated_duration_seconds=-(-draft.duration_us // MICROSECONDS),
        cpu_cores=round(sum(agent.count * agent.resources.cpu_cores for agent in agents), 3),
        memory_gb=round(sum(agent.count * agent.resources.memory_bytes for agent in agents) / BYTES_PER_GB, 3),
    )
