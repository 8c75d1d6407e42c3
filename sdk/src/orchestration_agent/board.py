"""Which attempts a host has had, has queued and is running. Pure bookkeeping: no clock, no input or output.

An attempt is remembered after its end, so that the same one arriving again (the engine sends what was not
confirmed once more) is not done twice. That memory is bounded and forgets idle executions first.

An attempt with `after` waits behind those tasks, not in the agent's queue. When the last of them has completed it goes
on before what else waits for its agent, with their results. When one of them does not complete, it is given back.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from orchestration_agent.wire import Control, Entry, Key, Route

DONE = None
"""Stands in the ledger for an attempt that has ended here."""


class Attempt:
    """One attempt on its way through this host."""

    __slots__ = (
        "agent",
        "announced",
        "assignment",
        "entry",
        "execution",
        "followers",
        "inherited",
        "key",
        "missing",
        "released",
        "running",
        "started_at_ms",
        "wanted",
    )

    def __init__(
        self, key: Key, execution: "Execution", agent: "Agent", entry: Entry, assignment: dict[str, Any]
    ) -> None:
        self.key = key
        self.execution = execution
        self.agent = agent
        self.entry = entry
        self.assignment = assignment
        self.wanted = True
        """False once it was cancelled or given back: nothing of it is reported any more."""
        self.running = False
        self.released = False
        self.started_at_ms = 0
        self.announced = False
        """Its start was handed to the outbox."""
        self.followers: list[Attempt] | None = None
        """What waits for its completion, and perhaps for others."""
        self.missing = 0
        """Predecessors that have not completed."""
        self.inherited: dict[str, bytes] = {}
        """Its predecessors' results, as JSON."""

    @property
    def route(self) -> Route:
        return Route(self.entry.reply_to, self.key.execution_id)


class Agent:
    """A logical agent of one execution: a queue and a number of slots."""

    __slots__ = ("listed", "queue", "running")

    def __init__(self) -> None:
        self.queue: deque[Attempt] = deque()
        self.running = 0
        self.listed = False
        """It is among those that may start something."""


class Execution:
    __slots__ = ("agents", "attempts", "control", "latest", "open", "touched", "waiting")

    def __init__(self) -> None:
        self.control: Control = "run"
        self.attempts: dict[tuple[str, int, int], Attempt | None] = {}
        self.latest: dict[tuple[str, int], int] = {}
        """The attempt of a task and epoch that came last: `after` names none."""
        self.agents: dict[str, Agent] = {}
        self.open = 0
        """Attempts that wait or run."""
        self.waiting = 0
        self.touched = 0.0


@dataclass(slots=True)
class Changes:
    """What the host has to do after some entries were taken in."""

    returned: list[Attempt] = field(default_factory=list)
    stopped: list[Attempt] = field(default_factory=list)
    orphaned: list[Attempt] = field(default_factory=list)
    """Their predecessors were cancelled; to be given back, unless they are cancelled as well."""
    consumed: list[Key] = field(default_factory=list)
    dropped_results: list[Key] = field(default_factory=list)
    cancelled_executions: list[str] = field(default_factory=list)
    again_running: list[Attempt] = field(default_factory=list)
    again_done: list[Key] = field(default_factory=list)


