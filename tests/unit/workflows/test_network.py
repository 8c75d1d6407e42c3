"""Network: who gets which message, in what order, and when a conversation ends."""

from typing import Any

import pytest

from engine.contracts.execution import ExecutionStatus
from tests.unit.workflows.assembly_drill import AssemblyDrill, assembly_input
from tests.unit.workflows.drill import launch_input, task
from workflows.kernel.state import Phase
from workflows.policies.network import NetworkPolicy


def drill(config: dict[str, Any], peers: int = 3, *tasks: str, **fields: Any) -> AssemblyDrill:
    return AssemblyDrill(assembly_input(config, *tasks, members=peers, **fields), NetworkPolicy())


def send(to: Any, body: Any = None, **fields: Any) -> dict[str, Any]:
    return {"messages": [{"to": to, "body": body, **fields}]}


def heard(note: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(message["from"], message["body"]) for message in note["messages"]]


def refusals(network: AssemblyDrill) -> list[tuple[str, str]]:
    return [(event.payload["agent_id"], event.payload["reason"]) for event in network.facts("message.refused")]


def test_a_conversation_in_which_nobody_says_anything_is_over_at_once() -> None:
    network = drill({})
    network.tick()
    assert network.told["q[0]"] == {"turn": 1, "state": None, "messages": []}
    network.answer_all(lambda agent_id, _: {"state": agent_id})
    network.tick()
    assert network.state.status is ExecutionStatus.COMPLETED
    assert network.result() == {
        "states": {f"worker-{n}": f"worker-{n}" for n in (1, 2, 3)},
        "ended": "quiescence", "turns": 3, "messages": 0, "refused": 0, "undelivered": 0,
    }  # fmt: skip
    assert network.state.board == {}


def test_a_message_is_a_further_turn_of_its_recipient() -> None:
    network = drill({"start": "first"})
    network.tick()
    assert [a.agent_id for a in network.in_flight()] == ["worker-1"]
    network.answer_all(lambda *_: {"state": 1, **send("worker-3", {"n": 5})})
    network.tick()
    assert [a.agent_id for a in network.in_flight()] == ["worker-3"]
    assert network.told["q[2]"] == {
        "turn": 2, "state": None, "messages": [{"id": 1, "from": "worker-1", "hops": 1, "body": {"n": 5}}]
    }  # fmt: skip
    network.answer_all(lambda *_: send("worker-1", "thanks"))
    network.tick()
    assert network.told["q[0]"]["state"] == 1
    network.answer_all(lambda *_: None)
    network.tick()
    assert network.result()["states"] == {"worker-1": 1}
    assert len(network.facts("message.sent")) == 2


def test_multicast_and_broadcast() -> None:
    network = drill({"start": "first"}, 4)
    network.tick()
    network.answer_all(
        lambda *_: {"messages": [{"to": ["worker-2", "worker-4"], "body": "some"}, {"to": "*", "body": "all"}]}
    )
    network.tick()
    assert heard(network.told["q[1]"]) == [("worker-1", "some"), ("worker-1", "all")]
    assert heard(network.told["q[2]"]) == [("worker-1", "all")]
    assert heard(network.told["q[3]"]) == [("worker-1", "some"), ("worker-1", "all")]
    assert [(e.payload["message_id"], e.payload["recipients"]) for e in network.facts("message.sent")] == [
        (1, 2),
        (3, 3),
    ]


def test_messages_go_along_the_links_as_far_as_they_may() -> None:
    network = drill({"start": ["worker-1"], "topology": {"kind": "ring"}, "ttl_hops": 2}, 6)
    network.tick()
    network.answer_all(lambda *_: {"messages": [
        {"to": "worker-3", "body": "two hops"}, {"to": "worker-4", "body": "too far"},
        {"to": "*", "ttl": 1, "body": "neighbours"}, {"to": "worker-3", "ttl": 1, "body": "too short"},
    ]})  # fmt: skip
    network.tick()
    assert {a.agent_id for a in network.in_flight()} == {"worker-2", "worker-3", "worker-6"}
    assert network.told["q[2]"]["messages"][0]["hops"] == 2
    assert refusals(network) == [("worker-1", "unreachable"), ("worker-1", "unreachable")]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"to": "worker-9"}, "stranger"),
        ({"to": "worker-1"}, "stranger"),
        ({"body": 1}, "invalid"),
        ("worker-2", "invalid"),
        ({"to": "worker-2", "subject": "x"}, "invalid"),
        ({"to": "worker-2", "ttl": 0}, "invalid"),
        ({"to": "worker-2", "ttl": 9}, "invalid"),
        ({"to": "worker-2", "ttl": True}, "invalid"),
        ({"to": [1]}, "invalid"),
        ({"to": None}, "invalid"),
        ({"to": "worker-2", "body": "x" * 2_000}, "too_large"),
    ],
    ids=str,
)
def test_a_message_that_cannot_go_is_refused_and_recorded(message: Any, why: str) -> None:
    network = drill({"start": "first"})
    network.run(lambda *_: {"messages": [message]})
    assert refusals(network) == [("worker-1", why)]
    assert network.result()["messages"] == 0


