"""The engine's side of the stream protocol, for tests: assigns, and collects what is reported."""

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import orjson
from redis.asyncio import Redis

from orchestration_agent import AgentHost, HostOptions


class Conversation:
    def __init__(self, redis: Redis, tenant: str, execution_id: str = "") -> None:
        self.redis = redis
        self.tenant = tenant
        self.execution_id = execution_id or str(uuid4())
        self.reply_to = f"orc:{{{tenant}}}:in:0"
        self.events: list[dict[str, Any]] = []
        self.entries = 0
        self.compressed = 0
        self._position: str = "0-0"

    async def tell(self, host_id: str, **fields: Any) -> None:
        document = {
            "v": 1, "execution_id": self.execution_id, "workflow_id": "wf", "trace_id": "tr",
            "reply_to": self.reply_to, "input": {"the": "input"}, **fields,
        }  # fmt: skip
        await self.redis.xadd(f"orc:{{{self.tenant}}}:tasks:{host_id}", {"b": orjson.dumps(document)})

    async def assign(self, host_id: str, *task_ids: str, attempt: int = 1, **more: Any) -> None:
        await self.tell(host_id, assign=[self.assignment(task_id, attempt, **more) for task_id in task_ids])

    @staticmethod
    def assignment(task_id: str, attempt: int = 1, **more: Any) -> dict[str, Any]:
        return {
            "task_id": task_id, "agent_id": "worker-1", "role": "worker", "epoch": 1, "attempt": attempt,
            "action": "act", "input": {}, "results": {}, **more,
        }  # fmt: skip

    async def collect(self) -> None:
        """Take in what was reported about this execution since the last time."""
        answer: Any = await self.redis.xread({self.reply_to: self._position}, block=20)
        for _, entries in answer or ():
            for entry_id, fields in entries:
                self._position = entry_id.decode()
                if fields[b"x"].decode() == self.execution_id:
                    self.entries += 1
                    body = zlib.decompress(fields[b"z"]) if b"z" in fields else fields[b"b"]
                    self.compressed += b"z" in fields
                    self.events += orjson.loads(body)

    def seen(self, kind: str, task_id: str | None = None) -> list[dict[str, Any]]:
        wanted = f"agent.task_{kind}"
        return [e for e in self.events if e["type"] == wanted and task_id in (None, e["task_id"])]

    async def until(self, condition: Callable[[], object], seconds: float = 15.0) -> None:
        """Collect until the condition holds."""
        async with asyncio.timeout(seconds):
            while not condition():
                await self.collect()

    async def ended(self, *task_ids: str) -> None:
        await self.until(lambda: all(self.seen("completed", t) or self.seen("failed", t) for t in task_ids))

    async def host_says(self) -> list[tuple[str, dict[str, Any]]]:
        entries: Any = await self.redis.xrange(f"orc:{{{self.tenant}}}:agents")
        return [(fields[b"event_type"].decode(), orjson.loads(fields[b"payload"])) for _, fields in entries]

    async def until_host_says(self, condition: Callable[[list[tuple[str, dict[str, Any]]]], object]) -> None:
        async with asyncio.timeout(60):
            while not condition(await self.host_says()):  # noqa: ASYNC110 - another process's doing has no event
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_host(url: str, tenant: str, function: Any, **options: Any) -> AsyncIterator[AgentHost]:
    """A host in this process, stopped at the end."""
    host = AgentHost(
        function, HostOptions(**{"redis_url": url, "tenant": tenant, "types": ("coder",), "slots": 2, **options})
    )
    running = asyncio.create_task(host.run())
    try:
        yield host
    finally:
        host.stop()
        await asyncio.wait_for(asyncio.gather(running, return_exceptions=True), 20)
