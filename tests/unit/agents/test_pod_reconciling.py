"""What is to become of pods."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from engine.agents.kubernetes.reasons import PodState, Reason, Standing
from engine.agents.kubernetes.reconciling import decide, executions_of
from engine.agents.kubernetes.seen import SeenPod
from engine.agents.kubernetes.warm import PoolState, pool_change
from engine.contracts.pods import WarmPool
from engine.pod_ports import ExecutionKey

NOW = 10_000.0
STATES = (
    PodState(Standing.WAITING),
    PodState(Standing.RUNNING, ready=True),
    PodState(Standing.STUCK, Reason("ErrImagePull", "no")),
    PodState(Standing.LOST, Reason("OOMKilled", "no")),
    PodState(Standing.LOST, Reason("NodeLost", "no")),
)
OPEN, CLOSED, UNKNOWN = "open", "closed", "unknown"
IS_OPEN = {ExecutionKey("t", OPEN): True, ExecutionKey("t", CLOSED): False}


@st.composite
def seen_pods(draw: st.DrawFn) -> list[SeenPod]:
    found = []
    for n in range(draw(st.integers(0, 12))):
        warm = draw(st.booleans())
        found.append(
            SeenPod(
                namespace=draw(st.sampled_from(["n1", "n2"])),
                name=f"p{n}",
                uid=f"u{n}",
                tenant="t",
                execution_id=None if warm else draw(st.sampled_from([OPEN, CLOSED, UNKNOWN])),
                agent_id=None if warm else draw(st.sampled_from(["w-1", "w-2"])),
                agent_type="synthetic",
                warm=warm,
                state=draw(st.sampled_from(STATES)),
                created_at=draw(st.sampled_from([NOW - 100, NOW - 50, NOW - 1])),
                deleting_at=draw(st.sampled_from([None, None, None, NOW - 60, NOW + 5])),
                labelled=draw(st.booleans()),
            )
        )
    return found


@given(seen_pods(), st.booleans())
def test_what_is_wanted_stays_and_what_is_not_goes(pods: list[SeenPod], ended_long_ago: bool) -> None:
    ended_at = {pod.uid: NOW - (100 if ended_long_ago else 1) for pod in pods}
    decisions = decide(pods, IS_OPEN, ended_at, NOW)
    removed = {removal.pod.uid: removal for removal in decisions.remove}
    assert len(removed) == len(decisions.remove)
    serving: dict[str, int] = {}
    for pod in pods:
        alive = pod.deleting_at is None and pod.state.standing is not Standing.LOST
        goes = pod.uid in removed or (pod.labelled and pod.execution_id in decisions.release.get(pod.namespace, ()))
        if pod.execution_id == CLOSED and pod.deleting_at is None:
            assert goes
        if pod.execution_id == UNKNOWN and pod.created_at < NOW - 20 and pod.deleting_at is None:
            assert goes
        if pod.execution_id == UNKNOWN and pod.created_at > NOW - 5 and pod.deleting_at is None:
            assert not goes  # its execution may be stored at this very moment
        if pod.execution_id == OPEN and alive and not goes:
            serving[pod.agent_id or ""] = serving.get(pod.agent_id or "", 0) + 1
        if pod.uid in removed and removed[pod.uid].force:
            assert pod.state.node_lost or (pod.deleting_at is not None and pod.deleting_at < NOW)
        if pod.state.node_lost and pod.execution_id == OPEN:
            assert removed[pod.uid].force
        if pod.warm and alive and pod.state.standing is not Standing.STUCK:
            assert not goes
    wanted = {
        pod.agent_id
        for pod in pods
        if pod.execution_id == OPEN and pod.deleting_at is None and pod.state.standing is not Standing.LOST
    }
    assert serving == {agent_id or "": 1 for agent_id in wanted}  # one pod an agent, and never none
    assert all(found == {CLOSED} for found in decisions.release.values())


@given(seen_pods())
def test_only_executions_are_asked_about(pods: list[SeenPod]) -> None:
    asked = executions_of(pods)
    assert asked == {ExecutionKey("t", pod.execution_id) for pod in pods if pod.execution_id}


@given(seen_pods(), st.integers(0, 8), st.sets(st.integers(1, 6)))
def test_a_pool_gets_exactly_what_it_lacks_or_loses_what_is_too_much(
    pods: list[SeenPod], wanted: int, taken: set[int]
) -> None:
    waiting = [replace(pod, warm=True) for pod in pods]
    change = pool_change(waiting, {f"pool-{n}" for n in taken}, wanted, lambda n: f"pool-{n}")
    assert len(waiting) + len(change.create) - len(change.remove) == wanted
    assert not (change.create and change.remove)
    assert not set(change.create) & taken
    assert len(set(change.create)) == len(change.create)
    kept = [pod for pod in waiting if pod not in change.remove]
    if any(pod.state.ready for pod in change.remove):
        assert all(pod.state.ready for pod in kept)


def test_a_pool_follows_what_is_begun_between_its_size_and_its_maximum() -> None:
    pool = WarmPool(size=2, max=5, idle_seconds=300)
    state = PoolState(used_at=NOW)
    assert state.wanted(pool, NOW) == 2
    state.begun.extend([NOW] * 4)
    assert state.wanted(pool, NOW + 1) == 4
    state.begun.extend([NOW + 1] * 100)
    assert state.wanted(pool, NOW + 1) == 5
    assert state.wanted(pool, NOW + 200) == 2
    assert state.wanted(pool, NOW + 301) == 0
