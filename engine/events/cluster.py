"""A client of Redis Cluster that does what the engine asks of one server.

All keys of a tenant lie in one slot, so nearly every command has one node to go to. The few that ask for many tenants
at once are taken apart here: reading many streams, looking through keys, what is asked of the server itself. Whoever
uses the client need not know which of the two it is.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final, cast

from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, ClusterPubSub, RedisCluster
from redis.asyncio.retry import Retry
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisClusterException, RedisError, SlotNotCoveredError

from engine.redis_addresses import addresses, cluster_login

POLL_SECONDS: Final = 0.01
"""Between two looks at streams of several slots: one server would wait, several cannot be waited for at once."""
POLL_MAX_SECONDS: Final = 0.05

_OUTAGES: Final = ("Redis Cluster cannot be connected", "All slots are not covered", "startup_nodes could not agree")
_STREAMS: Final = ("XREAD", "XREADGROUP")
_CALLS: Final = ("FCALL", "FCALL_RO")


def connect_cluster(url: str, *, retry: Retry, **options: Any) -> Redis:
    """Some of its nodes are enough. Raises ConfigurationError."""
    user, password = cluster_login(url)
    client = ClusterClient(
        startup_nodes=[ClusterNode(host, port) for host, port in addresses(url)],
        username=user,
        password=password,
        ssl=url.startswith("rediss"),
        retry=retry,
        **options,
    )
    # It has the commands of one server; what differs is above.
    return cast(Redis, client)


class ClusterClient(RedisCluster):
    """What the library calls errors of the cluster are no errors of Redis to it. Of those, what an outage brings
    (no node answers, slots that nobody serves) is raised as the lost connection that it is."""

    async def initialize(self, *args: Any, **kwargs: Any) -> "ClusterClient":
        with _outages():
            await super().initialize(*args, **kwargs)
        return self

    def forget_topology(self) -> None:
        """Before the next command the nodes are asked who serves which slots."""
        self._initialize = True

    async def aclose(self) -> None:
        """The library takes a client whose last command failed for one that has nothing to close."""
        await super().aclose()
        if self._lock is None:
            return
        async with self._lock:
            self.forget_topology()
            nodes = self.nodes_manager
            for known in (nodes.nodes_cache, nodes.startup_nodes):
                closing = [task for node in known.values() for task in node._background_tasks]
                await asyncio.gather(*closing, return_exceptions=True)
            await asyncio.gather(*nodes._background_tasks, return_exceptions=True)
            await nodes.aclose()
            await nodes.aclose("startup_nodes")

    def pubsub(self, *args: Any, **kwargs: Any) -> ClusterPubSub:
        return _Subscriptions(self, *args, **kwargs)

    async def _determine_slot(self, command: str, *args: Any) -> int:
        """The library asks a server which of the arguments are keys: a round trip more for every such command."""
        name = command.upper()
        if name in _CALLS:
            return self._one_slot(args[2 : 2 + int(args[1])])
        if name in _STREAMS:
            return self._one_slot(_streams_of(args))
        return await super()._determine_slot(command, *args)

    def _one_slot(self, names: Iterable[Any]) -> int:
        slots = {self.keyslot(name) for name in names}
        if len(slots) != 1:
            raise RedisClusterException("keys of several slots in one command")
        return slots.pop()

    def _by_slot(self, streams: dict[Any, Any]) -> list[dict[Any, Any]]:
        parts: defaultdict[int, dict[Any, Any]] = defaultdict(dict)
        for name, entry_id in streams.items():
            parts[self.keyslot(name)][name] = entry_id
        return list(parts.values())

    async def xread(self, streams: Any, count: int | None = None, block: int | None = None) -> Any:  # type: ignore[override]
        parts = self._by_slot(streams)
        if len(parts) == 1:
            return await super().xread(streams, count=count, block=block)
        return await self._read_parts(
            block, [["XREAD", *_options(count), "STREAMS", *part, *part.values()] for part in parts]
        )

    async def xreadgroup(  # type: ignore[override]
        self, groupname: Any, consumername: Any, streams: Any, count: int | None = None, block: int | None = None
    ) -> Any:
        parts = self._by_slot(streams)
        if len(parts) == 1:
            return await super().xreadgroup(groupname, consumername, streams, count=count, block=block)
        group = ["XREADGROUP", "GROUP", groupname, consumername, *_options(count), "STREAMS"]
        return await self._read_parts(block, [[*group, *part, *part.values()] for part in parts])

    async def _read_parts(self, block: int | None, commands: list[list[Any]]) -> list[Any]:
        """One look at all of them after another, until something is there or `block` milliseconds are over.

        A failure is raised whatever the others answer: an answer may have got lost with it, and what is read for a
        group is then taken over before anything that came later.
        """
        until, pause = time.monotonic() + (block or 0) / 1000, POLL_SECONDS
        while True:
            answers = await asyncio.gather(
                *(self.execute_command(*command) for command in commands), return_exceptions=True
            )
            found = [stream for answer in answers if isinstance(answer, list) for stream in answer]
            failures = [answer for answer in answers if isinstance(answer, BaseException)]
            if failures:
                raise failures[0]
            if found or block is None or time.monotonic() >= until:
                return found
            await asyncio.sleep(min(pause, max(0.0, until - time.monotonic())))
            pause = min(pause * 2, POLL_MAX_SECONDS)

    async def function_load(self, code: Any, replace: bool | None = False) -> Any:
        """On every node that may be written to; replicas have it from there."""
        arguments = ["REPLACE", code] if replace else [code]
        return await self.execute_command("FUNCTION LOAD", *arguments, target_nodes=RedisCluster.PRIMARIES)

    async def info(self, section: str | None = None, *args: Any, **kwargs: Any) -> Any:
        """Of the fullest node: what one refuses, the cluster refuses."""
        found = await super().info(
            *([section] if section else []), *args, target_nodes=RedisCluster.PRIMARIES, **kwargs
        )
        nodes = [found] if "used_memory" in found or not found else list(found.values())
        return max(nodes, key=_fullness) if section == "memory" else nodes[0]

    async def scan(
        self, cursor: Any = 0, match: Any = None, count: int | None = None, _type: str | None = None, **kwargs: Any
    ) -> Any:
        """Of names with a hash tag, where they are."""
        if "target_nodes" in kwargs:
            return await super().scan(cursor, match=match, count=count, _type=_type, **kwargs)
        if match is None or "{" not in str(match):
            raise RedisClusterException("keys without a hash tag lie everywhere")
        await self.initialize()
        node = self.get_node_from_key(str(match))
        found = await super().scan(cursor, match=match, count=count, _type=_type, target_nodes=node)
        cursors, names = found
        return (next(iter(cursors.values())) if isinstance(cursors, dict) else cursors), names

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        """Logins are each node's own."""
        everywhere = str(args[0]).upper().startswith("ACL") and "target_nodes" not in kwargs
        if everywhere:
            kwargs["target_nodes"] = RedisCluster.ALL_NODES
        with _outages():
            answers = await super().execute_command(*args, **kwargs)
        if not everywhere or not isinstance(answers, dict):
            return answers
        lists = [answer for answer in answers.values() if isinstance(answer, list)]
        if not lists:
            return next(iter(answers.values()))
        # Who is known everywhere: whoever lacks on one node is made again on all.
        return [user for user in lists[0] if all(user in other for other in lists[1:])]


class _Subscriptions(ClusterPubSub):
    """The library subscribes at the node that has the first channel's slot, as it last knew of it."""

    async def execute_command(self, *args: Any, **kwargs: Any) -> Any:
        try:
            await self.cluster.initialize()
            return await super().execute_command(*args, **kwargs)
        except (RedisError, OSError):
            # Another node may have taken its place.
            cast(ClusterClient, self.cluster).forget_topology()
            raise


@contextmanager
def _outages() -> Iterator[None]:
    try:
        yield
    except SlotNotCoveredError as error:
        raise RedisConnectionError(str(error)) from error
    except RedisClusterException as error:
        if str(error).startswith(_OUTAGES):
            raise RedisConnectionError(str(error)) from error
        raise


def _options(count: int | None) -> list[Any]:
    return [] if count is None else ["COUNT", count]


def _streams_of(args: tuple[Any, ...]) -> tuple[Any, ...]:
    names = [str(arg.decode() if isinstance(arg, bytes) else arg).upper() for arg in args]
    rest = args[names.index("STREAMS") + 1 :]
    return rest[: len(rest) // 2]


def _fullness(memory: dict[str, Any]) -> float:
    return float(memory["used_memory"]) / float(memory.get("maxmemory") or memory["total_system_memory"])
