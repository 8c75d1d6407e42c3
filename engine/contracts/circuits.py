"""Circuit breakers: what is asked of one, and what it answers.

A breaker stands before an agent type of a tenant, or before a service that the engine calls. Whoever is about to call
asks for admission under an id of its own, and later reports what came of it under the same id. Both are safe to repeat.
"""

from enum import StrEnum
from typing import Literal

from pydantic import Field

from engine.contracts.model import Model

LEASE_MS_MAX = 3_600_000
"""A probe of which nothing is heard for so long does not keep others out any more."""

WhenOpen = Literal["wait", "reassign", "fail"]


class CircuitState(StrEnum):
    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitRule(Model):
    """When a breaker opens, for how long, and how many calls then try whether it may close."""

    failure_threshold: int = 3
    timeout_ms: int = 30_000
    half_open_probes: int = 1
    when_open: WhenOpen = Field("wait", description="what becomes of tasks whose agents' breaker is open")


Verdict = Literal["failed", "worked", "released"]


class CallEnd(Model):
    """The end of a call: it failed, it worked, or nothing is known of it and its place as a probe is free again."""

    verdict: Verdict
    call_id: str
    counted_as: str = Field("", description="failures with the same one count once, as those of one lost host do")


class CircuitAsk(Model):
    """One step at one breaker: what came of earlier calls, and which are wanted now. All are admitted, or none."""

    service: str
    expects: CircuitState = Field(
        CircuitState.CLOSED, description="what the caller decided on; when it is otherwise, it decides anew"
    )
    ended: tuple[CallEnd, ...] = ()
    wanted: tuple[str, ...] = ()
    lease_ms: int = Field(60_000, description="how long a wanted call holds its place as a probe")


class CircuitCheck(Model):
    """What a tick asks before it is committed."""

    rule: CircuitRule
    asks: tuple[CircuitAsk, ...]


class CircuitView(Model):
    """A breaker as it is after a step."""

    service: str
    state: CircuitState = CircuitState.CLOSED
    failures: int = Field(0, description="that followed each other without a success")
    threshold: int = Field(0, description="by which it opened last")
    retry_in_ms: int = Field(0, description="not closed: when to ask again")
    free: int = Field(0, description="not closed: probes that could start now")
    opened_by: str = Field("", description="the execution, or the process, whose failure opened it last")
    admitted: bool = True
    counted: int = Field(0, description="failures that this step added")
    total: int = Field(0, description="failures since the breaker is known")
    at_ms: int = Field(0, description="on the clock of the store; 0: not known")
    waiting: int = Field(0, description="the step has closed it: how many others wait to hear of that")


def agent_service(agent_type: str) -> str:
    """The name under which the breaker of an agent type goes."""
    return f"agent:{agent_type}"


class BreakerView(Model):
    """A circuit breaker of the tenant's, as the API shows it."""

    service: str = Field(description='"agent:<type>" for an agent type')
    state: CircuitState
    failures: int = Field(description="that followed each other without a success")
    threshold: int = Field(description="by which it opened last; 0 when it never has")
    retry_in_seconds: float = Field(description="not closed: when a call may be tried again")
    opened_by: str = Field(description="the execution whose failure opened it last")
    failures_total: int


class BreakerReset(Model):
    service: str
    state: CircuitState = CircuitState.CLOSED
