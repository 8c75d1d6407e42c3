import asyncio
from collections import Counter
from uuid import uuid4

from hypothesis import given
from hypothesis import strategies as st

from engine.agents.binding import Binder, agent_ids
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.hosts import Group
from engine.contracts.kernel import BindRequest, KernelRole
from engine.settings import Settings
from tests.unit.agents.fakes import FakeHosts, FakePort, record

CATALOGUE = Catalogue(
    agents={
        "coder": AgentType(entry="python:m:f", agents_per_host=2, hosts_max=3),
        "helper": AgentType(entry="external"),
    }
)


def request(
    *, count: int = 1, type: str = "coder", wait_seconds: float = 0.0, capabilities: tuple[str, ...] = (),
    only: tuple[str, ...] | None = None, tenant: str = "acme",
) -> BindRequest:  # fmt: skip
    roles = {"worker": KernelRole(type=type, count=count, capabilities=capabilities)}
    return BindRequest(tenant=tenant, execution_id=str(uuid4()), roles=roles, agent_ids=only, wait_seconds=wait_seconds)


class World:
    def __init__(self, *hosts: str) -> None:
        self.hosts, self.port = FakeHosts(), FakePort()
        for host_id in hosts:
            self.hosts.put("acme", record(host_id, slots=5))
        self.binder = Binder(self.hosts, self.port, CATALOGUE, Settings(_env_file=None))


def test_agents_are_numbered_from_one() -> None:
    assert agent_ids("worker", 2) == ["worker-1", "worker-2"]


async def test_agents_are_spread_over_the_hosts_with_the_hosts_slots() -> None:
    result = await World("h1", "h2").binder.bind(request(count=4))
    assert [b.agent_id for b in result.bindings] == ["worker-1", "worker-2", "worker-3", "worker-4"]
    assert Counter(b.host_id for b in result.bindings) == {"h1": 2, "h2": 2}
    assert {b.slots for b in result.bindings} == {5}


async def test_an_agent_takes_chains_when_its_host_says_so() -> None:
    world = World("h1")
    world.hosts.put("acme", record("h2", features=("chains", "of the future")))
    result = await world.binder.bind(request(count=2))
    assert {b.host_id: b.chains for b in result.bindings} == {"h1": False, "h2": True}


async def test_without_a_host_the_agents_are_missing_and_hosts_are_asked_for() -> None:
    world = World()
    result = await world.binder.bind(request(count=3))
    assert result.bindings == ()
    assert result.missing == ("worker-1", "worker-2", "worker-3")
    assert world.port.asked == [(Group("acme", "coder"), 2)]


async def test_no_more_hosts_are_asked_for_than_the_type_may_have() -> None:
    world = World()
    await world.binder.bind(request(count=1000))
    assert world.port.asked == [(Group("acme", "coder"), 3)]


async def test_a_wish_is_not_repeated_at_once_but_a_larger_one_is_said() -> None:
    world = World()
    for count in (2, 2, 6):
        await world.binder.bind(request(count=count))
    assert [hosts for _, hosts in world.port.asked] == [1, 3]


async def test_nobody_is_asked_for_hosts_that_start_elsewhere() -> None:
    world = World()
    assert (await world.binder.bind(request(type="helper"))).missing == ("worker-1",)
    assert (await world.binder.bind(request(type="unheard-of"))).missing == ("worker-1",)
    assert world.port.asked == []


async def test_only_hosts_with_the_capabilities_serve_a_role() -> None:
    world = World()
    world.hosts.put("acme", record("h1", capabilities=("git",)))
    world.hosts.put("acme", record("h2", capabilities=("git", "rust")))
    result = await world.binder.bind(request(count=2, capabilities=("rust",)))
    assert {b.host_id for b in result.bindings} == {"h2"}


async def test_other_tenants_hosts_are_not_there() -> None:
    assert (await World("h1").binder.bind(request(tenant="other"))).missing == ("worker-1",)


async def test_only_the_agents_asked_for_are_bound() -> None:
    result = await World("h1", "h2").binder.bind(request(count=4, only=("worker-3",)))
    assert [b.agent_id for b in result.bindings] == ["worker-3"]


async def test_an_agent_that_lost_its_host_goes_where_the_fewest_of_the_others_are() -> None:
    asked = request(count=3, only=("worker-1",)).model_copy(update={"bound": {"worker-2": "h1", "worker-3": "h2"}})
    result = await World("h1", "h2", "new").binder.bind(asked)
    assert [(b.agent_id, b.host_id) for b in result.bindings] == [("worker-1", "new")]


async def test_roles_without_an_agent_asked_for_are_left_alone() -> None:
    world = World()
    assert (await world.binder.bind(request(only=("other-1",)))).missing == ()
    assert world.hosts.reads == 0


async def test_hosts_are_read_once_for_many_executions() -> None:
    world = World("h1")
    for _ in range(20):
        await world.binder.bind(request())
    assert world.hosts.reads == 1


async def test_waiting_ends_when_a_host_comes() -> None:
    world = World()
    waiting = asyncio.create_task(world.binder.bind(request(wait_seconds=30)))
    await asyncio.sleep(0)
    world.hosts.put("acme", record("h1"))
    assert (await asyncio.wait_for(waiting, 5)).missing == ()


async def test_waiting_for_more_hosts_ends_after_half_the_time() -> None:
    result = await World("h1").binder.bind(request(count=4, wait_seconds=0.4))
    assert {b.host_id for b in result.bindings} == {"h1"}


async def test_waiting_in_vain_ends_with_the_missing() -> None:
    assert (await World().binder.bind(request(wait_seconds=0.2))).missing == ("worker-1",)


@given(count=st.integers(1, 40), hosts=st.integers(1, 7))
async def test_no_host_gets_two_agents_more_than_another(count: int, hosts: int) -> None:
    world = World(*(f"h{n}" for n in range(hosts)))
    result = await world.binder.bind(request(count=count))
    loads = Counter(b.host_id for b in result.bindings)
    assert sum(loads.values()) == count
    assert max(loads.values()) - (min(loads.values()) if len(loads) == hosts else 0) <= 1
