"""What a host still has to report, coalesced. Pure bookkeeping: times come in as arguments, entries go out.

Three rules shape it. A fast task costs one event: its start is held back a moment and implied by `started_at_ms`
in its completion. Progress is worth a few events a second, and the last value wins. A result is kept, and sent
again, until the engine says that a committed step has consumed it: whatever fails between, it is not lost.
"""

from collections import OrderedDict
from dataclasses import dataclass
from math import inf

import orjson

from orchestration_agent.wire import Key, Route, encode_event, pack

STARTED_HELD_SECONDS = 0.02
PROGRESS_INTERVAL_SECONDS = 0.25
RESEND_INTERVAL_SECONDS = 10.0
RESULT_KEPT_SECONDS = 3600.0

UNHURRIED_SECONDS = 0.25
PROGRESS_UNHURRIED_SECONDS = 5.0
"""What the engine's streams are spared while they fill up."""

CHAIN_HELD_SECONDS = 0.005
"""A completion behind which the same chain goes on waits so long for company: nobody but the chain waits for it."""


@dataclass(slots=True)
class _Start:
    route: Route
    agent_id: str
    at_ms: int
    due: float
    timeout_seconds: float | None


@dataclass(slots=True)
class _Progress:
    route: Route
    agent_id: str
    at_ms: int
    fraction: float
    due: float


@dataclass(slots=True)
class _Result:
    route: Route
    event: bytes
    completed: bool
    resend_at: float
    drop_at: float


@dataclass(slots=True, frozen=True)
class OutgoingEntry:
    """One stream entry to be written."""

    reply_to: str
    execution_id: str
    body: bytes


