"""Two tenants on one engine: what is the other's answers exactly like what is not there."""

import json
import uuid
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.acceptance.caller import Caller, Refused
from tests.acceptance.running import RunningEngine, until
from tests.acceptance.shapes import chain, held_at, lasting, tasks

pytestmark = pytest.mark.acceptance

CHAIN = chain(3)


@pytest.fixture(scope="module")
def owner(engine: RunningEngine) -> Caller:
    return engine.caller("owner")


@pytest.fixture(scope="module")
def stranger(engine: RunningEngine) -> Caller:
    return engine.caller("stranger")


@pytest.fixture(scope="module")
def workflow_id(owner: Caller) -> str:
    return owner.create(*held_at(CHAIN, ("t1",)), name="secret-plan", agent_type="recorder")


@pytest.fixture(scope="module")
def paused(engine: RunningEngine, owner: Caller, workflow_id: str) -> str:
    """An execution of the owner's, with a checkpoint, that stands still: any change would show."""
    execution_id = owner.execute(workflow_id)
    owner.until_event(execution_id, "task.completed", task_id="t0")
    owner.rpc("workflow.pause", execution_id=execution_id)
    engine.release(execution_id, "t1")
    until(lambda: owner.status(execution_id)["task_counts"]["running"] == 0, "nothing of it runs any longer")
    owner.until_status(execution_id, "paused")
    return execution_id


def raw_rpc(caller: Caller, method: str, params: dict[str, Any]) -> str:
    """The answer's text, without what is new in every request."""
    response = caller.http.post(
        "/api/v1/jsonrpc",
        json={"jsonrpc": "2.0", "id": 1, "method": method, "params": params},
        headers={"X-Request-ID": "same"},
    )
    return f"{response.status_code} {response.text}"


def raw_rest(caller: Caller, verb: str, path: str) -> str:
    response = caller.rest(verb, path, headers={"X-Request-ID": "same"})
    headers = {k: v for k, v in response.headers.items() if k not in ("date",)}
    return f"{response.status_code} {json.dumps(headers)} {response.text}"


@pytest.mark.parametrize(
    "method",
    ["workflow.status", "workflow.pause", "workflow.resume", "workflow.cancel"],
)
def test_the_others_execution_is_not_there_over_json_rpc(stranger: Caller, paused: str, method: str) -> None:
    nowhere = str(uuid.uuid4())
    theirs = raw_rpc(stranger, method, {"execution_id": paused})
    assert "-32003" in theirs
    assert theirs.replace(paused, "X") == raw_rpc(stranger, method, {"execution_id": nowhere}).replace(nowhere, "X")


def test_the_others_checkpoint_is_not_there(owner: Caller, stranger: Caller, paused: str) -> None:
    theirs = owner.status(paused)["latest_checkpoint_id"]
    mine = stranger.execute(stranger.create(*tasks(CHAIN, input=lasting(5_000))))
    stranger.rpc("workflow.pause", execution_id=mine)
    nowhere = str(uuid.uuid4())
    answer = raw_rpc(stranger, "workflow.resume", {"execution_id": mine, "checkpoint_id": theirs})
    assert "-32008" in answer
    expected = raw_rpc(stranger, "workflow.resume", {"execution_id": mine, "checkpoint_id": nowhere})
    assert answer.replace(theirs, "X") == expected.replace(nowhere, "X")
    stranger.rpc("workflow.cancel", execution_id=mine)


@pytest.mark.parametrize("method", ["workflow.get", "workflow.delete", "workflow.execute"])
def test_the_others_definition_is_not_there_over_json_rpc(stranger: Caller, workflow_id: str, method: str) -> None:
    more: dict[str, Any] = {"input_data": {}} if method == "workflow.execute" else {}
    nowhere = str(uuid.uuid4())
    theirs = raw_rpc(stranger, method, {"workflow_id": workflow_id, **more})
    assert "-32003" in theirs
    expected = raw_rpc(stranger, method, {"workflow_id": nowhere, **more})
    assert theirs.replace(workflow_id, "X") == expected.replace(nowhere, "X")