def test_messages_that_are_no_list_are_refused() -> None:
    network = drill({"start": "first"})
    network.run(lambda *_: {"state": 5, "messages": "hello"})
    assert refusals(network) == [("worker-1", "invalid")]
    assert network.result()["states"] == {"worker-1": 5}


def test_what_has_other_fields_is_a_state() -> None:
    network = drill({"start": "first"})
    network.run(lambda *_: {"messages": 3, "read": 2})
    assert network.result()["states"] == {"worker-1": {"messages": 3, "read": 2}}


def test_a_turn_sends_a_bounded_number_of_messages() -> None:
    network = drill({"start": "first"}, 2)
    network.run(lambda agent_id, _: {"messages": [{"to": "worker-2"}] * 1_001} if agent_id == "worker-1" else None)
    assert refusals(network) == [("worker-1", "too_many")]
    assert network.result()["messages"] == 1_000


def test_a_state_that_is_too_large_is_refused_and_the_last_one_stays() -> None:
    network = drill({"state_bytes_max": 10, "start": "first"}, 2)
    network.tick()
    network.answer_all(lambda *_: {"state": 1, **send("worker-2")})
    network.tick()
    network.answer_all(lambda *_: send("worker-1"))
    network.tick()
    network.answer_all(lambda *_: "x" * 100)
    network.tick()
    assert network.result()["states"] == {"worker-1": 1}
    assert refusals(network) == [("worker-1", "too_large")]


def test_a_result_that_travels_by_reference_is_refused() -> None:
    network = drill({"start": "first"})
    network.tick()
    (first,) = network.in_flight()
    network.receive(network.completed(first).model_copy(update={"result_ref": "x"}))
    network.tick()
    assert refusals(network) == [("worker-1", "too_large")]


def test_the_number_of_messages_is_limited() -> None:
    network = drill({"messages_max": 5}, 2)
    network.run(lambda agent_id, _: send("worker-2" if agent_id == "worker-1" else "worker-1"))
    result = network.result()
    assert result["messages"] == 5
    assert result["ended"] == "quiescence"
    assert {why for _, why in refusals(network)} == {"too_many"}


def test_a_box_holds_a_limited_number() -> None:
    network = drill({"mailbox_max": 2, "start": "first"}, 2)
    network.tick()
    network.answer_all(lambda *_: {"messages": [{"to": "worker-2", "body": n} for n in range(4)]})
    network.tick()
    assert heard(network.told["q[1]"]) == [("worker-1", 0), ("worker-1", 1)]
    assert refusals(network) == [("worker-1", "mailbox_full")] * 2


def test_the_number_of_turns_is_limited() -> None:
    network = drill({"turns_max": 7}, 2)
    network.run(lambda agent_id, _: send("*", "again"))
    result = network.result()
    assert (result["turns"], result["ended"]) == (7, "turn_limit")
    assert result["undelivered"] > 0


def test_a_turn_takes_a_limited_number_of_messages_in_order() -> None:
    network = drill({"batch_max": 2, "start": "first"}, 2)
    seen: list[Any] = []

    def answer(agent_id: str, note: dict[str, Any]) -> Any:
        if agent_id == "worker-1":
            return {"messages": [{"to": "worker-2", "body": n} for n in range(5)]}
        seen.append([body for _, body in heard(note)])
        return None

    network.run(answer)
    assert seen == [[0, 1], [2, 3], [4]]


def test_what_one_note_cannot_hold_comes_with_the_next_turn() -> None:
    network = drill({"message_bytes_max": 2_000, "start": "first"}, 2)
    sizes: list[int] = []

    def answer(agent_id: str, note: dict[str, Any]) -> Any:
        if agent_id == "worker-1":
            return {"messages": [{"to": "worker-2", "body": "x" * 1_900}] * 30}
        sizes.append(len(note["messages"]))
        return None

    network.run(answer)
    assert sum(sizes) == 30
    assert len(sizes) == 2


def test_a_message_that_nobody_took_in_time_is_dropped() -> None:
    network = drill({"message_seconds": 5, "start": ["worker-1", "worker-2"]}, 2)
    network.tick()
    one, two = network.in_flight()
    network.say(one, send("worker-2", "old"))
    network.tick()
    network.tick(6_000)
    network.say(two, None)
    network.tick()
    assert refusals(network) == [("worker-1", "expired")]
    assert network.state.status is ExecutionStatus.COMPLETED


def test_a_goal_ends_the_conversation() -> None:
    network = drill({"goal": "size(states) == 3 and states['worker-1'] > 2"})
    count = {"worker-1": 0, "worker-2": 0, "worker-3": 0}

    def answer(agent_id: str, _: dict[str, Any]) -> Any:
        count[agent_id] += 1
        return {"state": count[agent_id], **send("*")}

    network.run(answer)
    assert network.result()["ended"] == "goal"
    assert network.result()["states"]["worker-1"] == 3


