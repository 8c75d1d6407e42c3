"""Use cases around hooks: register, look at, change, switch, run once for a test."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final, Protocol, TypeVar, get_type_hints
from uuid import UUID, uuid4

import orjson
from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from engine.contracts.definition import Text
from engine.contracts.hook_actions import HookAction
from engine.contracts.hooks import (
    EVENT_PATTERN_LENGTH_MAX,
    HOOK_TIMEOUT_MAX_SECONDS,
    PRIORITY_MAX,
    HookDetail,
    HookExecution,
    HookExecutionStatus,
    HookMode,
    HookName,
    HookRetryPolicy,
    HookSettings,
    HookSummary,
    HookTrigger,
    NewHook,
)
from engine.contracts.model import Model, StrictModel
from engine.contracts.views import Page
from engine.errors import (
    HookExecutionFailedError,
    InvalidHookActionError,
    InvalidHookTriggerError,
    InvalidParametersError,
    TooLargeError,
)
from engine.hook_ports import HookQueue, HookStore
from engine.security.permissions import Permission
from gateway.operations.operation import Caller, Id, NoParameters, Operation, PageParameters, located, parse_parameters
from hooks.directory import HookDirectory
from hooks.matching import check_pattern

CONTEXT_BYTES_MAX: Final = 64 * 1024
ANSWER_SECONDS: Final = 5.0
"""Beside the hook's own time."""

Checked = TypeVar("Checked", bound=BaseModel)


def _flag(value: object) -> object:
    """As it stands in a query."""
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


Flag = Annotated[bool, BeforeValidator(_flag)]


class ListHooks(PageParameters):
    trigger: HookTrigger | None = Field(None, strict=False)
    enabled: Flag | None = None


class HookReference(StrictModel):
    hook_id: Id


class UpdateHook(StrictModel):
    """What is absent stays as it is; null takes pattern and retry policy away."""

    hook_id: Id
    name: HookName | None = None
    description: Text | None = None
    trigger: HookTrigger | None = Field(None, strict=False)
    event_pattern: Annotated[str, Field(min_length=1, max_length=EVENT_PATTERN_LENGTH_MAX)] | None = None
    action: HookAction | None = None
    mode: HookMode | None = Field(None, strict=False)
    on_error: str | None = Field(None, description="veto or proceed")
    priority: int | None = Field(None, ge=-PRIORITY_MAX, le=PRIORITY_MAX)
    enabled: bool | None = None
    timeout_seconds: int | None = Field(None, ge=1, le=HOOK_TIMEOUT_MAX_SECONDS)
    retry_policy: HookRetryPolicy | None = None


class ExecuteHook(StrictModel):
    hook_id: Id
    context: dict[str, Any]


class ListHookExecutions(PageParameters):
    hook_id: Id | None = None
    execution_id: Id | None = Field(None, description="of the workflow's execution that set the hooks off")
    status: HookExecutionStatus | None = Field(None, strict=False)


class SetHookSwitch(StrictModel):
    enabled: bool


class HookRegistered(Model):
    hook_id: UUID
    name: str
    trigger: HookTrigger
    status: str = "registered"
    created_at: datetime


class HookList(Model):
    hooks: tuple[HookSummary, ...]
    next_page_token: str | None = None


class HookDeleted(Model):
    hook_id: UUID
    status: str = "deleted"


class HookExecuted(Model):
    execution_id: UUID
    hook_id: UUID
    status: HookExecutionStatus
    output: str
    error_message: str | None = None
    duration_ms: int


class HookSwitchState(Model):
    enabled: bool = Field(description="whether the tenant's hooks run")
    engine_enabled: bool = Field(description="whether the operator lets any hooks run")


class ActionCheck(Protocol):
    def check(self, action: HookAction) -> None:
        """Raises InvalidHookActionError."""
        ...


class HookRequests(HookQueue, Protocol):
    async def ask(self, tenant: str, request: dict[str, Any], timeout_seconds: float) -> dict[str, Any] | None:
        """None when no hook worker has answered in time."""
        ...


def parse_hook(given: dict[str, Any]) -> NewHook:
    """Raises InvalidHookTriggerError, InvalidHookActionError, InvalidParametersError."""
    hook = _checked(NewHook, given)
    if hook.event_pattern is not None:
        check_pattern(hook.event_pattern)
    return hook


