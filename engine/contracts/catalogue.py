"""The operator's catalogue: which agent types exist and what code or address stands behind each.

Definitions name types; only the operator says what a type is.
"""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.definition import Name, Text
from engine.contracts.model import Model
from engine.contracts.pods import Image, PodSettings

FunctionReference = Annotated[str, Field(pattern=r"^python:[A-Za-z_][\w.]*:[A-Za-z_]\w*$", max_length=500)]


class AgentType(Model):
    """One type of agent.

    `entry` is `python:module:function` for types whose host processes the engine starts, or `external` for
    programs that start elsewhere and register themselves. `container` is for images whose own program speaks the
    agent protocol; such types need Kubernetes.
    """

    entry: FunctionReference | Literal["external", "synthetic", "container"]
    description: str = ""
    capabilities: tuple[Text, ...] | Literal["*"] = Field((), description='"*": has every capability')
    slots: int = Field(1, ge=1, le=1000, description="tasks that one logical agent does at once")
    agents_per_host: int = Field(64, ge=1, le=10_000, description="logical agents of one execution in one process")
    hosts_max: int = Field(4, ge=1, le=256, description="host processes of this type for one tenant")
    python_path: str | None = Field(None, description="folder put first on the host's import path")
    environment: dict[str, str] = Field(default_factory=dict)
    image: Image | None = Field(None, description="on Kubernetes; the settings' own image when absent")
    kubernetes: PodSettings = Field(default_factory=PodSettings)
    local_fallback: bool = Field(
        False, description="run as a host process of this machine while the Kubernetes API does not answer"
    )

    @model_validator(mode="after")
    def _can_be_started(self) -> Self:
        if self.entry == "container" and self.image is None:
            raise ValueError("image: entry container needs one; name the image whose program speaks the agent protocol")
        if self.entry == "external" and self.image is not None:
            raise ValueError("image: the engine does not start external agents; remove it, or change entry")
        if self.local_fallback and self.entry in ("container", "external"):
            raise ValueError(f"local_fallback: there is no program here for entry {self.entry}; remove it")
        return self


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
