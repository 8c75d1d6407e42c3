"""A host that is written from the protocol's description alone: what it does wrong, no library has kept it from."""

import json
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

from redis import Redis

TIMEOUT_SECONDS: Final = 60.0
HEARTBEAT_SECONDS: Final = 1.0
READ_BLOCK_MS: Final = 200

Assigned = tuple[str, dict[str, Any], dict[str, Any]]
"""The stream for reports, the entry, the assignment."""


class ForeignHost:
    """Takes one assignment after the other."""

    def __init__(self, redis: "Redis", tenant: str, agent_type: str) -> None:
        self._redis = redis
        self._tenant = tenant
        self._type = agent_type
        self._id = f"foreign-{uuid.uuid4().hex[:12]}"
        self._read: str = "0-0"
        self._beat_at = 0.0
        self._waiting: list[Assigned] = []
        self._announce("agent.registered")

    def next_assignment(self) -> Assigned:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not self._waiting:
            assert time.monotonic() < deadline, "nothing was assigned to the foreign host"
            self._announce_now_and_then()
            stream = f"orc:{{{self._tenant}}}:tasks:{self._id}"
            reply: Any = self._redis.xread({stream: self._read}, block=READ_BLOCK_MS)
            for _, entries in reply or ():
                for entry_id, fields in entries:
                    self._read = entry_id.decode()
                    entry = json.loads(fields[b"b"])
                    self._waiting += [(entry["reply_to"], entry, item) for item in entry.get("assign", ())]
        return self._waiting.pop(0)

    def report(self, assigned: Assigned, event_type: str, *, packed: bool = False, **fields: Any) -> None:
        reply_to, entry, item = assigned
        payload = {name: item[name] for name in ("task_id", "agent_id", "epoch", "attempt")} | fields
        if packed:
            event = {"type": event_type, "at_ms": time.time_ns() // 1_000_000, **payload}
            self._redis.xadd(reply_to, {"x": entry["execution_id"], "b": json.dumps([event])})
            return
        self._redis.xadd(
            reply_to,
            {
                "event_type": event_type,
                "execution_id": entry["execution_id"],
                "timestamp": datetime.now(UTC).isoformat(),
                "payload": json.dumps(payload),
            },
        )

    def leave(self) -> None:
        self._announce("agent.disconnected")

    def _announce_now_and_then(self) -> None:
        if time.monotonic() - self._beat_at > HEARTBEAT_SECONDS:
            self._announce("agent.heartbeat")

    def _announce(self, event_type: str) -> None:
        payload = {"host_id": self._id, "types": [self._type], "capabilities": "*", "slots": 1}
        fields = {"event_type": event_type, "timestamp": datetime.now(UTC).isoformat(), "payload": json.dumps(payload)}
        self._redis.xadd(f"orc:{{{self._tenant}}}:agents", fields, maxlen=10_000)  # type: ignore[arg-type]
        self._beat_at = time.monotonic()


@contextmanager
def foreign_host(url: str, tenant: str, agent_type: str) -> Iterator[ForeignHost]:
    redis = Redis.from_url(url, socket_timeout=TIMEOUT_SECONDS)
    try:
        host = ForeignHost(redis, tenant, agent_type)
        yield host
        host.leave()
    finally:
        redis.close()
