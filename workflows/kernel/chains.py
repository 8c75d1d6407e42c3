"""Tasks that go out before their dependencies are done, because the same host has those.

The planner fuses linear chains of one role: such a chain always goes out as one. Beside that, where tasks take no
longer than asking for them, what can only follow from tasks at one host is sent there ahead of time, within a limit.

Either way a task that goes out so rides: it is in flight, but without a slot and without a due time, until the last of
the dependencies that it goes after is done. When it does not come to that, it is taken back and waits again.
"""

from collections import deque
from collections.abc import Iterable, Iterator

from engine.contracts.kernel import Attempt
from engine.contracts.limits import CHAIN_MAX
from workflows.kernel.policy import PREFETCH_MS
from workflows.kernel.state import AgentRun, Phase, RunState

RIDERS_MAX = 400
"""Tasks of one execution that are sent ahead of time, chains not counted."""


def riding_attempt(state: RunState, i: int, agent_id: str) -> Attempt:
    """It goes after those of its dependencies that are in flight."""
    return Attempt.trusted(
        task_id=state.specs[i].id,
        agent_id=agent_id,
        attempt=state.tasks[i].attempt + 1,
        host_id=state.agents[agent_id].host_id or "",
        after=goes_after(state, i),
    )


def goes_after(state: RunState, i: int) -> tuple[str, ...]:
    return tuple([state.specs[d].id for d in state.specs[i].deps if state.tasks[d].phase.in_flight])


def rest_of_chain(state: RunState, head: int, agent_id: str) -> Iterator[tuple[int, Attempt]]:
    """What goes out behind the head of a fused chain, in order; made while the caller assigns it."""
    before = head
    for _ in range(CHAIN_MAX - 1):
        i = state.followers.get(before)
        if i is None or state.tasks[i].phase is not Phase.PENDING or state.tasks[i].remaining != 1:
            return
        yield i, riding_attempt(state, i, agent_id)
        before = i


def sent_ahead(state: RunState, news: Iterable[int], room: int) -> Iterator[tuple[int, Attempt]]:
    """What can be sent to the host that has all that it waits for; made while the caller assigns it.

    `news` are tasks that were assigned or done in this tick: only what follows them may have become possible.
    """
    if state.ready_alone:
        return
    agents: dict[tuple[str, str], AgentRun | None] = {}
    queue = deque(news)
    while queue and room > 0:
        for j in state.dependents[queue.popleft()]:
            run = state.tasks[j]
            if run.phase is not Phase.PENDING or not run.remaining or j in state.gated or state.specs[j].alone:
                continue
            host_id = _only_host(state, j)
            role = state.specs[j].role
            if host_id is None or state.pace_ms.get(role, PREFETCH_MS + 1) > PREFETCH_MS:
                continue
            key = (host_id, role)
            if key not in agents:
                agents[key] = next(
                    (a for a in state.agents_of(role) if a.host_id == host_id and a.chains and a.takes_work), None
                )
            agent = agents[key]
            if agent is not None:
                yield j, riding_attempt(state, j, agent.agent_id)
                queue.append(j)
                room -= 1
                if room <= 0:
                    return


def riders(state: RunState, i: int) -> list[int]:
    """The tasks that ride behind this one, directly or not, in order."""
    found: dict[int, None] = {}
    queue = deque([i])
    while queue:
        for j in state.dependents[queue.popleft()]:
            if state.tasks[j].riding and j not in found:
                found[j] = None
                queue.append(j)
    return sorted(found)


def _only_host(state: RunState, j: int) -> str | None:
    """The one host that has all dependencies that are not done; None when it is not so."""
    host_id: str | None = None
    for d in state.specs[j].deps:
        run = state.tasks[d]
        if run.phase is Phase.COMPLETED:
            continue
        if not run.phase.in_flight or run.agent_id is None:
            return None
        at = state.agents[run.agent_id].host_id
        if at is None or (host_id is not None and at != host_id):
            return None
        host_id = at
    return host_id
