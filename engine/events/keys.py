"""Names of keys in Redis. The braces are part of a key: a hash tag that keeps a tenant's keys together in a cluster."""

from typing import Final

GROUP: Final = "orchestrator"
TENANTS: Final = "orc:tenants"
FLEET_CHANNEL: Final = "orc:fleet"
BRIDGES: Final = "orc:bridges"


def tenant_prefix(tenant: str) -> str:
    return f"orc:{{{tenant}}}:"


def partition_stream(tenant: str, partition: int) -> str:
    return f"{tenant_prefix(tenant)}in:{partition}"


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


def dead_letters(tenant: str) -> str:
    return f"{tenant_prefix(tenant)}workflow_events_dlq"


def partition_owner(partition: int) -> str:
    return f"orc:partition:{partition}:owner"


def partition_fence(partition: int) -> str:
    return f"orc:partition:{partition}:fence"