def test_a_goal_that_is_not_reached_may_fail_the_task() -> None:
    network = drill({"goal": "turns > 100", "on_deadline": "fail"})
    network.run(lambda *_: None)
    assert network.state.status is ExecutionStatus.FAILED
    assert network.audit("error.occurred")[0]["error_type"] == "GOAL_NOT_REACHED"
    assert network.facts("conversation.ended")[0].payload["reason"] == "quiescence"


def test_a_goal_that_is_not_reached_need_not_fail_the_task() -> None:
    network = drill({"goal": "turns > 100"})
    network.run(lambda *_: None)
    assert network.result()["ended"] == "quiescence"


@pytest.mark.parametrize(("on_deadline", "status"), [("complete", "completed"), ("fail", "failed")])
def test_a_deadline_ends_the_conversation(on_deadline: str, status: str) -> None:
    network = drill({"seconds": 10, "on_deadline": on_deadline}, 2)
    network.tick()
    one, two = network.in_flight()
    network.say(one, {"state": "done"})
    network.tick()
    assert network.policy.next_due_ms(network.state) is not None
    network.control("pause")
    network.tick()
    network.tick(60_000)
    network.control("resume")
    network.tick()
    assert not network.state.closed, "the time of a pause does not count"
    network.tick(10_000)
    assert network.state.status.value == status
    assert network.phase(two.task_id) is Phase.CANCELLED
    assert network.facts("conversation.ended")[0].payload["reason"] == "deadline"
    if status == "completed":
        assert network.result()["states"] == {"worker-1": "done"}


def test_a_peer_that_fails_for_good_ends_the_conversation() -> None:
    network = drill({}, 2)
    network.tick()
    one, _ = network.in_flight()
    network.receive(network.failed(one, retryable=False))
    network.tick()
    assert network.state.status is ExecutionStatus.FAILED
    assert network.audit("error.occurred")[0]["error_type"] == "PEER_FAILED"


def test_a_peer_that_fails_for_good_may_be_left_out() -> None:
    network = drill({"on_peer_failure": "go_on"}, 3)
    network.tick()
    one, two, three = network.in_flight()
    network.say(two, send("worker-1", "early"))
    network.tick()
    network.receive(network.failed(one, retryable=False))
    network.tick()
    network.say(three, {"state": 3, "messages": [{"to": "worker-1", "body": "late"}, {"to": "worker-2"}]})
    network.tick()
    network.run(lambda *_: {"state": 2})
    assert network.result()["states"] == {"worker-2": 2, "worker-3": 3}
    assert refusals(network) == [("worker-2", "peer_gone"), ("worker-3", "peer_gone")]


def test_large_states_are_left_out_of_the_result() -> None:
    network = drill({"state_bytes_max": 2_048, "start": "all"}, 150)
    network.run(lambda *_: {"state": "x" * 2_000})
    result = network.result()
    assert len(result["states"]) + result["states_left_out"] == 150
    assert result["states_left_out"] > 0


def test_what_one_tick_sends_is_bounded() -> None:
    network = drill({"message_bytes_max": 2_000, "messages_max": 100_000}, 40)
    network.tick()
    network.answer_all(lambda *_: send("*", "x" * 1_000))
    network.tick()
    assert network.policy.next_due_ms(network.state) == 0
    network.run(lambda *_: None)
    assert network.result()["messages"] == 40 * 39
    assert network.result()["undelivered"] == 0


def test_each_conversation_may_have_settings_of_its_own() -> None:
    network = drill({"start": "first", "conversations": {"r": {"start": "all"}}}, 2, "q", "r")
    network.tick()
    assert {a.task_id for a in network.in_flight()} == {"q[0]", "r[0]", "r[1]"}


def test_more_peers_than_an_execution_may_ask_fail_the_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workflows.kernel.desk.TASKS_DYNAMIC_MAX", 1)
    network = drill({}, 2)
    network.tick()
    network.tick()
    assert network.audit("error.occurred")[0]["error_type"] == "TOO_MANY_MEMBERS"


def test_going_back_does_not_wake_a_peer_that_was_gone_from_a_conversation_that_stays_over() -> None:
    launch = launch_input(
        task("q"), task("r", deps=(0,)), agents=2, pattern_config={"on_peer_failure": "go_on", "start": "all"}
    )
    network = AssemblyDrill(launch, NetworkPolicy())
    network.tick()
    one, two = network.in_flight()
    network.receive(network.failed(one, retryable=False))
    network.say(two, {"state": 2})
    network.tick()
    assert (network.phase("q"), network.phase(one.task_id)) == (Phase.COMPLETED, Phase.CANCELLED)
    network.control("pause", checkpoint_id="c1")
    network.tick()
    network.rewind_to("c1")
    network.tick()
    assert network.phase(one.task_id) is Phase.CANCELLED
    network.continue_as_new()
    network.run(lambda *_: {"state": 1})
    assert network.state.status is ExecutionStatus.COMPLETED
    assert network.result("r")["states"] == {"worker-1": 1, "worker-2": 1}
