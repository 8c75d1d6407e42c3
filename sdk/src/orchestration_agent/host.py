"""A host process: takes tasks for many logical agents of one tenant, runs them, reports.

Loops share one event loop: `_read` takes entries in, `_send` writes reports, `_heartbeat` says that the host lives,
and `lanes` run attempts. What may happen to an attempt is decided in `board`, what is still to be said in `outbox`;
this module connects them with time, functions and Redis.
"""

import asyncio
import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import orjson
from redis.exceptions import RedisError

from orchestration_agent.board import Attempt, Board, Changes
from orchestration_agent.connection import Connection, Fields
from orchestration_agent.lanes import Lanes
from orchestration_agent.outbox import CHAIN_HELD_SECONDS, Outbox
from orchestration_agent.runner import Function, Outcome, Runner, failure
from orchestration_agent.task import Compensates, Task
from orchestration_agent.wire import Entry, MalformedEntry, Pressure, decode_entry, encode_event

logger = logging.getLogger("orchestration_agent")

CANCEL_GRACE_SECONDS = 5.0
"""A cancelled function keeps its slot until it has ended, but no longer than this."""

KEPT_BYTES_MAX = 256 * 1024 * 1024
"""While results of this size wait to be consumed, no new task starts."""

FEATURES = ("chains", "pressure")
"""What this host understands beyond the basic protocol."""

FLUSH_SECONDS = 5.0

PRESSURE_SECONDS_MAX = 60.0
"""Whatever the engine asks for, it counts no longer than this: clocks differ."""
CANCEL_AGAIN_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class HostOptions:
    """How a host presents itself and how much it does at once."""

    redis_url: str
    tenant: str
    types: tuple[str, ...]
    capabilities: tuple[str, ...] | Literal["*"] = ()
    slots: int = 1
    """Tasks that each logical agent does at once."""
    host_id: str = ""
    """Must be new for each start of a process; generated when empty."""
    heartbeat_seconds: float = 2.0
    dedicated_to: tuple[str, str] | None = None
    """The execution and the agent that it serves alone; both empty while it waits in a pool."""
    grace_seconds: float = 10.0
    """How long running tasks may go on after a request to stop."""
    threads_max: int = 256
    """For plain functions; coroutines need none."""
    resend_seconds: float = 10.0


class HostGivenUp(Exception):
    """The engine holds this host to be gone, and its id was given from outside: whoever gave it gives a new one."""


