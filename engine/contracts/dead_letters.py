"""Entries of agents' streams that could not be delivered, and why."""

from datetime import datetime
from typing import Any

from pydantic import Field

from engine.contracts.model import Model


class DeadLetter(Model):
    letter_id: str
    reason: str
    tries: int = Field(description="how often it was tried")
    buried_at: datetime
    partition: int
    entry_id: str = Field(description="the id that it had in the partition's stream")
    execution_id: str | None = Field(None, description="null when it names none that can be read")
    event_types: tuple[str, ...] = Field((), description="the first few of what it reports")
    size_bytes: int
    replayable: bool = Field(description="false when it names no execution, or was too large to be kept whole")


class DeadLetterDetail(DeadLetter):
    fields: dict[str, Any] = Field(description="the entry's; what is no UTF-8 has replacement characters")


class DeadLetterPage(Model):
    items: tuple[DeadLetter, ...]
    next_page_token: str | None = None
    total: int


class DeadLettersReplayed(Model):
    replayed: tuple[str, ...]
    refused: dict[str, str] = Field(default_factory=dict, description="letter -> why it was not replayed")
    more: bool = Field(False, description="with `all`: there are more; ask again")


class DeadLettersPurged(Model):
    purged: int
