"""Temporal's own command, shown compressed payloads by the codec endpoint as it is served."""

import asyncio
import base64
import json
from uuid import uuid4

from engine.embedded import binaries
from engine.security.tokens import TokenIssuer
from engine.settings import Settings
from engine.temporal.connection import connect
from engine.temporal.launcher import TemporalLauncher, temporal_id
from tests.integration.temporal.test_launcher import launch_of

COMMAND_TIMEOUT_SECONDS = 60


async def shown(settings: Settings, workflow_id: str, url: str, token: str) -> str:
    process = await asyncio.create_subprocess_exec(
        binaries.temporal_program(), "workflow", "show", "--workflow-id", workflow_id, "--output", "json",
        "--address", settings.temporal_address, "--namespace", settings.temporal_namespace,
        "--codec-endpoint", f"{url}/api/v1/codec", "--codec-auth", f"Bearer {token}",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, errors = await asyncio.wait_for(process.communicate(), COMMAND_TIMEOUT_SECONDS)
    return (output + errors).decode()


async def test_temporals_command_shows_what_is_compressed_to_who_has_a_token(
    gateway_url: str, gateway_settings: Settings, tenant: str
) -> None:
    launch = launch_of(tenant, uuid4()).model_copy(update={"pattern_config": {"long": "legible " * 5_000}})
    await TemporalLauncher(await connect(gateway_settings), gateway_settings).launch(launch)
    workflow_id = temporal_id(tenant, launch.execution_id)
    assert gateway_settings.token_key_file is not None
    token = TokenIssuer.from_file(gateway_settings.token_key_file).issue(tenant=tenant, roles=["viewer"])
    history = json.loads(await shown(gateway_settings, workflow_id, gateway_url, token))
    [payload] = history["events"][0]["workflowExecutionStartedEventAttributes"]["input"]["payloads"]
    assert base64.b64decode(payload["metadata"]["encoding"]) == b"json/plain"
    assert b"legible legible" in base64.b64decode(payload["data"])
    assert payload["data"] not in await shown(gateway_settings, workflow_id, gateway_url, "not-a-token")
