"""Looks at values for patterns: whether expressions hold over them, and whether one fits a JSON Schema.

Workflows neither evaluate expressions, whose language may change under a replay, nor see results above 4 KiB, which
travel by reference. Reads only.
"""

import asyncio
from typing import Any
from uuid import UUID

import orjson
from temporalio import activity

from activities.ticks import as_application_error
from engine.contracts import activity_names
from engine.contracts.judging import REASONS_MAX, JudgeInput, Judgement
from engine.contracts.kernel import ErrandOutcome, ErrandRequest
from engine.contracts.limits import EXPRESSION_STEPS_MAX
from engine.errors import EngineError, NotFoundError
from engine.expressions import ExpressionError, holds, parse
from engine.json_schemas import CompiledSchema, InvalidSchemaError
from engine.ports import PayloadStore

SHOWN_LENGTH_MAX = 200
"""Characters of an expression in a reason."""


class JudgingActivities:
    """Bound to the payloads of one worker process."""

    def __init__(self, payloads: PayloadStore) -> None:
        self._payloads = payloads

    @activity.defn(name=activity_names.JUDGE)
    async def judge(self, request: ErrandRequest) -> ErrandOutcome:
        """The outcome's value is a `Judgement`. What is wrong with the question itself is an outcome that is not ok."""
        key = request.errand.key
        try:
            question = JudgeInput.model_validate(request.errand.input)
            values = {**question.values, **await self._stored(request, question)}
            judgement = await asyncio.to_thread(_judge, question, values)
        except (ValueError, TypeError, RecursionError) as error:  # asking again would not make sense of it
            return ErrandOutcome(key=key, ok=False, code="MALFORMED", message=str(error)[:500])
        except (InvalidSchemaError, NotFoundError) as error:
            return ErrandOutcome(key=key, ok=False, code=error.code, message=error.message)
        except EngineError as error:
            raise as_application_error(error) from error
        return ErrandOutcome(key=key, value=judgement.model_dump(mode="json"))

    async def _stored(self, request: ErrandRequest, question: JudgeInput) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, reference in question.refs.items():
            payload = await self._payloads.payload(request.tenant, UUID(request.execution_id), reference)
            found[name] = orjson.loads(payload)
        return found


def _judge(question: JudgeInput, values: dict[str, Any]) -> Judgement:
    reasons: list[str] = []
    broken = False
    for text in question.expressions:
        shown = text if len(text) <= SHOWN_LENGTH_MAX else text[: SHOWN_LENGTH_MAX - 3] + "..."
        try:
            if not holds(parse(text), values, steps_max=EXPRESSION_STEPS_MAX):
                reasons.append(f"not so: {shown}")
        except ExpressionError as error:
            broken = True
            reasons.append(f"cannot be evaluated: {shown}: {error.message}")
    subject = values.get(question.subject)
    if question.json_schema is not None:
        reasons.extend(CompiledSchema(question.json_schema).violations(subject))
    taken: dict[str, Any] = {}
    if isinstance(subject, dict):
        taken = {name: subject[name] for name in question.take if name in subject}
    size_bytes = len(orjson.dumps(taken))
    if taken and size_bytes > question.take_bytes_max:
        reasons.append(f"{', '.join(taken)}: {size_bytes} bytes; at most {question.take_bytes_max} are taken")
        taken = {}
    return Judgement(ok=not reasons, reasons=tuple(reasons[:REASONS_MAX]), broken=broken, taken=taken)