class Outbox:
    """Events of all executions on their way out."""

    def __init__(
        self, *, resend_seconds: float = RESEND_INTERVAL_SECONDS, kept_seconds: float = RESULT_KEPT_SECONDS
    ) -> None:
        self._resend_seconds = resend_seconds
        self._kept_seconds = kept_seconds
        self._pending: dict[Route, list[bytes]] = {}
        self._pending_due = inf
        self._starts: dict[Key, _Start] = {}  # in order of `due`
        self._progress: dict[Key, _Progress] = {}
        self._progress_sent: dict[Key, float] = {}
        self._results: OrderedDict[Key, _Result] = OrderedDict()  # in order of `resend_at`
        self.kept_bytes = 0
        self.unhurried_until = 0.0
        """Until then reports wait for company, and progress is worth much less."""

    @property
    def kept(self) -> int:
        """Results that the engine has not reported consumed."""
        return len(self._results)

    def urgent(self, now: float) -> bool:
        return self._pending_due <= now

    def started(
        self, key: Key, route: Route, agent_id: str, at_ms: int, now: float, timeout_seconds: float | None = None
    ) -> None:
        """The timeout tells the engine how soon it must know of the start."""
        self._starts[key] = _Start(route, agent_id, at_ms, now + STARTED_HELD_SECONDS, timeout_seconds)

    def progressed(self, key: Key, route: Route, agent_id: str, at_ms: int, fraction: float, now: float) -> None:
        waiting = self._progress.get(key)
        if waiting is not None:
            waiting.fraction, waiting.at_ms = fraction, at_ms
            return
        interval = PROGRESS_UNHURRIED_SECONDS if now < self.unhurried_until else PROGRESS_INTERVAL_SECONDS
        due = max(now, self._progress_sent.get(key, -inf) + interval)
        self._progress[key] = _Progress(route, agent_id, at_ms, fraction, due)

    def finished(
        self, key: Key, route: Route, event: bytes, now: float, *, completed: bool = True, held_seconds: float = 0.0
    ) -> None:
        """A completion or a failure: sent at once or a moment later, kept until consumed."""
        self._forget_beginnings(key)
        held_seconds = max(held_seconds, UNHURRIED_SECONDS if now < self.unhurried_until else 0.0)
        self._add(route, event, now + held_seconds)
        self._results[key] = _Result(route, event, completed, now + self._resend_seconds, now + self._kept_seconds)
        self.kept_bytes += len(event)

    def kept_result(self, key: Key) -> bytes | None:
        """The result of a completion that the engine has not reported consumed, as JSON."""
        kept = self._results.get(key)
        return orjson.dumps(orjson.loads(kept.event)["result"]) if kept is not None and kept.completed else None

    def returned(self, key: Key, route: Route, agent_id: str, at_ms: int) -> None:
        self._add(route, encode_event("agent.task_returned", key, agent_id, at_ms))

    def consumed(self, key: Key) -> None:
        """The engine has it; or it does not matter any more."""
        result = self._results.pop(key, None)
        if result is not None:
            self.kept_bytes -= len(result.event)

    def dropped(self, key: Key) -> None:
        """The attempt was cancelled."""
        self._forget_beginnings(key)
        self.consumed(key)

    def execution_dropped(self, execution_id: str) -> None:
        for table in (self._starts, self._progress, self._progress_sent):
            for key in [key for key in table if key.execution_id == execution_id]:
                del table[key]
        for key in [key for key in self._results if key.execution_id == execution_id]:
            self.consumed(key)

    def clear(self) -> None:
        for table in (self._pending, self._starts, self._progress, self._progress_sent, self._results):
            table.clear()
        self._pending_due = inf
        self.kept_bytes = 0

    def send_again(self, key: Key, now: float) -> None:
        """The engine asked for it again: it may not have got it."""
        result = self._results.get(key)
        if result is not None:
            result.resend_at = now
            self._results.move_to_end(key, last=False)

    def send_all_again(self, now: float) -> None:
        for result in self._results.values():
            result.resend_at = now

    def next_due(self) -> float | None:
        """When `collect` will have something although nothing new comes."""
        due = self._pending_due
        if self._starts:
            due = min(due, next(iter(self._starts.values())).due)
        if self._results:
            due = min(due, next(iter(self._results.values())).resend_at)
        for progress in self._progress.values():
            due = min(due, progress.due)
        return None if due == inf else due

    def collect(self, now: float) -> list[OutgoingEntry]:
        """Everything that is due, as entries; what was collected is out of the box (results are kept)."""
        self._collect_starts(now)
        self._collect_progress(now)
        self._collect_results(now)
        entries = [
            OutgoingEntry(route.reply_to, route.execution_id, body)
            for route, events in self._pending.items()
            for body in pack(events)
        ]
        self._pending, self._pending_due = {}, inf
        return entries

    def _add(self, route: Route, event: bytes, due: float = -inf) -> None:
        events = self._pending.get(route)
        if events is None:
            self._pending[route] = [event]
        else:
            events.append(event)
        self._pending_due = min(self._pending_due, due)

    def _collect_starts(self, now: float) -> None:
        while self._starts:
            key, start = next(iter(self._starts.items()))
            if start.due > now:
                return
            self._send_start(key)

    def _send_start(self, key: Key) -> None:
        start = self._starts.pop(key, None)
        if start is not None:
            limit = start.timeout_seconds
            event = encode_event("agent.task_started", key, start.agent_id, start.at_ms, timeout_seconds=limit)
            self._add(start.route, event)

    def _collect_progress(self, now: float) -> None:
        for key, progress in list(self._progress.items()):
            if progress.due <= now:
                self._send_start(key)
                del self._progress[key]
                self._progress_sent[key] = now
                event = encode_event(
                    "agent.task_progress", key, progress.agent_id, progress.at_ms, progress=progress.fraction
                )
                self._add(progress.route, event)

    def _collect_results(self, now: float) -> None:
        for key, result in self._due_results(now):
            if result.drop_at <= now:
                self.consumed(key)
                continue
            result.resend_at = now + self._resend_seconds
            self._results.move_to_end(key)
            self._add(result.route, result.event)

    def _due_results(self, now: float) -> list[tuple[Key, _Result]]:
        due = []
        for key, result in self._results.items():
            if result.resend_at > now:
                break
            due.append((key, result))
        return due

    def _forget_beginnings(self, key: Key) -> None:
        self._starts.pop(key, None)
        self._progress.pop(key, None)
        self._progress_sent.pop(key, None)
