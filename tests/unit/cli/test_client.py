import httpx
import pytest

from cli.client import EngineClient
from cli.connection import Connection
from engine.errors import (
    AlreadyExecutingError,
    CheckpointNotFoundError,
    EngineError,
    ForbiddenError,
    InvalidDefinitionError,
    InvalidParametersError,
    InvalidTransitionError,
    NotFoundError,
    TooLargeError,
    TooManyRequestsError,
    UnauthenticatedError,
    UnavailableError,
)


def client_that_gets(response: httpx.Response) -> EngineClient:
    return EngineClient(Connection("http://engine", "t"), httpx.MockTransport(lambda _: response))


def rpc_error(code: int, **data: object) -> httpx.Response:
    return httpx.Response(200, json={"jsonrpc": "2.0", "id": 1, "error": {"code": code, "message": "no", "data": data}})


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (-32003, NotFoundError),
        (-32004, AlreadyExecutingError),
        (-32007, InvalidTransitionError),
        (-32008, CheckpointNotFoundError),
        (-32016, UnauthenticatedError),
        (-32017, ForbiddenError),
        (-32020, TooManyRequestsError),
        (-32602, InvalidParametersError),
        (-32603, EngineError),
        (-1, EngineError),
    ],
)
def test_a_json_rpc_error_becomes_the_error_of_its_code(code: int, expected: type[EngineError]) -> None:
    with client_that_gets(rpc_error(code)) as client, pytest.raises(EngineError) as caught:
        client.call("workflow.pause", {})
    assert type(caught.value) is expected
    assert caught.value.message == "no"


def test_invalid_parameters_of_create_are_an_invalid_definition_with_its_problems() -> None:
    response = rpc_error(-32602, errors=["tasks[0].id: missing"])
    with client_that_gets(response) as client, pytest.raises(InvalidDefinitionError) as caught:
        client.call("workflow.create", {})
    assert caught.value.data["errors"] == ["tasks[0].id: missing"]


@pytest.mark.parametrize(
    ("status", "expected"),
    [(401, UnauthenticatedError), (404, NotFoundError), (413, TooLargeError), (503, UnavailableError)],
)
def test_a_problem_document_becomes_the_error_of_its_status(status: int, expected: type[EngineError]) -> None:
    response = httpx.Response(status, json={"title": "Short", "detail": "the long story", "status": status})
    with client_that_gets(response) as client, pytest.raises(expected, match="the long story"):
        client.get("/api/v1/executions")


@pytest.mark.parametrize("body", [b"<html>", b"[1]"])
def test_an_answer_of_something_else_names_the_address(body: bytes) -> None:
    with client_that_gets(httpx.Response(502, content=body)) as client, pytest.raises(UnavailableError, match="--url"):
        client.call("workflow.status", {})


def test_a_result_that_is_no_object_is_not_taken_for_one() -> None:
    response = httpx.Response(200, json={"jsonrpc": "2.0", "id": 1})
    with client_that_gets(response) as client, pytest.raises(UnavailableError):
        client.call("workflow.status", {})


@pytest.mark.parametrize("failure", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
def test_an_engine_that_does_not_answer_is_unavailable(failure: httpx.TransportError) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    with EngineClient(Connection("http://engine", "t"), httpx.MockTransport(fail)) as client:
        with pytest.raises(UnavailableError, match="http://engine"):
            client.call("workflow.status", {})
        assert not client.is_healthy()


def test_absent_parameters_are_not_sent_and_the_token_is() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, json={"items": [], "next_page_token": None})

    with EngineClient(Connection("http://engine", "secret"), httpx.MockTransport(answer)) as client:
        assert list(client.pages("/api/v1/executions", limit=5)) == [{"items": [], "next_page_token": None}]
    assert seen[0].url.query == b"limit=5"
    assert seen[0].headers["authorization"] == "Bearer secret"


def test_pages_are_followed_to_the_last() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        number = int(request.url.params.get("page_token", "0"))
        return httpx.Response(200, json={"items": [number], "next_page_token": str(number + 1) if number < 2 else None})

    with EngineClient(Connection("http://engine", "t"), httpx.MockTransport(answer)) as client:
        assert [page["items"] for page in client.pages("/x", limit=1)] == [[0], [1], [2]]
