"""What agents take where the definition does not say it, and what may never fit."""

from engine.agents.sizes import AgentSizes
from engine.contracts.capacity import MICROS, AgentCeiling, allot, demand_of
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.definition import AgentRequirement, Resources
from engine.contracts.pods import PodSettings
from engine.settings import Settings

CATALOGUE = Catalogue(
    agents={
        "plain": AgentType(entry="python:m:f"),
        "large": AgentType(entry="python:m:f", kubernetes=PodSettings(cpu="2", memory="1Gi")),
        "outside": AgentType(entry="external"),
    }
)
PODS = AgentSizes.of(Settings(_env_file=None, allocator="kubernetes"), CATALOGUE)


def test_the_definition_comes_before_the_catalogue_and_that_before_the_settings() -> None:
    assert PODS.amounts("large", 5_000, 7) == (5_000, 7)
    assert PODS.amounts("large", 5_001, 7) == (6_000, 7), "as Kubernetes will count it"
    assert PODS.amounts("large", 0, 0) == (2 * MICROS, 1024**3)
    assert PODS.amounts("plain", 0, 0) == (MICROS // 4, 256 * 1024**2)
    assert PODS.amounts("outside", 0, 0) == (0, 0)
    assert PODS.amounts("unknown", 0, 3) == (0, 3)


def test_constraints_hold_for_agents_of_which_the_definition_says_nothing() -> None:
    needs = {"w": PODS.need(AgentRequirement(type="plain", count=50))}
    counts = allot(needs, AgentCeiling(cpu_micros=2 * MICROS))
    assert counts == {"w": 8}
    assert demand_of(needs, counts).cpu_micros <= 2 * MICROS


def test_the_quota_is_the_ceiling() -> None:
    assert PODS.ceiling == AgentCeiling(agents=500, cpu_micros=100 * MICROS, memory_bytes=200 * 1024**3)


def test_without_pods_nothing_is_added() -> None:
    sizes = AgentSizes.of(Settings(_env_file=None), CATALOGUE)
    agent = AgentRequirement(type="large", resources=Resources(cpu="1"))
    assert sizes.need(agent).cpu_micros == MICROS
    assert sizes.need(agent).memory_bytes == 0
    assert sizes.ceiling == AgentCeiling()
