"""Names of keys in Redis. The braces are part of a key: a hash tag that keeps a tenant's keys together in a cluster."""

from typing import Final

GROUP: Final = "orchestrator"
FACT_GROUPS: Final = (GROUP, "monitor", "hooks_executor")
"""Consumer groups that each stream of published facts has from the beginning."""

TENANTS: Final = "orc:tenants"
FLEET_CHANNEL: Final = "orc:fleet"
BRIDGES: Final = "orc:bridges"
PRESSURE: Final = "orc:pressure"


def tenant_prefix(tenant: str) -> str:
    return f"orc:{{{tenant}}}:"


def partition_stream(tenant: str, partition: int) -> str:
    return f"{tenant_prefix(tenant)}in:{partition}"


def replies_stream(tenant: str, execution_id: str, task_id: str) -> str:
    """Reports of what an activity has done by an agent. Agents may write to whatever begins as partitions do."""
    return f"{tenant_prefix(tenant)}in:replies:{execution_id}:{task_id}"


def agents_stream(tenant: str) -> str:
    return f"{tenant_prefix(tenant)}agents"


def tasks_stream(tenant: str, host_id: str) -> str:
    return f"{tenant_prefix(tenant)}tasks:{host_id}"


def tick_key(tenant: str, execution_id: str) -> str:
    return f"{tenant_prefix(tenant)}x:{execution_id}:tick"


def feed_channel(tenant: str, execution_id: str) -> str:
    return f"{tenant_prefix(tenant)}x:{execution_id}:feed"


def hosts_wanted(tenant: str) -> str:
    return f"{tenant_prefix(tenant)}hosts:wanted"


def facts_stream(tenant: str, partition: int) -> str:
    """What the executions of a partition have committed, in packs."""
    return f"{tenant_prefix(tenant)}events:{partition}"


def facts_expanded(tenant: str, partition: int) -> str:
    """Up to which pack the workflows' own streams have it."""
    return f"{facts_stream(tenant, partition)}:expanded"


def workflow_events_prefix(tenant: str) -> str:
    """With a workflow's id behind it: its facts, one entry each."""
    return f"{tenant_prefix(tenant)}workflow:events:"


def dead_letters(tenant: str) -> str:
    return f"{tenant_prefix(tenant)}workflow_events_dlq"


def bridges(*, clustered: bool = False) -> str:
    return "orc:{bridges}" if clustered else BRIDGES


def partition_owner(partition: int, *, clustered: bool = False) -> str:
    """In a cluster all leases lie in one slot: they are shared out in one step."""
    return f"{bridges(clustered=True)}:{partition}:owner" if clustered else f"orc:partition:{partition}:owner"


def partition_fence(partition: int, *, clustered: bool = False) -> str:
    return f"{bridges(clustered=True)}:{partition}:fence" if clustered else f"orc:partition:{partition}:fence"


HOOK_GROUP: Final = "hook_workers"
HOOK_TENANTS: Final = "orc:hooks:tenants"
HOOKS_CHANGED_CHANNEL: Final = "orc:hooks:changed"
"""Pub/sub: the names of tenants whose hooks were changed."""


def hooks_queue(tenant: str, band: int) -> str:
    """Entries for hook workers: one stream a band, since a stream is first in, first out."""
    return f"{tenant_prefix(tenant)}hooks:queue:{band}"


def hooks_reply(tenant: str, request_id: str) -> str:
    """Where the answer to a run that somebody waits for is put."""
    return f"{tenant_prefix(tenant)}hooks:reply:{request_id}"


def breakers(tenant: str | None) -> str:
    """The names of the tenant's circuit breakers; without a tenant, of those before services that the engine calls."""
    return "orc:breakers:{services}" if tenant is None else f"{tenant_prefix(tenant)}breakers"


def breaker(tenant: str | None, service: str) -> str:
    return f"orc:breaker:{{services}}:{service}" if tenant is None else f"{tenant_prefix(tenant)}breaker:{service}"


def breaker_waiting(tenant: str | None, service: str) -> str:
    """The executions that were told that it is not closed."""
    return f"{breaker(tenant, service)}:waiting"


def agent_failures(tenant: str) -> str:
    """How many attempts of each agent type have failed."""
    return f"{tenant_prefix(tenant)}agent_failures"
