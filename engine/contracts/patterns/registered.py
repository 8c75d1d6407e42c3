"""Patterns that tenants have registered, as they are stored and shown."""

from datetime import datetime
from typing import Any
from uuid import UUID

from engine.contracts.model import Model


class PatternSummary(Model):
    pattern_id: UUID
    name: str
    version: str
    description: str


class RegisteredPattern(PatternSummary):
    """A version of a pattern; it never changes."""

    coordination_logic: dict[str, Any]
    configuration_schema: dict[str, Any]
    created_at: datetime
    created_by: str
