"""The operator's catalogue: which agent types exist and what code or address stands behind each.

Definitions name types; only the operator says what a type is.
"""

from typing import Annotated, Literal

from pydantic import Field

from engine.contracts.definition import Name, Text
from engine.contracts.model import Model

FunctionReference = Annotated[str, Field(pattern=r"^python:[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=500)]


class AgentType(Model):
    """One type of agent.

    `entry` is `python:module:function` for types whose host processes the engine starts, or `external` for
    programs that start elsewhere and register themselves.
    """

    entry: FunctionReference | Literal["external", "synthetic"]
    description: str = ""
    capabilities: tuple[Text, ...] | Literal["*"] = Field((), description='"*": has every capability')
    slots: int = Field(1, ge=1, le=1000, description="tasks that one logical agent does at once")
    agents_per_host: int = Field(64, ge=1, le=10_000, description="logical agents of one execution in one process")
    hosts_max: int = Field(4, ge=1, le=256, description="host processes of this type for one tenant")
    python_path: str | None = Field(None, description="folder put first on the host's import path")
    environment: dict[str, str] = Field(default_factory=dict)


class Catalogue(Model):
    agents: dict[Name, AgentType] = Field(default_factory=dict)


SYNTHETIC_TYPE = "synthetic"

SYNTHETIC = AgentType(
    entry="synthetic",
    description="built in, for tests and benchmarks: does what its task's input says",
    capabilities="*",
    slots=8,
    agents_per_host=10_000,
    hosts_max=2,
)
