"""The role `hosts`: the host fleet with real processes and Redis, and the address that a tenant's agents use."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engine.agents.catalogue import load_catalogue
from engine.agents.credentials import agent_password, agent_url, load_agent_secret
from engine.agents.fleet import HostFleet, HostProcess
from engine.embedded.process import ChildProcess
from engine.events.connection import connect
from engine.events.hosts import HostStreams
from engine.observability.log import configure
from engine.settings import Settings


async def serve_hosts(settings: Settings) -> None:
    """Run the fleet until cancelled; its hosts are then stopped. Must run in the main thread."""
    configure(settings, "hosts")
    catalogue = load_catalogue(settings.catalogue_file)
    secret = load_agent_secret(settings)
    redis = connect(settings)
    streams = HostStreams(redis, settings.event_partitions)
    try:
        await HostFleet(streams, catalogue, launch_host, settings, secret).run()
    finally:
        await streams.close()
        await redis.aclose()


async def tenant_agent_url(settings: Settings, tenant: str) -> str:
    """The Redis address with which agents of this tenant log in; the login is made, and the tenant known from now on.

    Raises ConfigurationError, UnavailableError.
    """
    secret = load_agent_secret(settings)
    redis = connect(settings)
    try:
        streams = HostStreams(redis, settings.event_partitions)
        await streams.set_login(tenant, agent_password(secret, tenant))
        await streams.add_tenants([tenant])
    finally:
        await redis.aclose()
    return agent_url(settings.redis_url.get_secret_value(), secret, tenant)


async def launch_host(
    name: str, arguments: Sequence[str], environment: Mapping[str, str], log_file: Path
) -> HostProcess:
    """Implements `engine.agents.fleet.Launch`."""
    process = ChildProcess(name, arguments, directory=Path.cwd(), log_file=log_file, environment=environment)
    await process.start()
    return process
