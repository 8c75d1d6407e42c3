"""The role `hosts`: the host fleet with real processes and Redis, and the address that a tenant's agents use.

Where agents run in pods, the keeper of pods runs here too.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from engine.agents.catalogue import load_catalogue
from engine.agents.credentials import agent_password, agent_url, load_agent_secret
from engine.agents.fleet import HostFleet, HostProcess
from engine.agents.kubernetes.client import ClusterAccess, open_api
from engine.agents.kubernetes.keeper import Keeper
from engine.agents.kubernetes.pods import PodDefaults
from engine.agents.kubernetes.warm import WarmPools
from engine.agents.sizes import KUBERNETES, AgentSizes
from engine.concurrency import run_together
from engine.contracts.catalogue import Catalogue
from engine.embedded.process import ChildProcess
from engine.events.connection import connect
from engine.events.hosts import HostStreams
from engine.observability.log import configure
from engine.postgres.pod_owners import PostgresPodOwners
from engine.postgres.stores import Stores
from engine.settings import Settings


async def serve_hosts(settings: Settings) -> None:
    """Run the fleet until cancelled; its hosts are then stopped. Must run in the main thread."""
    configure(settings, "hosts")
    catalogue = load_catalogue(settings.catalogue_file)
    secret = load_agent_secret(settings)
    redis = connect(settings)
    streams = HostStreams(redis, settings.event_partitions)
    try:
        if settings.allocator == KUBERNETES:
            fleet = HostFleet(streams, _may_run_here(catalogue), launch_host, settings, secret)
            async with AsyncExitStack() as stack:
                keeper = await _open_keeper(settings, catalogue, streams, stack)
                await run_together([fleet.run, keeper.run])
        else:
            await HostFleet(streams, catalogue, launch_host, settings, secret).run()
    finally:
        await streams.close()
        await redis.aclose()


def _may_run_here(catalogue: Catalogue) -> Catalogue:
    """With agents in pods, hosts are wanted here only while the Kubernetes API does not answer."""
    return Catalogue(agents={name: known for name, known in catalogue.agents.items() if known.local_fallback})


async def _open_keeper(settings: Settings, catalogue: Catalogue, streams: HostStreams, stack: AsyncExitStack) -> Keeper:
    stores = await stack.enter_async_context(Stores.open(settings))
    api = await stack.enter_async_context(open_api(ClusterAccess.of(settings)))
    owners = PostgresPodOwners(stores.database, stores.maintenance)
    pools = WarmPools(api, owners, catalogue, AgentSizes.of(settings, catalogue), PodDefaults.of(settings))
    return Keeper(api, streams, owners, settings.kubernetes_owner, pools)


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
