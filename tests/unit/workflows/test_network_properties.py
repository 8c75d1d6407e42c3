"""Networks in a hostile world: each message takes effect once, in the order in which its sender sent it, or is refused
and recorded.

Peers answer as agents do that may be asked twice: only the last attempt of a turn counts. What they send is numbered.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.execution import ExecutionStatus
from tests.unit.workflows.assembly_drill import AssemblyDrill, assembly_input
from workflows.policies.network import NetworkPolicy

STEPS = ("answer", "answer", "answer", "fail", "repeat", "lose_host", "bind", "pause", "resume", "continue_as_new",
         "wait_a_little", "stale_attempt", "forge")  # fmt: skip


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "topology": {"kind": draw(st.sampled_from(["full", "ring", "star", "tree"]))},
        "start": draw(st.sampled_from(["all", "first"])),
        "ttl_hops": draw(st.integers(1, 2)),
        "batch_max": draw(st.integers(1, 3)),
        "mailbox_max": draw(st.sampled_from([2, 1_000])),
        "messages_max": draw(st.integers(0, 25)),
    }


class Peers:
    """What each peer received and sent, by the turns that counted."""

    def __init__(self, network: AssemblyDrill, data: st.DataObject) -> None:
        self.network = network
        self.data = data
        self.hosts = 0
        self.written = 0
        self.answered: dict[tuple[str, int], tuple[dict[str, Any], Any]] = {}
        """By member task and attempt: what it was told and what it answered first."""
        self.reports: list[Any] = []

    def step(self, name: str) -> None:
        network = self.network
        flying = network.in_flight()
        if name == "bind":
            self.bind()
        elif name in ("pause", "resume"):
            network.control(name)
        elif name == "lose_host":
            network.host_lost(f"host-{self.hosts}" if self.hosts else "host-1")
        elif name == "wait_a_little":
            network.tick(2_000)
        elif name == "continue_as_new":
            network.continue_as_new()
            network.policy = NetworkPolicy()
        elif name == "repeat" and self.reports:
            network.receive(self.data.draw(st.sampled_from(self.reports)))
        elif flying:
            self.report(name, self.data.draw(st.sampled_from(flying)))

    def report(self, name: str, attempt: Any) -> None:
        network = self.network
        if name == "fail":
            network.receive(network.failed(attempt))
        elif name == "forge":
            forged = attempt.model_copy(update={"agent_id": "stranger-1"})
            network.receive(network.completed(forged, {"messages": [{"to": "*", "body": "forged"}]}))
        elif name == "stale_attempt":
            stale = attempt.model_copy(update={"attempt": attempt.attempt - 1})
            network.receive(network.completed(stale, {"messages": [{"to": "*", "body": "stale"}]}))
        else:
            self.answer(attempt)

    def answer(self, attempt: Any, quiet: bool = False) -> None:
        key = (attempt.task_id, attempt.attempt)
        if key not in self.answered:
            told = self.network.told[attempt.task_id]
            self.answered[key] = told, {} if quiet else self.speech(attempt.agent_id)
        event = self.network.completed(attempt, self.answered[key][1])
        self.reports.append(event)
        self.network.receive(event)

    def speech(self, peer: str) -> dict[str, Any]:
        names = [name for name in self.network.state.agents if name != peer]
        to = st.one_of(st.sampled_from(names), st.just("*"), st.lists(st.sampled_from(names), unique=True, min_size=1))
        messages = []
        for recipients in self.data.draw(st.lists(to, max_size=2)):
            self.written += 1
            messages.append({"to": recipients, "body": self.written})
        return {"state": self.written, "messages": messages}

    def bind(self) -> None:
        self.hosts += 1
        self.network.bind(*self.network.state.unbound_agents(), host_id=f"host-{self.hosts}")

    def finish(self) -> None:
        network = self.network
        for n in range(200):
            if network.state.closed:
                return
            if network.state.paused:
                network.control("resume", request_id=f"end-{n}")
            self.bind()
            for attempt in network.in_flight():
                self.answer(attempt, quiet=True)
            network.tick(3_000)
        raise AssertionError("not over")


@settings(max_examples=250, deadline=None)
@given(config=configs(), peers=st.integers(2, 4), data=st.data())
def test_each_message_takes_effect_once_in_its_senders_order(
    config: dict[str, Any], peers: int, data: st.DataObject
) -> None:
    network = AssemblyDrill(assembly_input(config, "q", members=peers), NetworkPolicy(), slots=1)
    world = Peers(network, data)
    network.tick()
    for name in data.draw(st.lists(st.sampled_from(STEPS), max_size=40)):
        if network.state.closed:
            break
        world.step(name)
        if data.draw(st.booleans()):
            network.tick()
    world.finish()
    if network.state.status is not ExecutionStatus.COMPLETED:
        assert network.audit("error.occurred"), "a peer failed for good"
        return
    assert network.state.board == {}
    check_effects(network, world)


def check_effects(network: AssemblyDrill, world: Peers) -> None:
    counted = {
        (event.payload["task_id"], event.payload["attempt"])
        for event in network.facts("task.submitted")
        if event.payload["task_id"].startswith("q[")
    }
    received: dict[str, list[tuple[str, Any]]] = {}
    for decision in network.decisions:
        for item in decision.delta.submitted:
            if (item.task_id, item.attempt) in counted:
                told = world.answered[item.task_id, item.attempt][0]
                received.setdefault(item.agent_id, []).extend((m["from"], m["body"]) for m in told["messages"])
    sent = {}
    order: dict[str, list[int]] = {}
    for decision in network.decisions:
        for item in decision.delta.submitted:
            messages = (world.answered[item.task_id, item.attempt][1] or {}).get("messages", [])
            order.setdefault(item.agent_id, []).extend(message["body"] for message in messages)
            sent.update({message["body"]: item.agent_id for message in messages})
    for heard in received.values():
        assert len(set(heard)) == len(heard), "no message takes effect twice"
        for sender in {name for name, _ in heard}:
            bodies = [body for name, body in heard if name == sender]
            places = [order[sender].index(body) for body in bodies]
            assert places == sorted(places), "what one peer sends another arrives in order"
            assert all(sent[body] == sender for body in bodies)
    result = network.result()
    delivered = sum(map(len, received.values()))
    assert delivered == result["messages"] - result["undelivered"]
    assert result["undelivered"] == 0, "quiet means that nothing waits"
    assert sum(event.payload["recipients"] for event in network.facts("message.sent")) == result["messages"]
