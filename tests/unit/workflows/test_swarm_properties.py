"""Swarms in a hostile world: one vote a member a round, no decision below the threshold, never two, nothing lost.

The drill checks at each tick that the stored delta alone leads to the same state, and that decisions can be undone.
"""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.contracts.execution import ExecutionStatus
from engine.contracts.patterns.swarm import SwarmConfig
from engine.voting import Poll, count, key_of
from engine.voting.recounting import lot_seed
from tests.unit.workflows.assembly_drill import AssemblyDrill, assembly_input
from workflows.kernel.state import Phase
from workflows.policies.swarm import SwarmPolicy

STEPS = (
    "vote", "vote", "vote", "invalid", "fail", "fail_for_good", "repeat", "forge", "lose_host", "bind", "pause",
    "resume", "wait_a_little", "wait_long", "continue_as_new", "stale_attempt", "checkpoint", "rewind",
)  # fmt: skip
CHOICES = ["a", "b", "c"]


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    rule = draw(st.sampled_from(["majority", "supermajority", "unanimous", "weighted", "ranked_choice", "quorum"]))
    config: dict[str, Any] = {
        "voting": {"rule": rule, "of": draw(st.sampled_from(["members", "votes"]))},
        "rounds_max": draw(st.integers(1, 3)),
        "early": draw(st.booleans()),
        "on_undecided": "complete",
        "round_seconds": draw(st.sampled_from([None, 5])),
        "shown_max": draw(st.integers(0, 3)),
        "topology": {"kind": draw(st.sampled_from(["full", "ring", "star", "tree", "neighbours"])), "k": 2},
    }
    if rule == "weighted":
        config["voting"]["weights"] = {"worker-1": draw(st.sampled_from([0, 0.5, 3]))}
    if draw(st.booleans()):
        config["options"] = CHOICES
    else:
        config["proposals"] = draw(st.sampled_from(["none", "first", "every"]))
    return config


class Chaos:
    """One hostile step at a time."""

    def __init__(self, swarm: AssemblyDrill, data: st.DataObject) -> None:
        self.swarm = swarm
        self.data = data
        self.sent: list[Any] = []
        self.hosts = 0

    def step(self, name: str) -> None:
        swarm = self.swarm
        flying = swarm.in_flight()
        if name == "bind":
            self.bind()
        elif name in ("pause", "resume"):
            swarm.control(name)
        elif name == "checkpoint":
            swarm.control("checkpoint", checkpoint_id=f"c{len(swarm.deltas)}")
        elif name == "rewind":
            self.rewind()
        elif name == "lose_host":
            swarm.host_lost(f"host-{max(self.hosts - 1, 0)}" if self.hosts else "host-1")
        elif name == "wait_a_little":
            swarm.tick(500)
        elif name == "wait_long":
            swarm.tick(20_000)
        elif name == "continue_as_new":
            swarm.continue_as_new()
            swarm.policy = SwarmPolicy()
        elif name == "repeat" and self.sent:
            swarm.receive(self.data.draw(st.sampled_from(self.sent)))
        elif flying:
            self.report(name, self.data.draw(st.sampled_from(flying)))

    def report(self, name: str, attempt: Any) -> None:
        swarm = self.swarm
        told = swarm.told.get(attempt.task_id) or {}
        choice = self.data.draw(st.sampled_from(told.get("candidates", CHOICES)))
        if name == "forge":
            other = self.data.draw(st.sampled_from(["worker-1", "worker-2", "stranger-1"]))
            if other == attempt.agent_id:
                return
            attempt = attempt.model_copy(update={"agent_id": other})
        elif name == "stale_attempt":
            attempt = attempt.model_copy(update={"attempt": attempt.attempt - 1})
        if name in ("fail", "fail_for_good"):
            event = swarm.failed(attempt, retryable=name == "fail")
        else:
            event = swarm.completed(attempt, {"no": "vote"} if name == "invalid" else choice)
        self.sent.append(event)
        swarm.receive(event)

    def rewind(self) -> None:
        """From the last checkpoint but one, as the workflow does it."""
        points = [d.checkpoint for d in self.swarm.deltas if d.checkpoint is not None]
        if not points or not self.swarm.state.paused:
            return
        kept = set(points[0].completed)
        state = self.swarm.state
        again = [s.id for s, r in zip(state.specs, state.tasks, strict=True)
                 if r.phase is Phase.COMPLETED and s.id not in kept]  # fmt: skip
        self.swarm.rewind_to(points[0].checkpoint_id, *again)

    def bind(self) -> None:
        self.hosts += 1
        unbound = self.swarm.state.unbound_agents()
        self.swarm.bind(*unbound, host_id=f"host-{self.hosts}", slots=2)

    def finish(self) -> None:
        swarm = self.swarm
        for n in range(60):
            if swarm.state.closed:
                return
            if swarm.state.paused:
                swarm.control("resume", request_id=f"end-{n}")
            self.bind()
            swarm.answer_all(lambda _, told: told.get("candidates", CHOICES)[0])
            swarm.tick(3_000)
        raise AssertionError("not over")


@settings(max_examples=250, deadline=None)
@given(config=configs(), members=st.integers(1, 4), data=st.data())
def test_whatever_happens_a_decision_is_what_the_kept_votes_come_to(
    config: dict[str, Any], members: int, data: st.DataObject
) -> None:
    launch = assembly_input(config, "q", members=members, on_failure="finish_branches")
    swarm = AssemblyDrill(launch, SwarmPolicy(), slots=2)
    chaos = Chaos(swarm, data)
    swarm.tick()
    for name in data.draw(st.lists(st.sampled_from(STEPS), max_size=30)):
        if swarm.state.closed:
            break
        chaos.step(name)
        if data.draw(st.booleans()):
            swarm.tick()
    chaos.finish()
    assert swarm.state.board == {} or swarm.state.status is ExecutionStatus.FAILED
    check_votes(swarm, config, members)


def check_votes(swarm: AssemblyDrill, config: dict[str, Any], members: int) -> None:
    """In each epoch: a vote a member a round, one final count, and counting the audited votes again gives the same."""
    settings_of = SwarmConfig.model_validate(config)
    names = [f"worker-{n + 1}" for n in range(members)]
    cast: dict[int, dict[str, tuple[str, ...]]] = {}
    finals = 0
    for decision in swarm.decisions:
        for event in decision.audit:
            said = event.payload
            if event.type.value == "workflow.resumed_from_checkpoint":
                cast, finals = {}, 0
            elif event.type.value == "vote.cast":
                votes = cast.setdefault(said["round"], {})
                assert said["agent_id"] in names, "no stranger votes"
                assert said["agent_id"] not in votes, "nobody votes twice in a round"
                votes[said["agent_id"]] = tuple(key_of(value) for value in said["choices"])
            elif event.type.value == "vote.counted":
                finals += said["final"]
                assert finals <= 1, "never two decisions"
                candidates = [key_of(value) for value in said["candidates"]]
                seed = lot_seed(swarm.launch.execution_id, "q", said["round"])
                outcome = count(settings_of.voting, Poll(names, candidates, seed), cast.get(said["round"], {}))
                assert outcome.to_json()["decision"] == said["decision"]
                early = settings_of.early and not outcome.decided
                assert outcome.decided is (said["decision"] is not None) or early
    if swarm.state.status is ExecutionStatus.COMPLETED:
        assert finals == 1 or swarm.result() is None