class Board:
    """All executions that this host has work of."""

    def __init__(
        self,
        slots: int,
        *,
        kept_result: Callable[[Key], bytes | None] = lambda _: None,
        remembered_max: int = 200_000,
        expiry_seconds: float = 3600.0,
    ) -> None:
        """`kept_result` finds the result of an attempt that has ended, if it is still there."""
        self._slots = slots
        self._kept_result = kept_result
        self._remembered_max = remembered_max
        self._expiry_seconds = expiry_seconds
        self._executions: OrderedDict[str, Execution] = OrderedDict()
        self._startable: deque[Agent] = deque()
        self.remembered = 0
        self.running = 0
        self.closing = False
        """True while the host stops: what comes is given back."""

    @property
    def queued(self) -> int:
        return sum(execution.waiting for execution in self._executions.values())

    def take(self, entries: Iterable[Entry], now: float) -> Changes:
        """Take entries in. Control and cancellations of all of them come before any assignment of theirs."""
        changes = Changes()
        entries = list(entries)
        for entry in entries:
            execution = self._touch(entry.execution_id, now)
            changes.consumed += entry.consumed
            if entry.control is not None:
                execution.control = entry.control
        for entry in entries:
            execution = self._executions[entry.execution_id]
            # An assignment that follows a cancellation in the stream is meant; one before it is not.
            for assignment in entry.assign:
                self._assign(execution, entry, assignment, changes)
            for key in entry.cancel:
                self._cancel(execution, key, changes)
            for attempt in changes.orphaned:
                self._return(attempt, changes.returned)
            changes.orphaned.clear()
            if entry.control == "cancel":
                self._cancel_all(entry.execution_id, execution, changes)
            elif execution.control == "pause":
                self._give_back(execution, changes)
        self._forget(now)
        return changes

    def ready(self) -> list[Attempt]:
        """Attempts to start now, in order; they count as running from here on."""
        return list(iter(self.next, None))

    def next(self) -> Attempt | None:
        """An attempt to start now, of the agents in turn; it counts as running from here on."""
        while self._startable:
            agent = self._startable.popleft()
            agent.listed = False
            while agent.queue and agent.running < self._slots:
                attempt = agent.queue.popleft()
                if attempt.wanted:
                    attempt.running = True
                    attempt.execution.waiting -= 1
                    agent.running += 1
                    self.running += 1
                    self._list(agent)
                    return attempt
        return None

    def ended(self, attempt: Attempt, result: bytes | None = None) -> list[Attempt]:
        """It was reported, or nobody wants its report; its slot may still be taken, see `release`.

        With a result what waits behind it alone goes on as soon as a slot is free; without, all that waits behind it
        is returned, to be given back.
        """
        execution, slot = attempt.execution, attempt.key[1:]
        if execution.attempts.get(slot, DONE) is attempt:
            execution.attempts[slot] = DONE
            execution.open -= 1
            if not attempt.running:
                execution.waiting -= 1
        if attempt.followers is None:
            return []
        followers, attempt.followers = attempt.followers, None
        returned: list[Attempt] = []
        for follower in reversed(followers) if result is not None else followers:
            if result is None:
                self._return(follower, returned)
            elif follower.wanted:
                follower.inherited[attempt.key.task_id] = result
                follower.missing -= 1
                if not follower.missing:
                    follower.agent.queue.appendleft(follower)
                    self._list(follower.agent, first=True)
        return returned

    def release(self, attempt: Attempt) -> None:
        """Free its slot, once."""
        if attempt.running and not attempt.released:
            attempt.released = True
            attempt.agent.running -= 1
            self.running -= 1
            self._list(attempt.agent)

    def give_back_all(self) -> list[Attempt]:
        """Everything that has not started, for a host that stops."""
        changes = Changes()
        for execution in self._executions.values():
            self._give_back(execution, changes)
        return changes.returned

    def abandon(self) -> list[Attempt]:
        """Forget everything; returns what is running, which keeps its slots until it has ended."""
        running = []
        for execution in self._executions.values():
            for attempt in execution.attempts.values():
                if attempt is not DONE:
                    attempt.wanted = False
                    if attempt.running:
                        running.append(attempt)
        self._executions.clear()
        self._startable.clear()
        self.remembered = 0
        return running

    def _touch(self, execution_id: str, now: float) -> Execution:
        execution = self._executions.get(execution_id)
        if execution is None:
            execution = self._executions[execution_id] = Execution()
        else:
            self._executions.move_to_end(execution_id)
        execution.touched = now
        return execution

    def _assign(self, execution: Execution, entry: Entry, assignment: dict[str, Any], changes: Changes) -> None:
        key = Key(entry.execution_id, assignment["task_id"], assignment["epoch"], assignment["attempt"])
        if key[1:] in execution.attempts:
            had = execution.attempts[key[1:]]
            if had is DONE:
                changes.again_done.append(key)
            elif had.running:
                changes.again_running.append(had)
            return
        agent_id = assignment["agent_id"]
        agent = execution.agents.get(agent_id)
        if agent is None:
            agent = execution.agents[agent_id] = Agent()
        attempt = Attempt(key, execution, agent, entry, assignment)
        if execution.control == "pause" or self.closing:
            # Not remembered: the engine may hand out the same attempt again later.
            changes.returned.append(attempt)
            return
        before: list[Attempt] = []
        for name in assignment.get("after") or ():
            number = execution.latest.get((name, key.epoch), 0)
            predecessor = execution.attempts.get((name, key.epoch, number), DONE)
            if predecessor is not DONE:
                before.append(predecessor)
                continue
            result = self._kept_result(Key(key.execution_id, name, key.epoch, number))
            if result is None:
                changes.returned.append(attempt)
                return
            attempt.inherited[name] = result
        execution.attempts[key[1:]] = attempt
        execution.latest[key.task_id, key.epoch] = key.attempt
        self.remembered += 1
        execution.open += 1
        execution.waiting += 1
        attempt.missing = len(before)
        for predecessor in before:
            if predecessor.followers is None:
                predecessor.followers = [attempt]
            else:
                predecessor.followers.append(attempt)
        if not before:
            agent.queue.append(attempt)
            self._list(agent)

    def _list(self, agent: Agent, *, first: bool = False) -> None:
        if agent.queue and not agent.listed:
            agent.listed = True
            (self._startable.appendleft if first else self._startable.append)(agent)

    def _cancel(self, execution: Execution, key: Key, changes: Changes) -> None:
        attempt = execution.attempts.get(key[1:], DONE)
        if key[1:] not in execution.attempts:
            self.remembered += 1
            execution.attempts[key[1:]] = DONE
        if attempt is DONE:
            changes.dropped_results.append(key)
            return
        attempt.wanted = False
        if attempt.running:
            changes.stopped.append(attempt)
        changes.orphaned += attempt.followers or ()
        attempt.followers = None
        self.ended(attempt)

    def _cancel_all(self, execution_id: str, execution: Execution, changes: Changes) -> None:
        for attempt in [a for a in execution.attempts.values() if a is not DONE]:
            self._cancel(execution, attempt.key, changes)
        changes.orphaned.clear()
        changes.cancelled_executions.append(execution_id)

    def _give_back(self, execution: Execution, changes: Changes) -> None:
        if not execution.waiting:
            return
        for attempt in [a for a in execution.attempts.values() if a is not DONE and not a.running]:
            self._return(attempt, changes.returned)
        for agent in execution.agents.values():
            agent.queue.clear()

    def _return(self, attempt: Attempt, returned: list[Attempt]) -> None:
        """Give it back, and what waits behind it. It is not remembered: the same attempt may come again."""
        behind: deque[Attempt] = deque([attempt])
        while behind:
            attempt = behind.popleft()
            if attempt.wanted and not attempt.running:
                attempt.wanted = False
                del attempt.execution.attempts[attempt.key[1:]]
                self.remembered -= 1
                attempt.execution.open -= 1
                attempt.execution.waiting -= 1
                returned.append(attempt)
                behind.extend(attempt.followers or ())
                attempt.followers = None

    def _forget(self, now: float) -> None:
        """Forget executions that were idle for long, and the longest idle ones when there are too many attempts."""
        for execution_id in list(self._executions):
            execution = self._executions[execution_id]
            over = self.remembered > self._remembered_max
            if not over and now - execution.touched < self._expiry_seconds:
                return  # the others were touched later
            if execution.open == 0:
                self.remembered -= len(execution.attempts)
                del self._executions[execution_id]
