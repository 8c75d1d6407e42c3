"""Use cases about patterns: the built-in ones, and those that a tenant has registered."""

from functools import partial
from typing import Any, Final, Literal
from uuid import UUID, uuid5

from pydantic import Field

from engine.contracts.definition import Name, Version
from engine.contracts.model import Model, StrictModel
from engine.contracts.patterns import PATTERNS, PatternDescription
from engine.contracts.patterns.language import PatternRegistration
from engine.contracts.patterns.registered import PatternSummary
from engine.contracts.views import Page
from engine.errors import PatternConflictError
from engine.ports import PatternStore
from engine.security.permissions import Permission
from gateway.operations.definitions import content_hash
from gateway.operations.operation import (
    Caller,
    Operation,
    PageParameters,
    parse_parameters,
    whole_number_token,
)
from gateway.operations.planning import PlanningDesk

PATTERN_NAMESPACE: Final = UUID("0b1e5a0e-6f0e-5d0c-8a53-5d7a5a2f1c77")

PatternFilter = Literal["built-in", "custom", "all"]


class PagePatterns(PageParameters):
    filter: PatternFilter = "all"


class ListPatterns(PagePatterns):
    """`pattern.list`: the specification's filter, and paging."""

    filter: PatternFilter = "all"


class PatternName(StrictModel):
    name: str = Field(max_length=255)
    version: Version | None = Field(None, description="of a registered one; the one registered last when absent")


class PatternView(Model):
    pattern_id: UUID
    name: str
    version: str
    type: Literal["built-in", "custom"]
    description: str
    supported: bool


class PatternDetail(PatternView):
    config_schema: dict[str, Any] = Field(description="JSON Schema of `pattern_config`")
    coordination_logic: dict[str, Any] | None = Field(None, description="of a registered pattern")


class PatternList(Model):
    patterns: tuple[PatternView, ...]
    next_page_token: str | None = None


class PatternRegistered(Model):
    pattern_id: UUID
    name: Name
    status: Literal["registered"] = "registered"


class PatternOperations:
    def __init__(self, patterns: PatternStore, desk: PlanningDesk) -> None:
        self._patterns = patterns
        self._desk = desk

    async def register(self, caller: Caller, request: PatternRegistration) -> PatternRegistered:
        if request.name in PATTERNS:
            message = f"name: {request.name} is a built-in pattern; give this one another name"
            raise PatternConflictError(message, errors=[message])
        await self._desk.check_pattern(request)
        pattern_id, _ = await self._patterns.register(
            caller.tenant, request, content_hash(request.model_dump(mode="json")), caller.principal.subject
        )
        return PatternRegistered(pattern_id=pattern_id, name=request.name)

    async def list(self, caller: Caller, request: ListPatterns) -> PatternList:
        page = await self.page(caller, request)
        return PatternList(patterns=page.items, next_page_token=page.next_page_token)

    async def page(self, caller: Caller, request: PagePatterns) -> Page[PatternView]:
        """The built-in ones first. Their tokens are numbers, those of the registered ones never are."""
        token, limit = request.page_token, request.limit
        built_in = tuple(_view(pattern) for pattern in PATTERNS.values()) if request.filter != "custom" else ()
        if token is not None and not token.isdigit():
            built_in, start = (), 0
        else:
            start, token = whole_number_token(token), None
        shown = built_in[start : start + limit]
        if request.filter == "built-in":
            more = start + limit < len(built_in)
            return Page[PatternView](items=shown, next_page_token=str(start + limit) if more else None)
        if len(shown) == limit:
            return Page[PatternView](items=shown, next_page_token=str(start + limit))
        page = await self._patterns.list(caller.tenant, limit=limit - len(shown), page_token=token)
        registered = tuple(_registered(summary) for summary in page.items)
        return Page[PatternView](items=(*shown, *registered), next_page_token=page.next_page_token)

    async def get(self, caller: Caller, request: PatternName) -> PatternDetail:
        pattern = PATTERNS.get(request.name)
        if pattern is not None and request.version in (None, pattern.version):
            return PatternDetail(**_view(pattern).model_dump(), config_schema=pattern.config_schema())
        found = await self._patterns.get(caller.tenant, request.name, request.version)
        return PatternDetail(
            **_registered(found).model_dump(),
            config_schema=found.configuration_schema,
            coordination_logic=found.coordination_logic,
        )


def _view(pattern: PatternDescription) -> PatternView:
    return PatternView(
        pattern_id=uuid5(PATTERN_NAMESPACE, f"{pattern.name}\n{pattern.version}"),
        name=pattern.name,
        version=pattern.version,
        type="built-in",
        description=pattern.description,
        supported=pattern.supported,
    )


def _registered(summary: PatternSummary) -> PatternView:
    return PatternView(
        pattern_id=summary.pattern_id,
        name=summary.name,
        version=summary.version,
        type="custom",
        description=summary.description,
        supported=True,
    )


def pattern_operations(patterns: PatternOperations) -> tuple[Operation, ...]:
    """Their part of the table of operations."""
    return (
        Operation(
            name="pattern.register",
            permission=Permission.PATTERN_REGISTER,
            parse=partial(parse_parameters, PatternRegistration),
            run=patterns.register,
            parameters=PatternRegistration,
            result=PatternRegistered,
            positional=tuple(PatternRegistration.model_fields),
            subject_type="pattern",
            subject_field="name",
            result_subject="pattern_id",
        ),
        _reading("pattern.list", ListPatterns, patterns.list, PatternList),
        _reading("pattern.page", PagePatterns, patterns.page, Page[PatternView]),
        _reading("pattern.get", PatternName, patterns.get, PatternDetail, "name"),
    )


def _reading(
    name: str, parameters: type[StrictModel], run: Any, result: Any, subject_field: str | None = None
) -> Operation:
    return Operation(
        name=name,
        permission=Permission.PATTERN_READ,
        parse=partial(parse_parameters, parameters),
        run=run,
        parameters=parameters,
        result=result,
        positional=("filter", "limit", "page_token") if subject_field is None else tuple(parameters.model_fields),
        subject_type="pattern",
        subject_field=subject_field,
    )
