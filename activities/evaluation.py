"""Finding out what the kernel must not compute itself: conditions, lists, triggers' conditions, equal tasks' results.

Temporal records the answer, so that a replay sees what was found then, whatever evaluates expressions by now.
"""

import asyncio
import hashlib
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

import orjson
from temporalio import activity

from activities.ticks import as_application_error
from engine.contracts import activity_names
from engine.contracts.dynamic import Candidate, Evaluation, EvaluationRequest, MatchOutcome, TaskOutcome
from engine.contracts.limits import ERROR_MESSAGE_LENGTH_MAX, EXPRESSION_STEPS_MAX, TASKS_DYNAMIC_MAX
from engine.errors import EngineError, TooLargeError
from engine.events.bodies import GrownBodies
from engine.expressions import ExpressionError, evaluate, holds, parse
from engine.observability.log import get_logger
from engine.ports import DispatchStore, GraphStore, StoredBody

log = get_logger(__name__)

EVALUATION_SECONDS_MAX = 0.8
"""What is not reached by then is left to the next call; a call always does something."""

BODIES_MAX = 100
"""Executions whose definitions are kept in memory."""


class EvaluationActivities:
    """Reads only, but that it stores lists and notes under which key a result can be reused; both are idempotent."""

    def __init__(self, store: DispatchStore, graphs: GraphStore, bodies: GrownBodies, reuse_days: float) -> None:
        self._store = store
        self._graphs = graphs
        self._bodies = bodies
        self._reuse_days = reuse_days
        self._known: dict[tuple[str, str], tuple[StoredBody, dict[str, Any]]] = {}

    @activity.defn(name=activity_names.EVALUATE_TASKS)
    async def evaluate_tasks(self, request: EvaluationRequest) -> Evaluation:
        """One outcome a task and a match, as far as the time goes."""
        try:
            return await self._evaluate(request)
        except EngineError as error:
            raise as_application_error(error) from error

    async def _evaluate(self, request: EvaluationRequest) -> Evaluation:
        until = time.monotonic() + EVALUATION_SECONDS_MAX
        stored, planned = await self._definition(request)
        names = list(dict.fromkeys([*request.tasks, *(match.task_id for match in request.matches)]))
        bodies = await self._bodies.of(request.tenant, request.execution_id, planned, names)
        wanted = sorted({d for body in bodies.values() for d in body.get("depends_on", ())})
        results = await self._store.results(request.tenant, UUID(request.execution_id), wanted) if wanted else {}
        work = _Work(request, stored, bodies, results, self._store, until)
        matches = await self._matches(work)
        tasks = await work.decide_tasks()
        return Evaluation(epoch=request.epoch, tasks=await self._with_reuse(work, tasks), matches=matches)

    async def _definition(self, request: EvaluationRequest) -> tuple[StoredBody, dict[str, Any]]:
        key = (request.tenant, request.execution_id)
        if key not in self._known:
            stored = await self._store.body(request.tenant, UUID(request.execution_id))
            while len(self._known) >= BODIES_MAX:
                del self._known[next(iter(self._known))]
            self._known[key] = stored, {task["id"]: task for task in stored.definition["tasks"]}
        return self._known[key]

    async def _matches(self, work: "_Work") -> tuple[MatchOutcome, ...]:
        request = work.request
        if not request.matches:
            return ()
        events = sorted({match.event_id for match in request.matches})
        payloads = await self._graphs.event_payloads(request.tenant, UUID(request.execution_id), events)
        found: list[MatchOutcome] = []
        for match in request.matches:
            if found and work.out_of_time():
                break
            matched = await asyncio.to_thread(work.matches, match, payloads.get(match.event_id))
            found.append(MatchOutcome(**match.model_dump(), matched=matched))
        return tuple(found)

    async def _with_reuse(self, work: "_Work", outcomes: Sequence[TaskOutcome]) -> tuple[TaskOutcome, ...]:
        """Of the tasks that are to run, those that need not, because an equal one has."""
        keys = {
            outcome.task_id: work.reuse_key(outcome.task_id)
            for outcome in outcomes
            if outcome.decision == "run" and work.bodies[outcome.task_id].get("reuse")
        }
        if not keys:
            return tuple(outcomes)
        request = work.request
        found = await self._graphs.take_results(request.tenant, UUID(request.execution_id), keys, self._reuse_days)
        return tuple(
            TaskOutcome(
                task_id=outcome.task_id,
                decision="reuse",
                result=found[outcome.task_id].result,
                result_ref=found[outcome.task_id].result_ref,
            )
            if outcome.task_id in found
            else outcome
            for outcome in outcomes
        )