def _checked(model: type[Checked], given: dict[str, Any]) -> Checked:
    trigger = given.get("trigger")
    if trigger is not None and trigger not in set(HookTrigger):
        raise InvalidHookTriggerError("there is no such trigger", supported=[item.value for item in HookTrigger])
    try:
        return model.model_validate(given)
    except ValidationError as error:
        errors = located(error)
        if any(item["location"].split(".")[0].split("[")[0] == "action" for item in errors):
            raise InvalidHookActionError("the action is not valid", errors=errors) from error
        raise InvalidParametersError("the parameters are not valid", errors=errors) from error


def parse_update(given: dict[str, Any]) -> tuple[UUID, dict[str, Any]]:
    """The id, and what is to be changed. Each value is checked here, before the log of operations is told of any, and
    once more together with what stays."""
    reference = parse_parameters(HookReference, {"hook_id": given.get("hook_id")})
    changes = {name: value for name, value in given.items() if name != "hook_id"}
    unknown = sorted(changes.keys() - NewHook.model_fields.keys())
    if unknown or not changes:
        message = f"unknown: {', '.join(unknown)[:200]}" if unknown else "nothing is to be changed"
        raise InvalidParametersError(message, errors=[{"code": "INVALID", "location": "", "message": message}])
    _checked(UpdateHook, given)
    return reference.hook_id, changes


class HookOperations:
    def __init__(
        self, store: HookStore, directory: HookDirectory, queue: HookRequests, actions: ActionCheck, *, enabled: bool
    ) -> None:
        self._store = store
        self._directory = directory
        self._queue = queue
        self._actions = actions
        self._enabled = enabled

    async def register(self, caller: Caller, hook: NewHook) -> HookRegistered:
        self._actions.check(hook.action)
        made = await self._store.register(caller.tenant, hook, caller.principal.subject)
        await self._changed(caller.tenant)
        return HookRegistered(hook_id=made.hook_id, name=made.name, trigger=made.trigger, created_at=made.created_at)

    async def list(self, caller: Caller, request: ListHooks) -> HookList:
        page = await self.page(caller, request)
        return HookList(hooks=page.items, next_page_token=page.next_page_token)

    async def page(self, caller: Caller, request: ListHooks) -> Page[HookSummary]:
        return await self._store.list(
            caller.tenant,
            limit=request.limit,
            page_token=request.page_token,
            trigger=request.trigger,
            enabled=request.enabled,
        )

    async def get(self, caller: Caller, request: HookReference) -> HookDetail:
        return await self._store.get(caller.tenant, request.hook_id)

    async def update(self, caller: Caller, request: tuple[UUID, dict[str, Any]]) -> HookDetail:
        hook_id, changes = request
        before = await self._store.get(caller.tenant, hook_id)
        stays = before.model_dump(mode="json", include=set(NewHook.model_fields))
        if "trigger" in changes and "mode" not in changes:
            # What it guards may have changed with it: the mode follows, unless it is said.
            stays.pop("mode")
        hook = parse_hook(stays | changes)
        self._actions.check(hook.action)
        changed = await self._store.update(caller.tenant, hook_id, hook, before.updated_at)
        await self._changed(caller.tenant)
        return changed

    async def enable(self, caller: Caller, request: HookReference) -> HookDetail:
        return await self._enable(caller, request, enabled=True)

    async def disable(self, caller: Caller, request: HookReference) -> HookDetail:
        return await self._enable(caller, request, enabled=False)

    async def _enable(self, caller: Caller, request: HookReference, *, enabled: bool) -> HookDetail:
        hook = await self._store.enable(caller.tenant, request.hook_id, enabled=enabled)
        await self._changed(caller.tenant)
        return hook

    async def delete(self, caller: Caller, request: HookReference) -> HookDeleted:
        await self._store.delete(caller.tenant, request.hook_id)
        await self._changed(caller.tenant)
        return HookDeleted(hook_id=request.hook_id)

    async def execute(self, caller: Caller, request: ExecuteHook) -> HookExecuted:
        """Once, by a hook worker, whether the hook is enabled or not; a run that fails is an answer."""
        if len(orjson.dumps(request.context)) > CONTEXT_BYTES_MAX:
            raise TooLargeError(f"a context may have {CONTEXT_BYTES_MAX} bytes as JSON", bytes_max=CONTEXT_BYTES_MAX)
        hook = await self._store.get(caller.tenant, request.hook_id)
        if not self._enabled or not (await self._store.switch(caller.tenant)).enabled:
            raise HookExecutionFailedError("hooks are switched off", reason="SWITCHED_OFF")
        document = {"request_id": str(uuid4()), "hook_id": str(hook.hook_id), "context": request.context}
        answer = await self._queue.ask(caller.tenant, document, hook.timeout_seconds + ANSWER_SECONDS)
        if answer is None:
            raise HookExecutionFailedError("no hook worker has answered in time", reason="NO_ANSWER")
        if "error" in answer:
            raise HookExecutionFailedError(str(answer["error"]["message"]), reason=str(answer["error"]["code"]))
        return HookExecuted(hook_id=hook.hook_id, **answer)

    async def executions(self, caller: Caller, request: ListHookExecutions) -> Page[HookExecution]:
        return await self._store.executions(
            caller.tenant,
            limit=request.limit,
            page_token=request.page_token,
            hook_id=request.hook_id,
            workflow_execution_id=request.execution_id,
            status=request.status,
        )

    async def switch(self, caller: Caller, _request: NoParameters) -> HookSwitchState:
        state = await self._store.switch(caller.tenant)
        return HookSwitchState(enabled=state.enabled, engine_enabled=self._enabled)

    async def set_switch(self, caller: Caller, request: SetHookSwitch) -> HookSwitchState:
        await self._store.set_switch(caller.tenant, enabled=request.enabled)
        await self._changed(caller.tenant)
        return HookSwitchState(enabled=request.enabled, engine_enabled=self._enabled)

    async def _changed(self, tenant: str) -> None:
        """Whoever keeps the tenant's hooks in memory asks anew: this process at once, the others when they hear it."""
        self._directory.forget(tenant)
        await self._queue.changed(tenant)


