"""Having a step undone by an agent, and what operators ask for after an execution was closed."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol
from uuid import UUID
from zlib import crc32

from temporalio import activity

from activities.ticks import as_application_error
from engine.contracts import activity_names
from engine.contracts.capacity import AgentNeed
from engine.contracts.compensation import (
    NEVER_HAPPENED,
    CompensationCall,
    PendingRetry,
    RetryOutcome,
    RetryRequest,
    TaskToUndo,
)
from engine.contracts.definition import AgentRequirement
from engine.contracts.events import AgentEventType
from engine.contracts.kernel import BindRequest, ErrandOutcome, ErrandRequest, KernelRole
from engine.contracts.limits import TASK_TIMEOUT_DEFAULT_SECONDS
from engine.errors import EngineError
from engine.events import keys
from engine.events.bodies import GrownBodies
from engine.events.direct import DirectLine
from engine.events.wire import WireEvent
from engine.observability.log import get_logger
from engine.ports import AgentBinder, CompensationStore, DispatchStore, HostStore

log = get_logger(__name__)

HEARTBEAT_SECONDS: Final = 2.0
LISTEN_SECONDS: Final = 0.5
HOST_WAIT_SECONDS: Final = 30.0
BIND_SECONDS: Final = 2.0
HOST_CHECK_SECONDS: Final = 1.0
RESEND_SECONDS: Final = 15.0
UNCONFIRMED_SECONDS: Final = 60.0
"""A host that lives and says nothing of an assignment for so long will not do it."""
LIVE_HOSTS_MAX: Final = 1_000
TASK_ID_LENGTH_MAX: Final = 255
PREFIX: Final = "compensate:"


class Line(Protocol):
    """See `engine.events.direct`."""

    async def send(self, tenant: str, host_id: str, document: dict[str, Any]) -> None: ...

    async def listen(self, stream: str, after: str, wait_seconds: float) -> tuple[Sequence[WireEvent], str]: ...

    async def let_expire(self, stream: str) -> None: ...


@dataclass(frozen=True)
class _Order:
    """What an agent is asked to do, for as long as it takes."""

    request: ErrandRequest
    call: CompensationCall
    role: str
    kind: KernelRole
    action: str
    input: dict[str, Any]
    execution_input: dict[str, Any]
    task: TaskToUndo
    timeout_seconds: float

    @property
    def wire_id(self) -> str:
        """Names the attempts of this compensation among the host's: the step's own are others."""
        return wire_task_id(self.request.errand.task_id)

    @property
    def stream(self) -> str:
        return keys.replies_stream(self.request.tenant, self.request.execution_id, self.request.errand.task_id)

    @property
    def attempt(self) -> list[Any]:
        return [self.wire_id, self.request.epoch, self.call.attempt]

    def document(self, **more: Any) -> dict[str, Any]:
        request = self.request
        return {
            "v": 1,
            "execution_id": request.execution_id,
            "workflow_id": request.workflow_id,
            "trace_id": request.trace_id,
            "tick": 0,
            "reply_to": self.stream,
            **more,
        }

    def assignment(self) -> dict[str, Any]:
        """With `control`, since the execution may have been paused or cancelled at this host."""
        request, task_id = self.request, self.request.errand.task_id
        wire_id, epoch, attempt = self.attempt
        return self.document(
            control="run",
            input=self.execution_input,
            assign=[
                {
                    "task_id": wire_id,
                    "agent_id": self.call.agent_id or self.task.agent_id or f"{self.role}-1",
                    "role": self.role,
                    "epoch": epoch,
                    "attempt": attempt,
                    "action": self.action,
                    "input": self.input,
                    "timeout_seconds": self.timeout_seconds,
                    "compensates": {
                        "task_id": task_id,
                        "key": f"{request.execution_id}/{task_id}",
                        "result": self.task.result,
                        "certain": self.call.certain,
                    },
                }
            ],
        )


def wire_task_id(task_id: str) -> str:
    """Within what the protocol takes, also for the longest names."""
    full = PREFIX + task_id
    if len(full) <= TASK_ID_LENGTH_MAX:
        return full
    return f"{full[: TASK_ID_LENGTH_MAX - 9]}-{crc32(task_id.encode()):08x}"


class CompensationActivities:
    """Bound to the stores and streams of one worker process. All are safe to repeat."""

    def __init__(
        self,
        store: CompensationStore,
        dispatch: DispatchStore,
        bodies: GrownBodies,
        binder: AgentBinder,
        hosts: HostStore,
        line: DirectLine | Line,
    ) -> None:
        self._store = store
        self._dispatch = dispatch
        self._bodies = bodies
        self._binder = binder
        self._hosts = hosts
        self._line = line

    @activity.defn(name=activity_names.COMPENSATE)
    async def compensate(self, request: ErrandRequest) -> ErrandOutcome:
        """One try. Done again after the death of its worker, it goes on with the host that has the assignment; an agent
        may get it from two hosts, and tells by its key that it is the same."""
        pulse = _Pulse()
        beating = asyncio.create_task(pulse.beat())
        try:
            order = await self._order(request)
            if order is None:
                return _failure(request, "TASK_UNKNOWN", "nothing is stored of this task's compensation", final=True)
            outcome = await _Conversation(order, self._binder, self._hosts, self._line, pulse).hold()
            if not outcome.ok:
                _report_failure(order, outcome)
            return outcome
        except EngineError as error:
            raise as_application_error(error) from error
        finally:
            beating.cancel()

    @activity.defn(name=activity_names.NEXT_RETRY)
    async def next_retry(self, request: RetryRequest) -> PendingRetry | None:
        try:
            return await self._store.next_retry(request)
        except EngineError as error:
            raise as_application_error(error) from error

    @activity.defn(name=activity_names.SETTLE_RETRY)
    async def settle_retry(self, outcome: RetryOutcome) -> None:
        try:
            await self._store.settle_retry(outcome)
        except EngineError as error:
            raise as_application_error(error) from error

    async def _order(self, request: ErrandRequest) -> _Order | None:
        tenant, execution_id, task_id = request.tenant, request.execution_id, request.errand.task_id
        stored = await self._dispatch.body(tenant, UUID(execution_id))
        planned = {task["id"]: task for task in stored.definition["tasks"]}
        found = await self._bodies.of(tenant, execution_id, planned, [task_id])
        body = found.get(task_id)
        if body is None or not body.get("compensation_action"):
            return None
        role = body["agent"]
        need = stored.definition["agents"][role]
        return _Order(
            request=request,
            call=CompensationCall.model_validate(request.errand.input),
            role=role,
            kind=_kernel_role(need),
            action=body["compensation_action"],
            input=body.get("input") or {},
            execution_input=stored.input_data,
            task=await self._store.task(tenant, UUID(execution_id), task_id),
            timeout_seconds=body.get("timeout_seconds") or TASK_TIMEOUT_DEFAULT_SECONDS,
        )


def _kernel_role(requirement: dict[str, Any]) -> KernelRole:
    agent = AgentRequirement.model_validate(requirement)
    need = AgentNeed.of(agent)
    return KernelRole(
        type=agent.type,
        count=1,
        capabilities=tuple(agent.capabilities),
        cpu_micros=need.cpu_micros,
        memory_bytes=need.memory_bytes,
    )


class _Pulse:
    """Heartbeats, with what the next attempt of the activity must know."""

    def __init__(self) -> None:
        details = activity.info().heartbeat_details
        self.host_id: str = details[0] if details else ""

    async def beat(self) -> None:
        while True:
            activity.heartbeat(self.host_id)
            await asyncio.sleep(HEARTBEAT_SECONDS)


class _Conversation:
    """With one host after the other, until one has an answer."""

    def __init__(self, order: _Order, binder: AgentBinder, hosts: HostStore, line: DirectLine | Line, pulse: _Pulse):
        self._order = order
        self._binder = binder
        self._hosts = hosts
        self._line = line
        self._pulse = pulse
        self._after = "0-0"
        self._started: float | None = None
        self._sent = 0.0
        self._first_sent = 0.0
        self._checked = 0.0

    async def hold(self) -> ErrandOutcome:
        order = self._order
        outcome = await self._read(wait_seconds=0.001)  # what came of an earlier time
        while not isinstance(outcome, ErrandOutcome):
            host_id = await self._choose()
            if host_id is None:
                return _failure(order.request, "NO_HOST", f"no host serves the role {order.role}")
            await self._assign(host_id)
            outcome = await self._with(host_id)
        await self._line.let_expire(order.stream)
        if self._pulse.host_id:
            # A try that was given up must not go on there; of an end the report need not be kept.
            notice = "cancel" if outcome.code in _UNENDED else "consumed"
            await self._line.send(
                order.request.tenant, self._pulse.host_id, order.document(**{notice: [order.attempt]})
            )
        return outcome

    async def _choose(self) -> str | None:
        """The host that has the assignment already, or one that lives."""
        request = self._order.request
        if self._pulse.host_id and await self._lives(self._pulse.host_id):
            return self._pulse.host_id
        ends = time.monotonic() + HOST_WAIT_SECONDS
        while time.monotonic() < ends:
            bound = await self._binder.bind(
                BindRequest(
                    tenant=request.tenant,
                    execution_id=request.execution_id,
                    roles={self._order.role: self._order.kind},
                    wait_seconds=BIND_SECONDS,
                )
            )
            for binding in bound.bindings:
                if binding.host_id is not None and await self._lives(binding.host_id):
                    return binding.host_id
            await asyncio.sleep(0 if bound.missing else LISTEN_SECONDS)
        return None

    async def _lives(self, host_id: str) -> bool:
        self._checked = time.monotonic()
        live = await self._hosts.live(self._order.request.tenant, self._order.kind.type, LIVE_HOSTS_MAX)
        return any(host.host_id == host_id for host in live)

    async def _assign(self, host_id: str) -> None:
        self._pulse.host_id = host_id
        activity.heartbeat(host_id)
        self._started, self._first_sent = None, time.monotonic()
        await self._send(host_id)

    async def _send(self, host_id: str) -> None:
        self._sent = time.monotonic()
        await self._line.send(self._order.request.tenant, host_id, self._order.assignment())

    async def _with(self, host_id: str) -> ErrandOutcome | None:
        """None when another host must be asked."""
        order = self._order
        while True:
            outcome = await self._read(LISTEN_SECONDS)
            if outcome is not None:
                return outcome if isinstance(outcome, ErrandOutcome) else None
            now = time.monotonic()
            if self._started is not None and now > self._started + order.timeout_seconds:
                return _failure(
                    order.request, "TASK_TIMEOUT", f"not undone {order.timeout_seconds:g} s after its start"
                )
            if self._started is None and now > self._first_sent + UNCONFIRMED_SECONDS:
                return _failure(order.request, "NO_ANSWER", f"the host {host_id} said nothing of it")
            if self._started is None and now > self._sent + RESEND_SECONDS:
                await self._send(host_id)
            if now > self._checked + HOST_CHECK_SECONDS and not await self._lives(host_id):
                log.info("compensation.host_lost", host_id=host_id, task_id=order.request.errand.task_id)
                return None

    async def _read(self, wait_seconds: float) -> ErrandOutcome | str | None:
        """An outcome; or that the host gave it back; or nothing yet."""
        events, self._after = await self._line.listen(self._order.stream, self._after, wait_seconds)
        given_back = ""
        for event in events:
            if [event.task_id, event.epoch, event.attempt] != self._order.attempt:
                continue
            if event.type is AgentEventType.TASK_STARTED and self._started is None:
                self._started = time.monotonic()
            elif event.type is AgentEventType.TASK_RETURNED:
                given_back = "given back"
            elif event.type is AgentEventType.TASK_COMPLETED:
                return _outcome(self._order.request, "compensated")
            elif event.type is AgentEventType.TASK_FAILED:
                return self._failed(event)
        return given_back or None

    def _failed(self, event: WireEvent) -> ErrandOutcome:
        error = event.error
        if error is None:
            return _failure(self._order.request, "AGENT_ERROR", "the agent gave no reason")
        if error.code == NEVER_HAPPENED:
            return _outcome(self._order.request, "never_happened")
        return _failure(self._order.request, error.code, error.message, final=not error.retryable)


_UNENDED: Final = ("TASK_TIMEOUT", "NO_ANSWER")


def _report_failure(order: _Order, outcome: ErrandOutcome) -> None:
    """One try. Whether another follows is the workflow's business, and in the execution's events."""
    log.error(
        "saga.compensation_failed",
        tenant=order.request.tenant,
        workflow_id=order.request.workflow_id,
        execution_id=order.request.execution_id,
        compensation_task=order.request.errand.task_id,
        compensation_action=order.action,
        attempt=order.call.attempt,
        code=outcome.code,
        error=outcome.message,
        trace_id=order.request.trace_id,
    )


def _outcome(request: ErrandRequest, value: str) -> ErrandOutcome:
    return ErrandOutcome(key=request.errand.key, value=value)


def _failure(request: ErrandRequest, code: str, message: str, *, final: bool = False) -> ErrandOutcome:
    """`final`: trying again is of no use."""
    value = "final" if final else None
    return ErrandOutcome(key=request.errand.key, ok=False, value=value, code=code, message=message[:2000])