@pytest.mark.parametrize(
    ("verb", "path"),
    [
        ("GET", "/executions/{}"),
        ("GET", "/executions/{}/tasks"),
        ("GET", "/executions/{}/events"),
        ("GET", "/executions/{}/checkpoints"),
        ("POST", "/executions/{}/checkpoints"),
        ("POST", "/executions/{}/pause"),
        ("POST", "/executions/{}/resume"),
        ("POST", "/executions/{}/cancel"),
    ],
)
def test_the_others_execution_is_not_there_over_rest(stranger: Caller, paused: str, verb: str, path: str) -> None:
    nowhere = str(uuid.uuid4())
    theirs = raw_rest(stranger, verb, path.format(paused))
    assert theirs.startswith("404 ")
    assert theirs.replace(paused, "X") == raw_rest(stranger, verb, path.format(nowhere)).replace(nowhere, "X")


@pytest.mark.parametrize(("verb", "path"), [("GET", "/workflows/{}"), ("DELETE", "/workflows/{}")])
def test_the_others_definition_is_not_there_over_rest(stranger: Caller, workflow_id: str, verb: str, path: str) -> None:
    nowhere = str(uuid.uuid4())
    theirs = raw_rest(stranger, verb, path.format(workflow_id))
    assert theirs.startswith("404 ")
    assert theirs.replace(workflow_id, "X") == raw_rest(stranger, verb, path.format(nowhere)).replace(nowhere, "X")


def refused_watch(caller: Caller, execution_id: str) -> tuple[list[Any], int | None, str]:
    messages = []
    address = f"{caller.url.replace('http', 'ws', 1)}/ws/workflows/{execution_id}"
    with connect(address, additional_headers={"Authorization": f"Bearer {caller.token}"}) as connection:
        try:
            while True:
                messages.append(connection.recv(timeout=60))
        except ConnectionClosed as closed:
            received = closed.rcvd
    assert received is not None
    return messages, received.code, received.reason


def test_the_others_execution_cannot_be_watched(stranger: Caller, paused: str) -> None:
    theirs = refused_watch(stranger, paused)
    assert theirs == refused_watch(stranger, str(uuid.uuid4()))
    assert theirs[:2] == ([], 4404)


def test_nothing_of_the_others_is_listed_or_counted(engine: RunningEngine, paused: str) -> None:
    newcomer, nobody = engine.caller("newcomer"), engine.caller("nobody")
    assert newcomer.rest("GET", "/workflows").json() == {"items": [], "next_page_token": None}
    assert newcomer.rest("GET", "/executions").json() == {"items": [], "next_page_token": None}
    assert newcomer.rest("GET", "/agents").json() == {"items": [], "next_page_token": None}
    own = [caller.rest("GET", "/capacity").json() for caller in (newcomer, nobody)]
    assert own[0]["tenant"]["in_use"] == own[1]["tenant"]["in_use"]
    assert own[0]["tenant"]["in_use"]["executions"] == 0
    assert set(own[0]["executions"].values()) == {0}
    assert paused not in newcomer.rest("GET", "/audit").text


def test_a_filter_by_the_others_workflow_finds_nothing(stranger: Caller, workflow_id: str, paused: str) -> None:
    listed = stranger.rest("GET", "/executions", params={"workflow_id": workflow_id})
    nothing = stranger.rest("GET", "/executions", params={"workflow_id": str(uuid.uuid4())})
    assert (listed.status_code, listed.text) == (nothing.status_code, nothing.text)
    assert paused not in listed.text


def test_the_same_name_and_key_belong_to_each_tenant_for_itself(owner: Caller, stranger: Caller) -> None:
    mine = owner.create({"id": "only"}, name="shared-name")
    theirs = stranger.create({"id": "another"}, name="shared-name")
    assert mine != theirs
    started = [
        caller.rpc("workflow.execute", workflow_id=workflow, input_data={}, idempotency_key="shared-key")
        for caller, workflow in ((owner, mine), (stranger, theirs))
    ]
    assert started[0]["execution_id"] != started[1]["execution_id"]
    for caller, answer in zip((owner, stranger), started, strict=True):
        caller.until_completed(answer["execution_id"])


def test_the_owner_finds_everything_as_it_was(owner: Caller, paused: str, workflow_id: str) -> None:
    """Runs last: after all that the stranger tried."""
    assert owner.status(paused)["status"] == "paused"
    assert len(owner.checkpoints(paused)) == 1
    owner.rpc("workflow.resume", execution_id=paused)
    owner.until_completed(paused)
    with pytest.raises(Refused) as refused:
        owner.create({"id": "changed"}, name="secret-plan")
    assert refused.value.code == -32602
    assert owner.rpc("workflow.get", workflow_id=workflow_id)["name"] == "secret-plan"
