"""What passes between a pattern that wants to know something of a value, and the activity that looks at it."""

from typing import Any

from pydantic import Field

from engine.contracts.model import Model

REASONS_MAX = 20


class JudgeInput(Model):
    """`input` of an errand of kind "judge"."""

    expressions: tuple[str, ...] = Field((), description="each must be true")
    json_schema: dict[str, Any] | bool | None = Field(None, description="which `subject` must fit")
    subject: str = Field("result", description="name of the value that the schema is about")
    values: dict[str, Any] = Field(default_factory=dict, description="what the expressions name")
    refs: dict[str, str] = Field(
        default_factory=dict, description="further values, stored, by their references; they count over `values`"
    )
    take: tuple[str, ...] = Field((), description="fields of the subject that the answer is to hold")
    take_bytes_max: int = Field(0, description="of what is taken, as JSON; above it the answer is no")


class Judgement(Model):
    """`value` of the errand's outcome."""

    ok: bool
    reasons: tuple[str, ...] = Field((), description="why not, for people and agents to read")
    broken: bool = Field(False, description="an expression could not be evaluated over these values")
    taken: dict[str, Any] = Field(default_factory=dict, description="those of the fields to take that are there")