class _Work:
    """One call's evaluations."""

    def __init__(
        self,
        request: EvaluationRequest,
        stored: StoredBody,
        bodies: Mapping[str, dict[str, Any]],
        results: Mapping[str, Any],
        store: DispatchStore,
        until: float,
    ) -> None:
        self.request = request
        self.bodies = bodies
        self._stored = stored
        self._results = results
        self._store = store
        self._until = until
        self._room = request.room

    def out_of_time(self) -> bool:
        return time.monotonic() > self._until

    async def decide_tasks(self) -> list[TaskOutcome]:
        found: list[TaskOutcome] = []
        for task_id in self.request.tasks:
            if found and self.out_of_time():
                break
            found.append(await self._decide(task_id))
        return found

    async def _decide(self, task_id: str) -> TaskOutcome:
        body = self.bodies.get(task_id)
        if body is None:
            return _failure(task_id, "TASK_UNKNOWN", "nothing is stored of this task")
        is_element = "element" in body
        try:
            if body.get("when") and not is_element and not await asyncio.to_thread(self._holds, body):
                return TaskOutcome(task_id=task_id, decision="skip")
            if body.get("for_each") and not is_element:
                return await self._expand(task_id, await asyncio.to_thread(self._list, body))
        except ExpressionError as error:
            return _failure(task_id, error.code, error.message)
        return TaskOutcome(task_id=task_id, decision="run")

    async def _expand(self, task_id: str, items: Any) -> TaskOutcome:
        if not isinstance(items, list):
            return _failure(task_id, "FOR_EACH_NOT_A_LIST", f"for_each gave {_kind(items)}, not a list")
        if len(items) > self._room:
            added = TASKS_DYNAMIC_MAX - self._room
            before = f", and {added} were added before" if added else ""
            return _failure(
                task_id,
                "FOR_EACH_TOO_LONG",
                f"for_each gave {len(items)} elements: an execution may add {TASKS_DYNAMIC_MAX} tasks{before}",
            )
        if not items:
            return TaskOutcome(task_id=task_id, decision="expand")
        try:
            reference = await self._store.put_payload(
                self.request.tenant, UUID(self.request.execution_id), orjson.dumps(items)
            )
        except TooLargeError as error:
            return _failure(task_id, "FOR_EACH_TOO_LARGE", error.message)
        self._room -= len(items)
        return TaskOutcome(task_id=task_id, decision="expand", size=len(items), items_ref=reference)

    def _holds(self, body: dict[str, Any]) -> bool:
        return holds(parse(body["when"]), self._names(body), steps_max=EXPRESSION_STEPS_MAX)

    def _list(self, body: dict[str, Any]) -> Any:
        return evaluate(parse(body["for_each"]), self._names(body), steps_max=EXPRESSION_STEPS_MAX)

    def matches(self, match: Candidate, payload: Any) -> bool:
        """Whether the trigger takes the event. One over which its condition fails is none that it waits for."""
        body = self.bodies.get(match.task_id)
        triggers = [] if body is None else body.get("triggers") or []
        if body is None or match.trigger >= len(triggers):
            return False
        text = triggers[match.trigger].get("when")
        try:
            return text is None or holds(
                parse(text), {**self._names(body), "event": payload}, steps_max=EXPRESSION_STEPS_MAX
            )
        except ExpressionError as error:
            log.info(
                "evaluation.trigger_failed",
                execution_id=self.request.execution_id,
                task_id=match.task_id,
                event_id=match.event_id,
                error=error.message,
            )
            return False

    def _names(self, body: dict[str, Any]) -> dict[str, Any]:
        return {"input": self._stored.input_data, "results": self._direct_results(body)}

    def _direct_results(self, body: dict[str, Any]) -> dict[str, Any]:
        return {name: self._results[name] for name in body.get("depends_on", ()) if name in self._results}

    def reuse_key(self, task_id: str) -> str:
        """Of all that the task's agent gets, and of what it is: equal keys, equal results."""
        body = self.bodies[task_id]
        role = self._stored.definition["agents"][body["agent"]]
        document = [
            self.request.tenant,
            role["type"],
            body.get("action") or task_id,
            self._stored.input_data,
            body.get("input") or {},
            self._direct_results(body),
        ]
        return hashlib.sha256(orjson.dumps(document, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _failure(task_id: str, code: str, message: str) -> TaskOutcome:
    return TaskOutcome(task_id=task_id, decision="fail", code=code, message=message[:ERROR_MESSAGE_LENGTH_MAX])


def _kind(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")
