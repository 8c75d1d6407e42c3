"""What no tenant's quota could ever hold is refused when it is created; constraints count what pods will ask for."""

from typing import Any, cast

import pytest

from engine.agents.sizes import AgentSizes
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.definition import WorkflowDefinition
from engine.errors import ResourcesUnsatisfiableError
from engine.settings import Settings
from gateway.operations.definitions import AgentSizeLimits, DefinitionOperations

CATALOGUE = Catalogue(agents={"coder": AgentType(entry="python:m:f")})


def operations(**given: Any) -> DefinitionOperations:
    settings = Settings(_env_file=None, allocator="kubernetes", **given)
    sizes = AgentSizes.of(settings, CATALOGUE)
    limits = AgentSizeLimits(settings.agent_cpu_cores_max, settings.agent_memory_bytes_max, sizes.need, sizes.ceiling)
    nothing = cast(Any, None)
    return DefinitionOperations(nothing, nothing, nothing, nothing, ("supervisor",), limits)


def definition(**roles: dict[str, Any]) -> WorkflowDefinition:
    first = next(iter(roles))
    return WorkflowDefinition.model_validate(
        {
            "name": "n",
            "version": "1",
            "orchestration_pattern": "supervisor",
            "agents": {role: {"type": "coder", **fields} for role, fields in roles.items()},
            "tasks": [{"id": "a", "agent": first}],
            "coordination": {"type": "graph_based"},
        }
    )


@pytest.mark.parametrize(
    ("roles", "told"),
    [
        ({"w": {"resources": {"cpu": "101 cores"}}}, "101 cores of at most 100"),
        ({"w": {"resources": {"memory": "201Gi"}}}, "memory"),
        ({f"r{n}": {"resources": {"cpu": "30"}} for n in range(4)}, "120 cores of at most 100"),
    ],
)
def test_what_exceeds_the_quota_by_itself_is_refused(roles: dict[str, Any], told: str) -> None:
    with pytest.raises(ResourcesUnsatisfiableError, match=told) as raised:
        operations()._check_sizes(definition(**roles))
    assert raised.value.data["roles"] == [f"agents.{role}.resources" for role in sorted(roles)]


def test_agents_of_which_nothing_is_said_count_as_what_their_pods_will_ask_for() -> None:
    roles: dict[str, dict[str, Any]] = {f"r{n}": {} for n in range(5)}
    operations(kubernetes_quota_cpu_cores=2.0)._check_sizes(definition(**roles))
    with pytest.raises(ResourcesUnsatisfiableError, match=r"1\.25 cores of at most 1"):
        operations(kubernetes_quota_cpu_cores=1.0)._check_sizes(definition(**roles))


def test_many_agents_that_may_come_one_after_the_other_are_taken() -> None:
    operations()._check_sizes(definition(w={"count": 1_000, "resources": {"cpu": "1"}}))
