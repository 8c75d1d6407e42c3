"""Host processes as Redis knows them: wishes for hosts, their reports, their logins, messages to them.

Implements the protocols of `engine.agents.hostport`. The agents stream has no consumer group: each heartbeat says
all that a registration says, so that whoever reads may begin anywhere, and two readers do not take from each other.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID

import orjson
from pydantic import ValidationError
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoPermissionError, RedisError

from engine.contracts.hosts import Group, HostEvent, HostReport, Wanted
from engine.contracts.streams import partition_of
from engine.errors import ConfigurationError, UnavailableError
from engine.events import keys, wire
from engine.observability.log import get_logger

log = get_logger(__name__)

READ_COUNT: Final = 1_000
AGENTS_STREAM_MAX: Final = 10_000
RETIRED_STREAM_SECONDS: Final = 3_600
PIPELINE_MAX: Final = 500
USER_PREFIX: Final = "agent-"


class HostStreams:
    """All of it for one connection pool. Every method raises UnavailableError when Redis does not answer."""

    def __init__(self, redis: Redis, partitions: int) -> None:
        self._redis = redis
        self._partitions = partitions
        self._subscription: PubSub | None = None

    async def close(self) -> None:
        """The subscription only: the pool is the caller's."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.aclose()  # type: ignore[no-untyped-call]  # the client's own gap

    # Tenants and wishes ----------------------------------------------------------------------------------------

    async def tenants(self) -> Sequence[str]:
        async with _available():
            return sorted(_text(member) for member in await self._redis.smembers(keys.TENANTS))

    async def add_tenants(self, tenants: Sequence[str]) -> None:
        if tenants:
            async with _available():
                await self._redis.sadd(keys.TENANTS, *tenants)

    async def want(self, group: Group, hosts: int, until_ms: int) -> None:
        """Two that ask at once may overwrite each other; whoever still lacks a host asks again."""
        key = keys.hosts_wanted(group.tenant)
        async with _available():
            await self._redis.sadd(keys.TENANTS, group.tenant)
            present = _wanted(await self._redis.hget(key, group.agent_type))
            if present is not None and present.until_ms > time.time() * 1000:
                hosts, until_ms = max(hosts, present.hosts), max(until_ms, present.until_ms)
            await self._redis.hset(key, group.agent_type, orjson.dumps({"hosts": hosts, "until_ms": until_ms}))
            await self._redis.publish(keys.FLEET_CHANNEL, group.tenant)

    async def wanted(self, tenants: Sequence[str]) -> dict[Group, Wanted]:
        async with _available(), self._redis.pipeline(transaction=False) as pipe:
            for tenant in tenants:
                pipe.hgetall(keys.hosts_wanted(tenant))
            answers = await pipe.execute()
        found: dict[Group, Wanted] = {}
        for tenant, fields in zip(tenants, answers, strict=True):
            for agent_type, raw in fields.items():
                wanted = _wanted(raw)
                if wanted is not None:
                    found[Group(tenant, _text(agent_type))] = wanted
        return found

    async def forget_wish(self, group: Group, until_ms: int) -> None:
        key = keys.hosts_wanted(group.tenant)
        async with _available():
            present = _wanted(await self._redis.hget(key, group.agent_type))
            if present is None or present.until_ms <= until_ms:
                await self._redis.hdel(key, group.agent_type)

    async def woken(self, timeout_seconds: float) -> None:
        async with _available():
            try:
                if self._subscription is None:
                    self._subscription = self._redis.pubsub(ignore_subscribe_messages=True)
                    await self._subscription.subscribe(keys.FLEET_CHANNEL)
                message: Any = await self._subscription.get_message(
                    ignore_subscribe_messages=True, timeout=timeout_seconds
                )
                while message is not None:  # one look answers all that came
                    message = await self._subscription.get_message(ignore_subscribe_messages=True, timeout=0.0)
            except BaseException:
                await self.close()
                raise

    # What hosts say --------------------------------------------------------------------------------------------

    async def reports(self, after: dict[str, str], block_seconds: float) -> dict[str, tuple[Sequence[HostReport], str]]:
        streams: dict[Any, Any] = {keys.agents_stream(tenant): entry_id for tenant, entry_id in after.items()}
        tenants = {keys.agents_stream(tenant).encode(): tenant for tenant in after}
        async with _available():
            answer: Any = await self._redis.xread(streams, count=READ_COUNT, block=int(block_seconds * 1000))
        found: dict[str, tuple[Sequence[HostReport], str]] = {}
        for stream, entries in answer or ():
            reports = [report for entry_id, fields in entries if (report := _report(entry_id, fields)) is not None]
            found[tenants[stream]] = (reports, entries[-1][0].decode())
        return found

    async def trim_reports(self, before: dict[str, str]) -> None:
        async with _available(), self._redis.pipeline(transaction=False) as pipe:
            for tenant, entry_id in before.items():
                pipe.xtrim(keys.agents_stream(tenant), minid=entry_id, approximate=True)
            await pipe.execute()

    async def host_gone(self, tenant: str, host_id: str, reason: str = "") -> None:
        timestamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        fields: dict[Any, Any] = {
            "event_type": "agent.disconnected",
            "timestamp": timestamp,
            "payload": orjson.dumps({"host_id": host_id, **({"reason": reason} if reason else {})}),
        }
        async with _available():
            await self._redis.xadd(keys.agents_stream(tenant), fields, maxlen=AGENTS_STREAM_MAX, approximate=True)

    # What hosts and executions are told ------------------------------------------------------------------------

    async def tell_executions(
        self,
        tenant: str,
        execution_ids: Sequence[UUID],
        event: HostEvent,
        host_id: str,
        reason: str = "",
        speed: float = 1.0,
    ) -> None:
        """An entry in the partition stream of each, as if an agent had reported it."""
        at_ms = time.time_ns() // 1_000_000
        more: dict[str, Any] = {"reason": reason} if reason else {}
        if event == "agent.speed":
            more["speed"] = speed
        body = wire.encode_events([{"type": event, "at_ms": at_ms, "host_id": host_id, **more}])
        for first in range(0, len(execution_ids), PIPELINE_MAX):
            batch = [str(execution_id) for execution_id in execution_ids[first : first + PIPELINE_MAX]]
            async with _available():
                await add_reports(self._redis, self._partitions, tenant, batch, body)

    async def tell_host_to_renew(self, tenant: str, host_id: str) -> None:
        stream = keys.tasks_stream(tenant, host_id)
        async with _available(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xadd(stream, {"b": wire.encode_host_entry({"v": 1, "renew": True})}, maxlen=1_000, approximate=True)
            pipe.expire(stream, RETIRED_STREAM_SECONDS)
            await pipe.execute()

    async def retire_stream(self, tenant: str, host_id: str) -> None:
        """Executions that have not heard of it may still write there for a while."""
        async with _available():
            await self._redis.expire(keys.tasks_stream(tenant, host_id), RETIRED_STREAM_SECONDS)

    # Logins ----------------------------------------------------------------------------------------------------

    async def ensure_logins(self, passwords: dict[str, str]) -> Sequence[str]:
        async with _available():
            present = {_text(user) for user in await self._redis.execute_command("ACL USERS")}  # type: ignore[no-untyped-call]  # the client's own gap
            missing = [tenant for tenant in passwords if USER_PREFIX + tenant not in present]
            for tenant in missing:
                await self.set_login(tenant, passwords[tenant])
        return missing

    async def set_login(self, tenant: str, password: str) -> None:
        """Make or renew the login of a tenant's agents: it reads its hosts' streams and adds to reports, no more."""
        prefix = keys.tenant_prefix(tenant)
        rules = [
            "reset", "on", f">{password}", "-@all", "+auth", "+hello", "+ping", "+select", "+quit", "+reset", "+echo",
            "+client|setinfo", "+client|setname", "+client|id",
            f"(~{prefix}tasks:* +xread +xrange +xlen +xtrim +xdel +del +exists)",
            f"(~{prefix}in:* ~{prefix}agents +xadd)",
        ]  # fmt: skip
        if isinstance(self._redis, RedisCluster):
            # Its clients ask which node has which slot, and which arguments of a command are keys.
            rules += ["+cluster|slots", "+cluster|shards", "+cluster|myid", "+command"]
        async with _available():
            await self._redis.execute_command("ACL SETUSER", USER_PREFIX + tenant, *rules)  # type: ignore[no-untyped-call]  # the client's own gap


async def add_reports(redis: Redis, partitions: int, tenant: str, execution_ids: Sequence[str], body: bytes) -> None:
    """An entry in the partition stream of each, in one round trip: the caller sees to it that they are not too many."""
    async with redis.pipeline(transaction=False) as pipe:
        for execution_id in execution_ids:
            partition = partition_of(execution_id, partitions)
            pipe.xadd(keys.partition_stream(tenant, partition), {"x": execution_id, "b": body})
        await pipe.execute()


@asynccontextmanager
async def _available() -> AsyncIterator[None]:
    """Driver's errors as ours, and no cancellation lost in the driver: it writes under `asyncio.wait_for`, which before
    Python 3.12 swallows one that comes as the write ends, and it may raise an error of its own while it closes a
    connection. A loop around it would then never stop."""
    task = asyncio.current_task()
    cancellations = 0 if task is None else task.cancelling()
    try:
        yield
    except NoPermissionError as error:
        raise ConfigurationError(
            f"the engine's Redis login may not do this: {error}; give it all keys, channels and the ACL command"
        ) from error
    except (RedisError, OSError, TimeoutError) as error:
        raise UnavailableError(f"Redis does not answer: {type(error).__name__}: {error}") from error
    finally:
        if task is not None and task.cancelling() > cancellations:
            raise asyncio.CancelledError


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _wanted(raw: bytes | str | None) -> Wanted | None:
    if raw is None:
        return None
    try:
        return Wanted.model_validate_json(raw)
    except ValidationError:
        log.warning("hosts.wish_malformed", size_bytes=len(raw))
        return None


def _report(entry_id: bytes, fields: dict[bytes, bytes]) -> HostReport | None:
    """None for what is not understood: it is logged and passed over."""
    try:
        payload = orjson.loads(fields[b"payload"])
        known = {name: payload[name] for name in HostReport.model_fields if name in payload}
        known.update(entry_id=entry_id.decode(), event=fields[b"event_type"].decode())
        return HostReport.model_validate(known)
    except (KeyError, TypeError, ValueError) as error:
        log.warning("hosts.report_malformed", entry_id=entry_id.decode(), error=type(error).__name__)
        return None
