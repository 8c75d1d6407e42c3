"""A committed tick's stream writes: assignments to hosts, and what they need not keep or do any more."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any
from uuid import UUID

import orjson
from redis.exceptions import RedisError

from engine.contracts.execution import ExecutionStatus
from engine.contracts.kernel import Attempt, Delta, Done, Failed, Submission, TickProposal
from engine.contracts.limits import RESULT_INLINE_BYTES_MAX
from engine.errors import EngineError, UnavailableError
from engine.events import keys, wire
from engine.events.bodies import GrownBodies
from engine.events.catching_up import Publisher
from engine.events.facts import Pack, lines_of, packs_of, stored_lines
from engine.events.functions import Functions
from engine.events.publisher import STATE_CLOSED_SECONDS, STATE_SECONDS
from engine.observability.log import get_logger
from engine.ports import Committed, DispatchStore, Published, StoredBody

log = get_logger(__name__)

ENTRY_ASSIGNMENTS_MAX = 200
"""Assignments in one entry: hosts read and start them as they come."""

MEMBERS_BYTES_MAX = 4 * 1024 * 1024
"""Dependencies' results for all members of a pattern's task that one tick asks; beyond, they get small ones only."""

WRITE_TIMEOUT_SECONDS = 5.0
BODIES_MAX = 2_000
BODY_TASKS_MAX = 200_000
RESULTS_MAX = 100_000
"""Kept in memory over all executions; the store has the others."""

_CONTROL = {ExecutionStatus.EXECUTING: "run", ExecutionStatus.PAUSED: "pause"}


class _Memory:
    """Bodies and recent results of executions, so that dispatch seldom asks the database."""

    def __init__(self) -> None:
        self.bodies: OrderedDict[str, tuple[StoredBody, dict[str, Any]]] = OrderedDict()
        self.results: OrderedDict[tuple[str, int], dict[str, Any]] = OrderedDict()
        self._tasks_held = 0
        self._results_held = 0

    def known(self, execution_id: str, epoch: int) -> dict[str, Any]:
        return self.results.get((execution_id, epoch), {})

    def learn(self, execution_id: str, epoch: int, results: dict[str, Any]) -> None:
        key = (execution_id, epoch)
        known = self.results.setdefault(key, {})
        self.results.move_to_end(key)
        self._results_held -= len(known)
        known.update(results)
        self._results_held += len(known)
        while self._results_held > RESULTS_MAX:
            _, dropped = self.results.popitem(last=False)
            self._results_held -= len(dropped)

    def remember_body(self, execution_id: str, body: StoredBody) -> dict[str, Any]:
        tasks = {task["id"]: task for task in body.definition["tasks"]}
        self._forget_body(execution_id)
        self.bodies[execution_id] = (body, tasks)
        self._tasks_held += len(tasks)
        while len(self.bodies) > BODIES_MAX or (self._tasks_held > BODY_TASKS_MAX and len(self.bodies) > 1):
            self._forget_body(next(iter(self.bodies)))
        return tasks

    def forget(self, execution_id: str, epoch: int) -> None:
        """It is closed. Results of earlier epochs make room in their turn."""
        self._forget_body(execution_id)
        self._results_held -= len(self.results.pop((execution_id, epoch), {}))

    def _forget_body(self, execution_id: str) -> None:
        dropped = self.bodies.pop(execution_id, None)
        self._tasks_held -= len(dropped[1]) if dropped is not None else 0


class Dispatcher:
    """Writes ticks to the streams. A tick that was written before is not written again."""

    def __init__(
        self,
        functions: Functions,
        store: DispatchStore,
        grown: GrownBodies | None = None,
        publisher: Publisher | None = None,
    ) -> None:
        self._functions = functions
        self._store = store
        self._grown = grown
        self._publisher = publisher
        self._memory = _Memory()

    async def write(self, proposal: TickProposal, committed: Committed) -> None:
        """Redo or do the stream writes of stored ticks, in order. Raises UnavailableError when Redis is away."""
        ticks, own = committed.ticks, committed.own
        if own and proposal.results:
            self._memory.learn(proposal.execution_id, proposal.epoch, _final_results(proposal))
        epoch = _first_epoch(proposal, ticks)
        facts, published = _facts(proposal, committed), 0
        for delta in ticks:
            epoch = epoch if delta.rewind is None else delta.rewind.epoch
            mine = own and delta is ticks[0]
            entries = await self._entries(proposal, delta, epoch, proposal.cancel if mine else ())
            acknowledge = proposal.acknowledge if mine else delta.consumed
            published = await self._write_tick(proposal, delta, entries, acknowledge, committed.last_sequence, facts)
            facts = ()
            if delta.status is not None and delta.status.closed:
                self._memory.forget(proposal.execution_id, epoch)
        if published < committed.last_sequence and ticks and self._publisher is not None:
            await self._publish_rest(self._publisher, proposal, committed, published)

    async def _publish_rest(
        self, publisher: Publisher, proposal: TickProposal, committed: Committed, published: int
    ) -> None:
        """What was committed beside the ticks, or by a process that did not live to publish it."""
        execution = Published(
            tenant=proposal.tenant,
            execution_id=UUID(proposal.execution_id),
            workflow_id=UUID(proposal.workflow_id),
            trace_id=UUID(proposal.trace_id),
            last_sequence=committed.last_sequence,
        )
        try:
            await publisher.catch_up(execution, published)
        except EngineError as error:
            # The tick is committed and written. The next one publishes this too, or the sweep does.
            log.warning("dispatch.facts_left", execution_id=proposal.execution_id, error=str(error))

    async def _write_tick(
        self,
        proposal: TickProposal,
        delta: Delta,
        entries: list[tuple[str, bytes]],
        acknowledge: Iterable[str],
        last_sequence: int,
        packs: Sequence[Pack],
    ) -> int:
        """Answers up to which sequence the execution is published."""
        acks = list(acknowledge)
        tenant, execution_id = proposal.tenant, proposal.execution_id
        names = [
            keys.tick_key(tenant, execution_id),
            keys.partition_stream(tenant, proposal.partition),
            keys.facts_stream(tenant, proposal.partition),
            *(keys.tasks_stream(tenant, host_id) for host_id, _ in entries),
        ]
        closes = delta.status is not None and delta.status.closed
        args: list[Any] = [
            delta.tick, STATE_CLOSED_SECONDS if closes else STATE_SECONDS, keys.GROUP,
            keys.feed_channel(tenant, execution_id), b'{"sequence":%d}' % last_sequence,
            packs[0].first_sequence if packs else 0, last_sequence, execution_id, proposal.workflow_id,
            proposal.trace_id, len(packs), len(acks), *(part for pack in packs for part in pack), *acks,
            *(body for _, body in entries),
        ]  # fmt: skip
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_SECONDS):
                _, published = await self._functions.ask("orc_write_tick", names, args)
        except (RedisError, OSError, TimeoutError) as error:
            raise UnavailableError(f"Redis does not answer: {type(error).__name__}") from error
        return int(published)

    async def _entries(
        self, proposal: TickProposal, delta: Delta, epoch: int, cancel: Iterable[Attempt]
    ) -> list[tuple[str, bytes]]:
        """(host, body) pairs; what a host must stop comes before what it is to do."""
        notices = _notices(proposal, delta, epoch, cancel)
        by_host: dict[str, list[Attempt]] = defaultdict(list)
        for attempt in (*delta.assigned, *delta.resent):
            by_host[attempt.host_id].append(attempt)
        head = {"v": 1, "execution_id": proposal.execution_id, "workflow_id": proposal.workflow_id,
                "trace_id": proposal.trace_id, "tick": delta.tick,
                "reply_to": keys.partition_stream(proposal.tenant, proposal.partition)}  # fmt: skip
        entries: list[tuple[str, bytes]] = []
        if by_host:
            body, tasks = await self._body(proposal)
            attempts = [a for items in by_host.values() for a in items]
            if proposal.growth and self._grown is not None:
                names = [attempt.task_id for attempt in attempts]
                tasks = await self._grown.of(proposal.tenant, proposal.execution_id, tasks, names)
            # Stored ticks of before a resumption may name tasks that are no more.
            attempts = [attempt for attempt in attempts if attempt.task_id in tasks]
            results = await self._results(proposal, epoch, tasks, attempts)
            elements = proposal.growth and any("element" in tasks[attempt.task_id] for attempt in attempts)
            small = _small(results) if elements else results
            told = _told_to_members(results, sum("about" in tasks[attempt.task_id] for attempt in attempts))
            noted = {a.task_id: await self._with_stored(proposal, a) for a in attempts if _refers(a.note)}
        for host_id in sorted({*notices, *by_host}):
            document = {**head, **notices.get(host_id, {})}
            attempts = by_host.get(host_id, [])
            if not attempts:
                entries.append((host_id, wire.encode_host_entry(document)))
            for first in range(0, len(attempts), ENTRY_ASSIGNMENTS_MAX):
                document["input"] = body.input_data
                document["accepts"] = wire.ACCEPTS
                document["assign"] = [
                    _assignment(
                        task,
                        noted.get(attempt.task_id, attempt),
                        epoch,
                        told if "about" in task else small if "element" in task else results,
                    )
                    for attempt in attempts[first : first + ENTRY_ASSIGNMENTS_MAX]
                    if (task := tasks.get(attempt.task_id)) is not None
                ]
                entries.append((host_id, wire.encode_host_entry(document)))
                document = dict(head)
        return entries

    async def _with_stored(self, proposal: TickProposal, attempt: Attempt) -> Attempt:
        """What stands under `stored` in a note is where it is stored; the agent gets the thing itself, by its name."""
        full = {name: value for name, value in attempt.note.items() if name != "stored"}
        for name, reference in attempt.note["stored"].items():
            payload = await self._store.payload(proposal.tenant, UUID(proposal.execution_id), reference)
            full[name] = orjson.loads(payload)
        return attempt.model_copy(update={"note": full})

    async def _body(self, proposal: TickProposal) -> tuple[StoredBody, dict[str, Any]]:
        found = self._memory.bodies.get(proposal.execution_id)
        if found is None:
            body = await self._store.body(proposal.tenant, UUID(proposal.execution_id))
            found = (body, self._memory.remember_body(proposal.execution_id, body))
        return found

    async def _results(
        self, proposal: TickProposal, epoch: int, tasks: dict[str, Any], attempts: list[Attempt]
    ) -> dict[str, Any]:
        """Results of the direct dependencies of these attempts."""
        # What runs behind its dependency at the same host finds that result there.
        wanted = {d for attempt in attempts
                  for d in tasks[attempt.task_id].get("depends_on", ()) if d not in attempt.after}  # fmt: skip
        if not wanted:
            return {}
        known = self._memory.known(proposal.execution_id, epoch)
        results = {task_id: known[task_id] for task_id in wanted if task_id in known}
        missing = sorted(wanted - results.keys())
        if missing:
            results.update(await self._store.results(proposal.tenant, UUID(proposal.execution_id), missing))
        return results


def _refers(note: Any) -> bool:
    return isinstance(note, dict) and isinstance(note.get("stored"), dict)


def _final_results(proposal: TickProposal) -> dict[str, Any]:
    """What can be remembered: not what a pattern may yet send back, perhaps while another process has the execution."""
    settled = {item.task_id for item in proposal.delta.settled if item.verdict != "again"}
    judged = {item.task_id for item in proposal.delta.submitted} - settled
    return {
        item.task_id: item.result for item in proposal.results if item.result_ref is None and item.task_id not in judged
    }


def _facts(proposal: TickProposal, committed: Committed) -> Sequence[Pack]:
    """What the proposal has committed just now, with the first tick behind what was there before it. Nothing of ticks
    that were stored earlier: their facts stand in the audit log only."""
    if not committed.own or len(committed.facts) != len(proposal.audit):
        return ()
    lines = stored_lines(committed.earlier) + lines_of(proposal.audit, committed.facts, proposal.epoch)
    return packs_of(committed.last_sequence - len(lines) + 1, lines)


def _first_epoch(proposal: TickProposal, ticks: Sequence[Delta]) -> int:
    """The epoch before these ticks. Stored ones may hold a rewind of which the proposal does not know, or lack the
    one that it proposes."""
    for delta in ticks:
        if delta.rewind is not None:
            return delta.rewind.epoch - 1
    return proposal.epoch if proposal.delta.rewind is None else proposal.delta.rewind.epoch - 1


def _told_to_members(results: dict[str, Any], members: int) -> dict[str, Any]:
    """What each of a task's members may be given: everything, as long as that is not too much together."""
    if not members or sum(len(orjson.dumps(value)) for value in results.values()) * members <= MEMBERS_BYTES_MAX:
        return results
    return _small(results)


