"""An operation: a use case with its name, the permission it needs, and the audit record it leaves.

JSON-RPC and REST call the same operations through `Operations.perform`, so that permission, validation and
audit cannot differ between them.
"""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Protocol, TypeVar
from uuid import UUID

import structlog
from pydantic import BaseModel, Field, ValidationError

from engine.contracts.limits import PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX
from engine.contracts.model import Model, StrictModel
from engine.contracts.pressure import Pressure
from engine.contracts.views import OperationRecord
from engine.errors import EngineError, InvalidParametersError, TooManyRequestsError
from engine.ports import OperationLog
from engine.security.permissions import Permission
from engine.security.principal import Principal

ERRORS_REPORTED_MAX: Final = 100
AUDIT_TIMEOUT_SECONDS: Final = 5.0
SUBJECT_LENGTH_MAX: Final = 255
DETAILS_BYTES_MAX: Final = 16 * 1024
DETAIL_NAMES_MAX: Final = 50
ADDING_LOAD: Final = frozenset({"workflow.execute", "execution.send_event"})
PRESSURE_RETRY_SECONDS: Final = 5

_WHOLE_NUMBER: Final = re.compile(r"[0-9]{1,18}\Z", re.ASCII)

Id = Annotated[UUID, Field(strict=False)]
"""Strict models take a UUID as it is written in JSON."""

PageToken = Annotated[str, Field(max_length=1024, pattern=r"^[A-Za-z0-9_-]+$")]
IdempotencyKey = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[\x21-\x7e]+$")]


class PageParameters(StrictModel):
    limit: int = Field(PAGE_SIZE_DEFAULT, ge=1, le=PAGE_SIZE_MAX)
    page_token: PageToken | None = None


class NoParameters(StrictModel):
    """For operations that take none."""


class LoadGauge(Protocol):
    async def level(self) -> Pressure: ...


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks, from where, and how their request is called in logs and answers."""

    principal: Principal
    address: str
    request_id: str
    base_url: str
    trace_id: UUID

    @property
    def tenant(self) -> str:
        return self.principal.tenant


@dataclass(frozen=True, slots=True)
class Operation:
    """`parse` makes the parameters of what the client sent and raises InvalidParametersError.

    `parameters` and `result` describe both for people; nothing is validated with them.
    """

    name: str
    permission: Permission
    parse: Callable[[dict[str, Any]], Any]
    run: Callable[[Caller, Any], Awaitable[Model | None]]
    parameters: type[BaseModel]
    result: Any
    positional: tuple[str, ...]
    subject_type: str
    subject_field: str | None = None
    result_subject: str | None = None
    """The field of the result that names what was made."""
    details: Callable[[Any], dict[str, Any]] | None = None
    """What the audit log is to say of the parameters; nothing when absent."""


Parameters = TypeVar("Parameters", bound=StrictModel)


def located(error: ValidationError) -> list[dict[str, str]]:
    """Pydantic's findings as `{code, location, message}`, without the values themselves."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return [
        {"code": item["type"].upper(), "location": _path(item["loc"]), "message": item["msg"]}
        for item in found[:ERRORS_REPORTED_MAX]
    ]


def _path(parts: Iterable[str | int]) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text[:SUBJECT_LENGTH_MAX]


def parse_parameters(model: type[Parameters], given: dict[str, Any]) -> Parameters:
    try:
        return model.model_validate(given)
    except ValidationError as error:
        raise InvalidParametersError("the parameters are not valid", errors=located(error)) from error


def whole_number_token(page_token: str | None) -> int:
    """For listings that are counted: the token is the number to go on from."""
    if page_token is None:
        return 0
    if not _WHOLE_NUMBER.match(page_token):
        raise InvalidParametersError(
            "the page token is not valid",
            errors=[{"code": "PAGE_TOKEN", "location": "page_token", "message": "use what a page answered"}],
        )
    return int(page_token)


class Operations:
    """The table of all operations, and the one way to carry one out."""

    def __init__(self, operations: Iterable[Operation], log: OperationLog, pressure: LoadGauge | None = None) -> None:
        self._table: Mapping[str, Operation] = {operation.name: operation for operation in operations}
        self._log = log
        self._pressure = pressure
        self._logger = structlog.get_logger("gateway.operations")

    def __contains__(self, name: str) -> bool:
        return name in self._table

    def __getitem__(self, name: str) -> Operation:
        return self._table[name]

    def names(self) -> tuple[str, ...]:
        return tuple(self._table)

    async def perform(self, name: str, caller: Caller, given: dict[str, Any]) -> Model | None:
        """Check, validate, run, and record the outcome whatever it is."""
        operation = self._table[name]
        subject = _text(given.get(operation.subject_field)) if operation.subject_field else None
        outcome = "INTERNAL"
        details: dict[str, Any] = {}
        try:
            caller.principal.require(operation.permission)
            parameters = operation.parse(given)
            if operation.details is not None:
                details = _capped(operation.details(parameters))
            await self._check_load(name)
            result = await operation.run(caller, parameters)
            outcome = "ok"
            if operation.result_subject is not None:
                subject = _text(getattr(result, operation.result_subject))
        except EngineError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "ABANDONED"
            raise
        else:
            return result
        finally:
            await self._record(operation, caller, subject, outcome, details)

    async def _check_load(self, name: str) -> None:
        """What brings more to do is refused before there is no room for what is under way."""
        if name in ADDING_LOAD and self._pressure is not None and await self._pressure.level() is Pressure.STOP:
            raise TooManyRequestsError(
                "the event streams are almost full: nothing new is taken until they have been worked off",
                retry_after_seconds=PRESSURE_RETRY_SECONDS,
            )

    async def _record(
        self, operation: Operation, caller: Caller, subject: str | None, outcome: str, details: dict[str, Any]
    ) -> None:
        record = OperationRecord(
            actor=caller.principal.subject,
            roles=caller.principal.roles,
            address=caller.address,
            operation=operation.name,
            subject_type=operation.subject_type,
            subject_id=subject,
            outcome=outcome,
            request_id=caller.request_id,
            details=details,
        )
        try:
            async with asyncio.timeout(AUDIT_TIMEOUT_SECONDS):
                await self._log.record(caller.tenant, record)
        except (EngineError, TimeoutError) as error:
            # What was done is done: failing the request now would report the wrong outcome.
            fields = record.model_dump(mode="json")
            self._logger.error("operation_not_recorded", tenant=caller.tenant, error=repr(error), **fields)


def _capped(details: dict[str, Any]) -> dict[str, Any]:
    """The log keeps every record, so none may be large: of one that is, it keeps what was named."""
    size = len(json.dumps(details, ensure_ascii=False, default=str).encode("utf-8", "replace"))
    if size <= DETAILS_BYTES_MAX:
        return details
    return {"omitted_bytes": size, "fields": [name[:SUBJECT_LENGTH_MAX] for name in details][:DETAIL_NAMES_MAX]}


def _text(value: Any) -> str | None:
    """What a client sent as an id may be anything; the audit log takes a short printable text."""
    if value is None:
        return None
    text = str(value)[:SUBJECT_LENGTH_MAX]
    return text if text.isprintable() else ascii(text)[:SUBJECT_LENGTH_MAX]