class AgentHost:
    """Runs `function` for every task that the engine gives to this host."""

    def __init__(self, function: Function, options: HostOptions) -> None:
        if not options.types or options.slots < 1 or not options.tenant:
            raise ValueError("a host needs a tenant, at least one type and at least one slot")
        self.options = options
        self.host_id = options.host_id or _new_id(options)
        self._runner = Runner(function, options.threads_max)
        self._outbox = Outbox(resend_seconds=options.resend_seconds)
        self._board = Board(options.slots, kept_result=self._outbox.kept_result)
        self._connection = Connection(options.redis_url, options.tenant, self.host_id)
        self._lanes = Lanes(self._following, self._run, self._waits, self._run_ended)
        self._threads: dict[Attempt, asyncio.Future[Any]] = {}
        self._sending = asyncio.Lock()
        self._wake = asyncio.Event()
        self._timer: asyncio.Handle | None = None
        self._timer_due = 0.0
        """Kept here: uvloop's handle of a timer that is due at once does not say when."""
        self._announce_now = asyncio.Event()
        self._stopping = asyncio.Event()
        self._held_until = 0.0
        """No new task starts before: the engine has asked for that."""
        self._registered = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread_id = 0
        self._now: Callable[[], float] = time.monotonic

    def stop(self) -> None:
        """Give back what has not started, let running tasks end within the grace period, then leave."""
        self._stopping.set()

    async def run(self) -> None:
        """Returns after `stop`. Outages of Redis are sat out."""
        self._loop, self._thread_id = asyncio.get_running_loop(), threading.get_ident()
        self._now = self._loop.time
        loops = [
            asyncio.create_task(work(), name=name)
            for name, work in (("read", self._read), ("send", self._send), ("heartbeat", self._heartbeat))
        ]
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            done, _ = await asyncio.wait([*loops, stopping], return_when=asyncio.FIRST_COMPLETED)
            for ended in done - {stopping}:
                ended.result()  # a loop ends only by a defect: say which
            await self._wind_down(heartbeat=loops[-1])
        finally:
            await _end([*loops, stopping, *self._lanes.running.values()])
            if self._timer is not None:
                self._timer.cancel()
            self._runner.close()
            await self._connection.close()

    # Taking tasks

    async def _read(self) -> None:
        while True:
            raw = await self._connection.read(self._came_back)
            if raw:
                self._take(_decode(raw))

    def _take(self, entries: Sequence[Entry]) -> None:
        now = self._now()
        if any(entry.renew for entry in entries):
            self._renew()
            return
        for entry in entries:
            if entry.pressure is not None:
                self._slow_down(entry.pressure, now)
            if entry.assign:
                self._connection.compresses = "zlib" in entry.accepts
        changes = self._board.take([entry for entry in entries if entry.pressure is None], now)
        self._obey(changes, now)
        self._lanes.fill()
        self._flush_soon()

    def _obey(self, changes: Changes, now: float) -> None:
        for key in changes.consumed:
            self._outbox.consumed(key)
        for attempt in changes.stopped:
            self._stop_attempt(attempt)
        for key in changes.dropped_results:
            self._outbox.dropped(key)
        for execution_id in changes.cancelled_executions:
            self._outbox.execution_dropped(execution_id)
        self._return(changes.returned)
        for attempt in changes.again_running:
            assignment = attempt.assignment
            limit = assignment.get("timeout_seconds")
            self._outbox.started(attempt.key, attempt.route, assignment["agent_id"], _now_ms(), now, limit)
        for key in changes.again_done:
            self._outbox.send_again(key, now)

    def _return(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            self._outbox.returned(attempt.key, attempt.route, attempt.assignment["agent_id"], _now_ms())

    def _stop_attempt(self, attempt: Attempt) -> None:
        self._outbox.dropped(attempt.key)
        self._lanes.cancel(attempt)
        asyncio.get_running_loop().call_later(CANCEL_GRACE_SECONDS, self._free, attempt)

    def _renew(self) -> None:
        """Its agents are bound elsewhere and its attempts do not count any more. The others of the read neither."""
        if self.options.host_id:
            raise HostGivenUp(f"{self.host_id} was silent for too long and was given up")
        for attempt in self._board.abandon():
            self._stop_attempt(attempt)
        self._outbox.clear()
        given_up, self.host_id = self.host_id, _new_id(self.options)
        logger.warning("%s was silent for too long and was given up; coming back as %s", given_up, self.host_id)
        self._connection.rename(self.host_id)
        self._registered = False
        self._announce_now.set()

    def _slow_down(self, pressure: Pressure, now: float) -> None:
        """The engine asks for less: progress seldom, reports in fewer entries, and at `stop` no new task."""
        left_seconds = min(max(pressure.until_ms - _now_ms(), 0) / 1000, PRESSURE_SECONDS_MAX)
        calm = pressure.level not in ("slow", "stop")
        self._outbox.unhurried_until = 0.0 if calm else now + left_seconds
        self._held_until = now + left_seconds if pressure.level == "stop" else 0.0
        if not calm:
            logger.warning("the engine asks for less (%s) for %.0f s", pressure.level, left_seconds)
            asyncio.get_running_loop().call_later(left_seconds, self._lanes.fill)

    def _came_back(self) -> None:
        """Redis was away: it may have lost what was written."""
        self._registered = False
        self._announce_now.set()
        self._outbox.send_all_again(self._now())
        self._flush_soon()

    # Running tasks

    def _following(self) -> Attempt | None:
        """The attempt to start next, if one may start."""
        if self._outbox.kept_bytes > KEPT_BYTES_MAX or self._board.closing or self._now() < self._held_until:
            return None
        return self._board.next()

    async def _run(self, attempt: Attempt, waits: Callable[[Attempt], None] | None) -> None:
        attempt.started_at_ms = _now_ms()
        if waits is not None:
            waits(attempt)
        task = self._task_of(attempt)
        try:
            outcome = await self._runner.run(task, lambda future: self._threads.__setitem__(attempt, future))
        except asyncio.CancelledError:
            task.cancel()
            if not attempt.wanted:
                raise
            outcome = failure("AGENT_ERROR", "the function cancelled itself", retryable=True)
        if attempt.wanted:
            self._report(attempt, outcome)

    def _waits(self, attempt: Attempt) -> None:
        """It takes time: its start is worth a report."""
        if attempt.wanted and not attempt.announced:
            attempt.announced = True
            agent_id = attempt.assignment["agent_id"]
            limit = attempt.assignment.get("timeout_seconds")
            self._outbox.started(attempt.key, attempt.route, agent_id, attempt.started_at_ms, self._now(), limit)
            self._flush_soon()

    def _report(self, attempt: Attempt, outcome: Outcome) -> None:
        completed = outcome.error is None
        event = encode_event(
            "agent.task_completed" if completed else "agent.task_failed",
            attempt.key,
            attempt.assignment["agent_id"],
            _now_ms(),
            started_at_ms=attempt.started_at_ms,
            result=outcome.result,
            spawn=outcome.spawn,
            error=outcome.error,
        )
        held_seconds = CHAIN_HELD_SECONDS if completed and attempt.followers else 0.0
        self._outbox.finished(
            attempt.key, attempt.route, event, self._now(), completed=completed, held_seconds=held_seconds
        )
        # Added tasks may have to run before what waits behind this one: that goes back to the engine.
        self._return(self._board.ended(attempt, None if outcome.spawn else outcome.result))
        attempt.wanted = False  # nothing of it is reported any more
        self._flush_soon()

    def _run_ended(self, attempt: Attempt, error: BaseException | None) -> None:
        if error is not None:
            logger.error("%s: a defect of the host", attempt.key, exc_info=error)
            if attempt.wanted:
                self._report(attempt, failure("AGENT_DEFECT", "the agent's host failed", retryable=True))
        thread = self._threads.pop(attempt, None)
        if thread is None or thread.done():
            self._free(attempt)
        else:
            thread.add_done_callback(lambda future: self._thread_ended(attempt, future))

    def _thread_ended(self, attempt: Attempt, future: asyncio.Future[Any]) -> None:
        if not future.cancelled() and future.exception() is not None:
            logger.info("%s ended after its cancellation: %s", attempt.key, future.exception())
        self._free(attempt)

    def _free(self, attempt: Attempt) -> None:
        self._board.release(attempt)
        self._lanes.fill()

    def _task_of(self, attempt: Attempt) -> Task:
        assignment, entry, key = attempt.assignment, attempt.entry, attempt.key
        results = assignment.get("results")
        if attempt.inherited:
            results = {**(results or {}), **{name: orjson.loads(raw) for name, raw in attempt.inherited.items()}}
            attempt.inherited = {}
        return Task(
            task_id=key.task_id,
            agent_id=assignment["agent_id"],
            role=assignment.get("role") or "",
            action=assignment.get("action") or key.task_id,
            input=assignment.get("input"),
            execution_input=entry.input,
            results=results,
            attempt=key.attempt,
            epoch=key.epoch,
            execution_id=key.execution_id,
            workflow_id=entry.workflow_id,
            trace_id=entry.trace_id,
            timeout_seconds=assignment.get("timeout_seconds"),
            context=assignment.get("context"),
            compensates=_compensates(assignment.get("compensates")),
            report=lambda fraction: self._heard(attempt, fraction),
        )

    def _heard(self, attempt: Attempt, fraction: float) -> None:
        if threading.get_ident() == self._thread_id:
            self._progressed(attempt, fraction)
        elif self._loop is not None:  # the outbox is the loop's
            self._loop.call_soon_threadsafe(self._progressed, attempt, fraction)

    def _progressed(self, attempt: Attempt, fraction: float) -> None:
        if attempt.wanted:
            self._waits(attempt)
            agent_id = attempt.assignment["agent_id"]
            self._outbox.progressed(attempt.key, attempt.route, agent_id, _now_ms(), fraction, self._now())
            self._flush_soon()

    # Reporting

    def _flush_soon(self) -> None:
        """Wake the sender now, or when something will be due."""
        if self._wake.is_set():
            return
        if self._outbox.urgent(self._now()):
            self._wake.set()
            return
        due = self._outbox.next_due()
        if due is None or (self._timer is not None and self._timer_due <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_due = due
        self._timer = asyncio.get_running_loop().call_at(due, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._wake.set()

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            # One turn of the loop, so that tasks that are about to end ride along.
            await asyncio.sleep(0)
            self._wake.clear()
            async with self._sending:
                entries = self._outbox.collect(self._now())
                if entries:
                    await self._connection.write(entries)
            self._flush_soon()
            self._lanes.fill()

    # Being known

    async def _heartbeat(self) -> None:
        while True:
            self._announce_now.clear()
            try:
                await self._announce("agent.heartbeat" if self._registered else "agent.registered")
                delay = self.options.heartbeat_seconds
            except (RedisError, OSError, TimeoutError) as error:
                logger.warning("cannot reach Redis: %s: %s", type(error).__name__, error)
                delay = min(1.0, self.options.heartbeat_seconds)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._announce_now.wait()

    async def _announce(self, event_type: str) -> None:
        payload: dict[str, Any] = {
            "host_id": self.host_id,
            "types": self.options.types,
            "capabilities": self.options.capabilities,
            "slots": self.options.slots,
            "features": FEATURES,
            "pid": os.getpid(),
        }
        if self.options.dedicated_to is not None:
            execution_id, agent_id = self.options.dedicated_to
            payload["dedicated_to"] = {"execution_id": execution_id, "agent_id": agent_id}
        if self._board.closing:
            payload["draining"] = True
        if event_type == "agent.registered":
            await self._connection.make_known()
        timestamp = datetime.now(UTC).isoformat(timespec="milliseconds")
        registered, self._registered = self._registered, True  # before the wait, in which it may be lost again
        try:
            await self._connection.announce(event_type, timestamp, orjson.dumps(payload))
        except BaseException:
            self._registered = registered
            raise
        if event_type == "agent.registered":
            logger.info("registered as %s for %s", self.host_id, ", ".join(self.options.types))

    # Leaving

    async def _wind_down(self, heartbeat: asyncio.Task[None]) -> None:
        self._board.closing = True
        self._announce_now.set()
        self._return(self._board.give_back_all())
        self._wake.set()
        running = self._lanes.running
        if running:
            logger.info("stopping: %d tasks may go on for %g s", len(running), self.options.grace_seconds)
            await asyncio.wait(list(running.values()), timeout=self.options.grace_seconds)
        for attempt in list(running):
            attempt.wanted = False
            self._lanes.cancel(attempt)
        await _end([heartbeat])  # none may follow the departure
        try:
            async with asyncio.timeout(FLUSH_SECONDS), self._sending:
                await self._connection.write(self._outbox.collect(self._now()))
                await self._announce("agent.disconnected")
                await self._connection.forget_stream()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("left without a word, Redis does not answer: %s: %s", type(error).__name__, error)


def _decode(raw: Sequence[tuple[bytes, Fields]]) -> list[Entry]:
    entries = []
    for entry_id, fields in raw:
        try:
            entries.append(decode_entry(fields))
        except MalformedEntry as error:
            logger.error("entry %s is passed over: %s", entry_id.decode(), error)
    return entries


async def _end(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel until all have ended: a loop that sits out outages may take a cancellation for one, since the client may
    raise its own error while it closes a connection. Functions that resist are left behind after a while."""
    pending = {task for task in tasks if not task.done()}
    ends = asyncio.get_running_loop().time() + CANCEL_GRACE_SECONDS
    while pending and asyncio.get_running_loop().time() < ends:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=CANCEL_AGAIN_SECONDS)
    for task in tasks:
        if task.done() and not task.cancelled() and task.exception() is not None:
            logger.debug("%s ended with %r", task.get_name(), task.exception())


def _compensates(document: dict[str, Any] | None) -> Compensates | None:
    if not document:
        return None
    return Compensates(
        task_id=document["task_id"],
        key=document["key"],
        result=document.get("result"),
        certain=document.get("certain", True),
    )


def _new_id(options: HostOptions) -> str:
    return f"{options.types[0]}-{uuid.uuid4().hex[:12]}"


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
