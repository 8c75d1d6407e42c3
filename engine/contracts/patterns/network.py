"""Settings of the network pattern: agents that talk to each other along named links."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from engine.contracts.definition import Expression, Name
from engine.contracts.limits import AGENTS_MAX
from engine.contracts.model import StrictModel
from engine.contracts.patterns.swarm import SETTINGS_MAX, check_each
from engine.contracts.topology import AgentId, TopologyConfig

MESSAGE_BYTES_MAX = 2_048
"""A turn's result must come to the workflow whole, and so must fit what travels inline."""


class Conversation(StrictModel):
    """How the peers of a task talk."""

    topology: TopologyConfig = Field(default_factory=TopologyConfig, description="who may send to whom")
    start: Literal["all", "first"] | Annotated[list[AgentId], Field(min_length=1, max_length=AGENTS_MAX)] = Field(
        "all", description="who has a turn before any message: all peers, the first, or those named"
    )
    ttl_hops: int = Field(
        1, ge=1, le=100, description="links that a message may go along; a broadcast reaches all within this distance"
    )
    message_seconds: float | None = Field(
        None, gt=0, le=7 * 24 * 3600, description="a message that was not delivered for so long is dropped"
    )
    message_bytes_max: int = Field(1_024, ge=1, le=MESSAGE_BYTES_MAX, description="of one message's body, as JSON")
    state_bytes_max: int = Field(1_024, ge=2, le=MESSAGE_BYTES_MAX, description="of a peer's state, as JSON")
    messages_max: int = Field(10_000, ge=0, le=1_000_000, description="messages of the conversation; then no more go")
    mailbox_max: int = Field(1_000, ge=1, le=10_000, description="messages that wait for one peer; then no more come")
    batch_max: int = Field(100, ge=1, le=1_000, description="messages that one turn takes")
    turns_max: int = Field(10_000, ge=1, le=1_000_000, description="turns of all peers together")
    goal: Expression | None = Field(
        None, description="over `states`, `messages` and `turns`; the task completes as soon as it is true"
    )
    seconds: float | None = Field(None, gt=0, le=30 * 24 * 3600, description="the conversation ends after so long")
    on_deadline: Literal["complete", "fail"] = Field(
        "complete", description="at the deadline, and without the goal at the end"
    )
    on_peer_failure: Literal["fail", "go_on"] = Field(
        "fail", description="a peer whose turn failed for good ends the conversation, or hears nothing any more"
    )

    @model_validator(mode="after")
    def _starts_are_named_once(self) -> Self:
        if isinstance(self.start, list) and len(set(self.start)) < len(self.start):
            raise ValueError("start names a peer twice")
        return self


class NetworkConfig(Conversation):
    """`pattern_config` of the network pattern."""

    conversations: dict[Name, dict[str, Any]] = Field(
        default_factory=dict, max_length=SETTINGS_MAX, description="for single tasks, the settings that differ"
    )

    @model_validator(mode="after")
    def _conversations_are_valid(self) -> Self:
        check_each(self.conversations, self.conversation)
        return self

    def conversation(self, task_id: str) -> Conversation:
        """The settings of one task."""
        own = self.model_dump(exclude={"conversations"}, exclude_unset=True)
        return Conversation.model_validate({**own, **self.conversations.get(task_id, {})})