HOOK_METHODS: Final = (
    "hooks.register",
    "hooks.list",
    "hooks.get",
    "hooks.update",
    "hooks.enable",
    "hooks.disable",
    "hooks.delete",
    "hooks.execute",
    "hooks.executions",
    "hooks.switch",
    "hooks.set_switch",
)


def hook_operations(hooks: HookOperations) -> tuple[Operation, ...]:
    read, manage = Permission.HOOKS_READ, Permission.HOOKS_MANAGE
    of_hook = partial(_operation, subject_field="hook_id")
    register = Operation(
        name="hooks.register",
        permission=manage,
        parse=parse_hook,
        run=hooks.register,
        parameters=NewHook,
        result=HookRegistered,
        positional=("name", *HookSettings.model_fields),
        subject_type="hook",
        result_subject="hook_id",
        details=lambda hook: _described(hook.model_dump(mode="json")),
    )
    update = Operation(
        name="hooks.update",
        permission=manage,
        parse=parse_update,
        run=hooks.update,
        parameters=UpdateHook,
        result=HookDetail,
        positional=tuple(UpdateHook.model_fields),
        subject_type="hook",
        subject_field="hook_id",
        details=lambda request: _described(request[1]),
    )
    return (
        register,
        _operation("hooks.list", read, ListHooks, hooks.list),
        _operation("hooks.page", read, ListHooks, hooks.page),
        of_hook("hooks.get", read, HookReference, hooks.get),
        update,
        of_hook("hooks.enable", manage, HookReference, hooks.enable),
        of_hook("hooks.disable", manage, HookReference, hooks.disable),
        of_hook("hooks.delete", manage, HookReference, hooks.delete),
        of_hook("hooks.execute", Permission.HOOKS_EXECUTE, ExecuteHook, hooks.execute),
        of_hook("hooks.executions", read, ListHookExecutions, hooks.executions),
        _operation("hooks.switch", read, NoParameters, hooks.switch),
        _operation("hooks.set_switch", manage, SetHookSwitch, hooks.set_switch),
    )


def _described(fields: dict[str, Any]) -> dict[str, Any]:
    """For the log of operations; secrets are ids there as everywhere."""
    names = ("name", "trigger", "event_pattern", "action", "mode", "priority", "enabled")
    return {name: fields[name] for name in names if name in fields}


def _operation(
    name: str,
    permission: Permission,
    parameters: type[StrictModel],
    run: Callable[[Caller, Any], Awaitable[Model]],
    subject_field: str | None = None,
) -> Operation:
    return Operation(
        name=name,
        permission=permission,
        parse=partial(parse_parameters, parameters),
        run=run,
        parameters=parameters,
        result=get_type_hints(run)["return"],
        positional=tuple(parameters.model_fields),
        subject_type="hook",
        subject_field=subject_field,
    )