def _small(results: dict[str, Any]) -> dict[str, Any]:
    """What each of thousands of elements may be given."""
    return {name: value for name, value in results.items() if len(orjson.dumps(value)) <= RESULT_INLINE_BYTES_MAX}


def _assignment(task: dict[str, Any], attempt: Attempt, epoch: int, results: dict[str, Any]) -> dict[str, Any]:
    assignment = {
        "task_id": attempt.task_id,
        "agent_id": attempt.agent_id,
        "role": task["agent"],
        "epoch": epoch,
        "attempt": attempt.attempt,
        "action": task.get("action") or attempt.task_id,
        "input": (task.get("input") or {}) if attempt.input is None else attempt.input,
        "results": {d: results[d] for d in task.get("depends_on", ()) if d in results},
        "timeout_seconds": task.get("timeout_seconds", 300),
    }
    if attempt.after:
        assignment["after"] = attempt.after
    if attempt.note is not None:
        assignment["context"] = attempt.note
    if attempt.overlay is not None:
        assignment["input"] = {**assignment["input"], **attempt.overlay}
    return assignment


def _notices(proposal: TickProposal, delta: Delta, epoch: int, cancel: Iterable[Attempt]) -> dict[str, dict[str, Any]]:
    """For each host: reports that were consumed, attempts that no longer count, whether to go on at all."""
    notices: dict[str, dict[str, Any]] = defaultdict(dict)
    ended: list[Done | Failed | Submission] = [*delta.done, *delta.failed, *delta.submitted]
    for item in ended:
        host_id = proposal.hosts.get(item.agent_id)
        if host_id is not None:
            notices[host_id].setdefault("consumed", []).append([item.task_id, epoch, item.attempt])
    stopped_epoch = epoch if delta.rewind is None else delta.rewind.epoch - 1
    for attempt in cancel:
        host_id = proposal.hosts.get(attempt.agent_id)
        if host_id is not None:
            notices[host_id].setdefault("cancel", []).append([attempt.task_id, stopped_epoch, attempt.attempt])
    if delta.status is not None:
        control = "cancel" if delta.status.closed else _CONTROL.get(delta.status)
        if control is not None:
            for host_id in set(proposal.hosts.values()):
                notices[host_id]["control"] = control
    return notices
