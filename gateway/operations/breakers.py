"""Use cases about circuit breakers: how they are, and closing one by hand."""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Final, Protocol

from pydantic import Field

from engine.contracts.circuits import BreakerReset, BreakerView, CircuitView
from engine.contracts.model import StrictModel
from engine.contracts.views import Page
from engine.errors import InvalidParametersError, NotFoundError
from engine.security.permissions import Permission
from gateway.operations.operation import Caller, Operation, PageParameters, parse_parameters

BREAKER_METHODS: Final = ("breaker.list", "breaker.reset")

ServiceName = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[A-Za-z0-9_.:-]+$")]


class BreakerBox(Protocol):
    """The breakers that all processes share."""

    async def known(self, tenant: str | None) -> Sequence[CircuitView]: ...

    async def reset(self, tenant: str | None, service: str) -> bool: ...


class BreakerReference(StrictModel):
    service: ServiceName


class BreakerOperations:
    def __init__(self, breakers: BreakerBox) -> None:
        self._breakers = breakers

    async def list(self, caller: Caller, request: PageParameters) -> Page[BreakerView]:
        """Those that have seen a failure lately, by name; all others are closed."""
        token = request.page_token or "0"
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise InvalidParametersError("page_token: is not one that a listing gave")
        first = int(token)
        views = await self._breakers.known(caller.tenant)
        after = first + request.limit
        items = tuple(map(_shown, views[first:after]))
        return Page(items=items, next_page_token=str(after) if after < len(views) else None)

    async def reset(self, caller: Caller, request: BreakerReference) -> BreakerReset:
        """What it has seen is forgotten. It opens again by what it then sees."""
        if not await self._breakers.reset(caller.tenant, request.service):
            raise NotFoundError("no such circuit breaker", service=request.service)
        return BreakerReset(service=request.service)


def _shown(view: CircuitView) -> BreakerView:
    return BreakerView(
        service=view.service,
        state=view.state,
        failures=view.failures,
        threshold=view.threshold,
        retry_in_seconds=view.retry_in_ms / 1000,
        opened_by=view.opened_by,
        failures_total=view.total,
    )


def breaker_operations(breakers: BreakerOperations) -> tuple[Operation, ...]:
    return (
        Operation(
            name="breaker.list",
            permission=Permission.WORKFLOW_READ,
            parse=partial(parse_parameters, PageParameters),
            run=breakers.list,
            parameters=PageParameters,
            result=Page[BreakerView],
            positional=tuple(PageParameters.model_fields),
            subject_type="engine",
        ),
        Operation(
            name="breaker.reset",
            permission=Permission.WORKFLOW_ADMIN,
            parse=partial(parse_parameters, BreakerReference),
            run=breakers.reset,
            parameters=BreakerReference,
            result=BreakerReset,
            positional=tuple(BreakerReference.model_fields),
            subject_type="breaker",
            subject_field="service",
        ),
    )
