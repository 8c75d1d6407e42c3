"""Which agents get pods, which share hosts, and what becomes of both when Kubernetes is away."""

from uuid import uuid4

from engine.agents.binding import Binder
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.hosts import Dedication
from engine.contracts.kernel import AgentBinding, AllocationProblem, BindRequest, BindResult, KernelRole
from engine.settings import Settings
from tests.unit.agents.fakes import FakeHosts, FakePort, record

CATALOGUE = Catalogue(
    agents={
        "coder": AgentType(entry="python:m:f"),
        "either": AgentType(entry="python:m:f", local_fallback=True),
        "helper": AgentType(entry="external"),
    }
)


class FakePods:
    """Binds all, or none for a reason."""

    def __init__(self, problem: str = "") -> None:
        self.problem = problem
        self.asked: list[tuple[list[str], bool]] = []

    async def bind(self, request: BindRequest, *, give_up_when_unreachable: bool = False) -> BindResult:
        self.asked.append((sorted(request.roles), give_up_when_unreachable))
        agents = [(f"{role}-1", role) for role in request.roles]
        if not self.problem:
            return BindResult(bindings=tuple(AgentBinding(agent_id=a, role=r, host_id=f"pod-{a}") for a, r in agents))
        problems = tuple(AllocationProblem(agent_id=a, code=self.problem, message="no") for a, _ in agents)
        return BindResult(bindings=(), missing=tuple(a for a, _ in agents), problems=problems)


class World:
    def __init__(self, pods: FakePods) -> None:
        self.hosts, self.port, self.pods = FakeHosts(), FakePort(), pods
        for host_id, type in (("h-either", "either"), ("h-helper", "helper"), ("h-coder", "coder")):
            self.hosts.put("acme", record(host_id, types=(type,)))
        settings = Settings(_env_file=None, allocator="kubernetes")
        self.binder = Binder(self.hosts, self.port, CATALOGUE, settings, pods)

    async def bind(self, *types: str, wait_seconds: float = 1.0) -> BindResult:
        roles = {type: KernelRole(type=type, count=1) for type in types}
        return await self.binder.bind(
            BindRequest(tenant="acme", execution_id=str(uuid4()), roles=roles, wait_seconds=wait_seconds)
        )


def hosts_of(result: BindResult) -> dict[str, str | None]:
    return {binding.agent_id: binding.host_id for binding in result.bindings}


async def test_agents_of_started_types_get_pods_and_external_ones_share_hosts() -> None:
    world = World(FakePods())
    result = await world.bind("coder", "helper", "either")
    assert hosts_of(result) == {"coder-1": "pod-coder-1", "helper-1": "h-helper", "either-1": "pod-either-1"}
    assert sorted(world.pods.asked) == [(["coder"], False), (["either"], True)]


async def test_external_agents_alone_ask_nobody_for_pods() -> None:
    world = World(FakePods())
    assert hosts_of(await world.bind("helper")) == {"helper-1": "h-helper"}
    assert world.pods.asked == []


async def test_without_kubernetes_what_may_run_here_does_and_the_rest_waits() -> None:
    world = World(FakePods("AGENT_ALLOCATION_TIMEOUT"))
    result = await world.bind("coder", "either")
    assert hosts_of(result) == {"either-1": "h-either"}
    assert result.missing == ("coder-1",)
    assert [problem.agent_id for problem in result.problems] == ["coder-1"]


async def test_what_kubernetes_refuses_for_good_does_not_run_here_instead() -> None:
    result = await World(FakePods("RESOURCE_ALLOCATION_FAILED")).bind("either")
    assert result.bindings == ()
    assert result.problems[0].code == "RESOURCE_ALLOCATION_FAILED"


async def test_within_a_tick_nothing_falls_back() -> None:
    result = await World(FakePods("AGENT_ALLOCATION_TIMEOUT")).bind("either", wait_seconds=0.0)
    assert result.bindings == ()


async def test_a_dedicated_host_is_not_shared() -> None:
    world = World(FakePods())
    host = record("mine", types=("helper",))
    world.hosts.rows.clear()
    world.hosts.put("acme", host.model_copy(update={"dedicated_to": Dedication(execution_id="e", agent_id="a")}))
    result = await world.bind("helper", wait_seconds=0.0)
    assert result.missing == ("helper-1",)
