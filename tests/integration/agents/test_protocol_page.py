"""The page alone is enough: its Python agent runs as printed, with the login that a tenant's agents get."""

import asyncio
import re
import signal
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from engine.embedded.host_fleet import tenant_agent_url
from engine.embedded.valkey import ValkeyServer
from engine.settings import Settings
from tests.integration.agents.conversation import Conversation

PAGE = Path(__file__).parents[3] / "docs" / "agent-protocol.md"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    file = tmp_path / "agent.py"
    file.write_text(code)
    return file


async def test_the_agent_on_the_page_works_as_printed(
    valkey_server: ValkeyServer, tenant: str, program: Path, tmp_path: Path
) -> None:
    url = await tenant_agent_url(Settings(redis_url=SecretStr(valkey_server.url), data_dir=tmp_path), tenant)
    redis = Redis.from_url(valkey_server.url)
    talk = Conversation(redis, tenant)
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), url, tenant, "echoer")
    try:
        await talk.until_host_says(lambda said: said)
        kind, payload = (await talk.host_says())[0]
        assert (kind, payload["types"]) == ("agent.registered", ["echoer"])
        host_id = payload["host_id"]

        await talk.assign(host_id, "a", "b", input={"n": 1})
        await talk.ended("a", "b")
        assert talk.seen("started", "a")
        assert talk.seen("completed", "a")[0]["result"] == {"echo": {"n": 1}}

        await talk.assign(host_id, "a")  # again: not done again, but sent again
        await talk.until(lambda: len(talk.seen("completed", "a")) == 2)
        assert len(talk.seen("started", "a")) == 1

        await talk.tell(host_id, control="pause")
        await talk.assign(host_id, "c")
        await talk.until(lambda: talk.seen("returned", "c"))
        await talk.tell(host_id, control="run")
        await talk.tell(host_id, consumed=[["a", 1, 1]], cancel=[["d", 1, 1]])
        await talk.assign(host_id, "a", "d", "c")
        await talk.ended("c")
        assert len(talk.seen("completed", "a")) == 2
        assert not talk.seen("completed", "d")

        await talk.assign(host_id, "broken", input=None, action=None)
        await talk.ended("broken")

        await talk.until_host_says(lambda said: said[-1][0] == "agent.heartbeat")
        await talk.tell(host_id, renew=True)
        assert await asyncio.wait_for(process.wait(), 60) == 1
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGKILL)
            await process.wait()
        await redis.aclose()
