"""Reads for programs of the coordination language what is not in the workflow: input, results, payloads of events.

What a program sees travels through its workflow, so it is small: above the limit the answer is an error that says so.
"""

from typing import Any, Final
from uuid import UUID

import orjson
from temporalio import activity

from activities.ticks import as_application_error
from engine.contracts import activity_names
from engine.contracts.kernel import ErrandOutcome, ErrandRequest
from engine.errors import EngineError
from engine.events.bodies import GrownBodies
from engine.ports import DispatchStore, GraphStore, StoredBody

CONTEXT_BYTES_MAX: Final = 64 * 1024
"""The execution's input and the results of a task's dependencies together, as JSON."""

EVENT_BYTES_MAX: Final = 16 * 1024


class ReadingActivities:
    """Changes nothing."""

    def __init__(self, store: DispatchStore, graphs: GraphStore, bodies: GrownBodies) -> None:
        self._store = store
        self._graphs = graphs
        self._bodies = bodies

    @activity.defn(name=activity_names.READ_PROGRAM_CONTEXT)
    async def read_context(self, request: ErrandRequest) -> ErrandOutcome:
        """`{input, results}` of the errand's task, as far as they are asked for."""
        context: dict[str, Any] = {}
        try:
            stored = await self._store.body(request.tenant, UUID(request.execution_id))
            if "input" in request.errand.input["read"]:
                context["input"] = stored.input_data
            if "results" in request.errand.input["read"]:
                context["results"] = await self._results(request, stored)
        except EngineError as error:
            raise as_application_error(error) from error
        return _fitting(request, context, CONTEXT_BYTES_MAX, "CONTEXT_TOO_LARGE")

    async def _results(self, request: ErrandRequest, stored: StoredBody) -> dict[str, Any]:
        """Of the direct dependencies of the errand's task."""
        planned = {task["id"]: task for task in stored.definition["tasks"]}
        name = request.errand.task_id
        bodies = await self._bodies.of(request.tenant, request.execution_id, planned, [name])
        wanted = sorted(bodies.get(name, {}).get("depends_on", ()))
        return await self._store.results(request.tenant, UUID(request.execution_id), wanted) if wanted else {}

    @activity.defn(name=activity_names.READ_EVENT)
    async def read_event(self, request: ErrandRequest) -> ErrandOutcome:
        """The payload of an external event."""
        event_id = request.errand.input["event_id"]
        try:
            payloads = await self._graphs.event_payloads(request.tenant, UUID(request.execution_id), [event_id])
        except EngineError as error:
            raise as_application_error(error) from error
        return _fitting(request, payloads.get(event_id), EVENT_BYTES_MAX, "EVENT_TOO_LARGE")


def _fitting(request: ErrandRequest, value: Any, bytes_max: int, code: str) -> ErrandOutcome:
    size_bytes = len(orjson.dumps(value))
    if size_bytes > bytes_max:
        message = f"{size_bytes} bytes as JSON; a pattern sees at most {bytes_max}"
        return ErrandOutcome(key=request.errand.key, ok=False, code=code, message=message)
    return ErrandOutcome(key=request.errand.key, value=value)
