"""Commands that work on the servers themselves."""

import asyncio
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError, NoPermissionError

from cli.app import run
from cli.migrate import prepare_and_migrate
from engine.embedded.postgres import PostgresServer
from engine.embedded.valkey import ValkeyServer
from engine.errors import ConfigurationError
from engine.postgres.migrate import newest_revision, stored_revision
from tests.passwords import APP_PASSWORD, OWNER_PASSWORD


def address_of(superuser_url: str, role: str, password: str, database: str) -> str:
    return f"postgresql://{role}:{quote(password)}@{superuser_url.rpartition('@')[2].split('/')[0]}/{database}"


async def test_migrate_makes_roles_database_and_schema_and_may_be_repeated(
    postgres_server: PostgresServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    name = "made_by_the_command"
    owner = address_of(postgres_server.url, "orchestrator_owner", OWNER_PASSWORD, name)
    monkeypatch.setenv("DATABASE_URL", address_of(postgres_server.url, "orchestrator_app", APP_PASSWORD, name))
    monkeypatch.setenv("DATABASE_OWNER_URL", owner)
    monkeypatch.setenv("DATABASE_SUPERUSER_URL", postgres_server.url)
    for changed in (True, False):
        assert await asyncio.to_thread(run, ["migrate", "--json"]) == 0
        assert json.loads(capsys.readouterr().out) == {"revision": newest_revision(), "changed": changed}
    assert await stored_revision(owner) == newest_revision()
    assert await asyncio.to_thread(run, ["migrate"]) == 0
    assert capsys.readouterr().out == f"schema is at revision {newest_revision()}\n"


async def test_migrate_needs_the_owner_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("DATABASE_OWNER_URL", raising=False)
    assert await asyncio.to_thread(run, ["migrate"]) == 2
    assert "DATABASE_OWNER_URL" in capsys.readouterr().err


async def test_a_role_without_a_password_is_not_made() -> None:
    with pytest.raises(ConfigurationError, match="DATABASE_OWNER_URL has no password"):
        await prepare_and_migrate("postgresql://owner@127.0.0.1:1/x", "postgresql://a:b@127.0.0.1:1/x", "postgresql://")


async def test_the_agents_address_lets_a_tenants_agents_in_and_no_further(
    valkey_server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REDIS_URL", valkey_server.url)
    monkeypatch.delenv("ORCHESTRATOR_AGENT_SECRET_FILE", raising=False)
    arguments = ["agent-url", "--tenant", "acme", "--data-dir", str(tmp_path), "--json"]
    assert await asyncio.to_thread(run, arguments) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["tenant"] == "acme"
    agent = Redis.from_url(document["url"], protocol=2)
    try:
        assert await agent.xlen("orc:{acme}:tasks:h1") == 0
        with pytest.raises(NoPermissionError):
            await agent.xlen("orc:{other}:tasks:h1")
    finally:
        await agent.aclose()
    stranger = Redis.from_url(document["url"].replace("agent-acme", "agent-other"), protocol=2)
    with pytest.raises(AuthenticationError):
        await stranger.ping()
    await stranger.aclose()
    assert await asyncio.to_thread(run, arguments[:-1]) == 0
    assert capsys.readouterr().out.strip() == document["url"]


async def test_a_tenant_that_cannot_be_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["agent-url", "--tenant", "A b", "--data-dir", str(tmp_path)]
    assert await asyncio.to_thread(run, arguments) == 2
    assert "tenant" in capsys.readouterr().err
