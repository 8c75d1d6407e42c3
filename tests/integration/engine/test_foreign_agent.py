"""An agent that shares no code with the engine, in another language, written from the protocol's description alone."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from engine.contracts.execution import ExecutionStatus
from tests.integration.engine.bench import Bench, definition

AGENT = Path(__file__).with_name("foreign_agent.mjs")
NODE = shutil.which("node")


@pytest.mark.skipif(NODE is None, reason="there is no Node on this machine")
async def test_an_agent_in_node_runs_a_workflow(bench: Bench) -> None:
    environment = {
        "PATH": os.defpath, "TENANT": bench.tenant, "AGENT_TYPE": "foreign",
        "REDIS_URL": bench.settings.redis_url.get_secret_value(),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(str(NODE), str(AGENT), env=environment)
    try:

        async def registered() -> bool:
            return bool(await bench.stores.hosts.live(bench.tenant, "foreign", 1))

        await bench.until(registered, "the agent is registered")
        document = definition(
            {"id": "a", "input": {"n": 1}}, {"id": "b", "depends_on": ["a"], "input": {"n": 2}},
            {"id": "c", "depends_on": ["a"], "input": {"n": 3}}, {"id": "d", "depends_on": ["b", "c"]},
        )  # fmt: skip
        document["agents"]["worker"]["type"] = "foreign"
        execution_id = await bench.start(document)
        view = await bench.until_closed(execution_id)
        assert view.status is ExecutionStatus.COMPLETED
        results = await bench.stores.dispatch.results(bench.tenant, execution_id, ["a", "b", "c", "d"])
        assert results == {"a": 2, "b": 6, "c": 8, "d": 14}
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), 30)
