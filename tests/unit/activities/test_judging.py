"""The activity that looks at values for patterns."""

from typing import Any
from uuid import UUID

import orjson
import pytest
from temporalio.exceptions import ApplicationError

from activities.judging import JudgingActivities
from engine.contracts.judging import Judgement
from engine.contracts.kernel import Errand, ErrandOutcome, ErrandRequest
from engine.errors import NotFoundError, UnavailableError

EXECUTION = "00000000-0000-4000-8000-000000000001"


class Payloads:
    """A PayloadStore."""

    def __init__(self, **stored: Any) -> None:
        self.stored = stored
        self.failure: Exception | None = None

    async def put_payload(self, tenant: str, execution_id: UUID, payload: bytes) -> str:
        raise NotImplementedError

    async def payload(self, tenant: str, execution_id: UUID, reference: str) -> bytes:
        if self.failure is not None:
            raise self.failure
        if reference not in self.stored:
            raise NotFoundError("no such payload")
        return orjson.dumps(self.stored[reference])


async def ask(question: Any, payloads: Payloads | None = None) -> ErrandOutcome:
    errand = Errand(key="judge/a", kind="judge", input=question)
    request = ErrandRequest(
        tenant="acme", execution_id=EXECUTION, workflow_id=EXECUTION, trace_id="t", epoch=1, errand=errand
    )
    return await JudgingActivities(payloads or Payloads()).judge(request)


async def judged(payloads: Payloads | None = None, **question: Any) -> Judgement:
    outcome = await ask(question, payloads)
    assert (outcome.key, outcome.ok) == ("judge/a", True)
    return Judgement.model_validate(outcome.value)


async def test_a_value_for_which_all_expressions_hold_and_that_fits_the_schema_is_accepted() -> None:
    found = await judged(
        expressions=["result.score >= 0.5", "result.words < context.limit"],
        json_schema={"type": "object", "required": ["score"]},
        values={"result": {"score": 0.7, "words": 9}, "context": {"limit": 10}},
    )
    assert found == Judgement(ok=True)


async def test_every_expression_that_does_not_hold_and_every_violation_is_a_reason() -> None:
    found = await judged(
        expressions=["result.score >= 0.5", "result.words < 10", "true"],
        json_schema={"properties": {"score": {"type": "string"}}, "required": ["author"]},
        values={"result": {"score": 0.2, "words": 11}},
    )
    assert not found.ok
    assert not found.broken
    assert found.reasons[:2] == ("not so: result.score >= 0.5", "not so: result.words < 10")
    assert sorted(found.reasons[2:]) == ['"author" is a required property', 'score: 0.2 is not of type "string"']


@pytest.mark.parametrize("text", ["result.score >", "nobody.there == 1", "result.score + 1", "1/0 == 1"])
async def test_an_expression_that_cannot_be_evaluated_is_no_and_says_so(text: str) -> None:
    found = await judged(expressions=[text], values={"result": {"score": "high"}})
    assert not found.ok
    assert found.broken
    assert found.reasons[0].startswith(f"cannot be evaluated: {text}: ")


async def test_a_long_expression_is_shown_in_part() -> None:
    found = await judged(expressions=["false and " * 100 + "false"])
    assert len(found.reasons[0]) < 250


async def test_stored_values_are_looked_at_and_count_over_given_ones() -> None:
    found = await judged(
        Payloads(big={"score": 1}), expressions=["result.score == 1"], refs={"result": "big"}, values={"result": {}}
    )
    assert found.ok


async def test_fields_are_taken_from_the_subject_up_to_a_size() -> None:
    values = {"result": {"context": {"text": "x" * 100}, "other": 1}}
    asked: dict[str, Any] = {"values": values, "take": ["context", "handoff_to"]}
    assert (await judged(**asked, take_bytes_max=1_000)).taken == {"context": {"text": "x" * 100}}
    refused = await judged(**asked, take_bytes_max=100)
    assert (refused.ok, refused.taken) == (False, {})
    assert "at most 100 are taken" in refused.reasons[0]


async def test_nothing_is_taken_of_what_is_no_object() -> None:
    assert (await judged(values={"result": [1]}, take=["context"])).taken == {}


@pytest.mark.parametrize(
    ("question", "code"),
    [
        ({"json_schema": {"type": "nonsense"}}, "INVALID_SCHEMA"),
        ({"json_schema": {"$ref": "http://127.0.0.1:1/other"}}, "INVALID_SCHEMA"),
        ({"refs": {"result": "gone"}}, "NOT_FOUND"),
        ({"unknown": 1}, "MALFORMED"),
        ({"values": {"result": {"context": 10**400}}, "take": ["context"]}, "MALFORMED"),
        (None, "MALFORMED"),
    ],
)
async def test_a_question_that_makes_no_sense_is_an_outcome_that_is_not_ok(question: Any, code: str) -> None:
    outcome = await ask(question)
    assert (outcome.ok, outcome.code) == (False, code)


async def test_a_store_that_is_away_is_asked_again_by_temporal() -> None:
    payloads = Payloads()
    payloads.failure = UnavailableError("away")
    with pytest.raises(ApplicationError) as failure:
        await ask({"refs": {"result": "big"}}, payloads)
    assert not failure.value.non_retryable
