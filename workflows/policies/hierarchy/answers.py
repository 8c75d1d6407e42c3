"""Reading what superiors answer."""

from typing import Any, Final, TypeVar

from pydantic import ValidationError

from engine.contracts.judging import JudgeInput, Judgement
from engine.contracts.kernel import ErrandOutcome
from engine.contracts.model import StrictModel
from engine.contracts.patterns.hierarchical import DelegationAnswer, EscalationAnswer
from workflows.policies.hierarchy.rights import RefusedError

ANSWER_BYTES_MAX: Final = 32 * 1024
JUDGE: Final = "judge"
_FIELDS: Final = tuple(sorted({*EscalationAnswer.model_fields, *DelegationAnswer.model_fields}))

Answer = TypeVar("Answer", bound=StrictModel)


def fetching(reference: str) -> dict[str, Any]:
    """The errand that fetches an answer which came by reference, because it is large."""
    question = JudgeInput(subject="answer", refs={"answer": reference}, take=_FIELDS, take_bytes_max=ANSWER_BYTES_MAX)
    return question.model_dump(mode="json")


def fetched(outcome: ErrandOutcome) -> Any:
    """Raises RefusedError when it is too large, or gone."""
    if not outcome.ok:
        raise RefusedError(f"the answer cannot be read: {outcome.code}")
    judgement = Judgement.model_validate(outcome.value)
    if not judgement.ok:
        raise RefusedError("; ".join(judgement.reasons))
    return judgement.taken


def read(model: type[Answer], document: Any) -> Answer:
    """Raises RefusedError, which says what is wrong with it."""
    if not isinstance(document, dict):
        raise RefusedError("the answer is not an object")
    try:
        return model.model_validate(document)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part)[:50] for part in first["loc"])
        raise RefusedError(f"{where or 'answer'}: {first['msg']}"[:300]) from error
