"""The REST routes: which operation stands behind which method and path."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Literal

Body = Literal["none", "optional", "required"]


@dataclass(frozen=True, slots=True)
class Route:
    """`query` names the operation's parameters that come in the query; those in the path come from there."""

    method: Literal["GET", "POST", "PATCH", "DELETE"]
    path: str
    operation: str
    summary: str
    status: HTTPStatus = HTTPStatus.OK
    query: tuple[str, ...] = ()
    body: Body = "none"
    location: str | None = None
    """Template of the Location header, filled from the result."""


_PAGE = ("limit", "page_token")
_WORKFLOW: Final = "/workflows/{workflow_id}"
_EXECUTION: Final = "/executions/{execution_id}"
_HOOK: Final = "/hooks/{hook_id}"

ROUTES: Final = (
    Route(
        "POST",
        "/workflows",
        "workflow.create",
        "Validate, plan and store a definition",
        HTTPStatus.CREATED,
        body="required",
        location="/api/v1/workflows/{workflow_id}",
    ),
    Route("GET", "/workflows", "workflow.list", "List definitions", query=(*_PAGE, "name", "pattern")),
    Route("GET", _WORKFLOW, "workflow.get", "A definition"),
    Route("DELETE", _WORKFLOW, "workflow.delete", "Delete a definition", HTTPStatus.NO_CONTENT),
    Route(
        "POST",
        f"{_WORKFLOW}/execute",
        "workflow.execute",
        "Start an execution",
        HTTPStatus.ACCEPTED,
        body="required",
        location="/api/v1/executions/{execution_id}",
    ),
    Route("GET", "/executions", "execution.list", "List executions", query=(*_PAGE, "status", "workflow_id")),
    Route("GET", _EXECUTION, "workflow.status", "Status of an execution"),
    Route("GET", f"{_EXECUTION}/tasks", "execution.tasks", "Tasks with their results", query=(*_PAGE, "state")),
    Route("GET", f"{_EXECUTION}/tasks/{{task_id}}/result", "execution.result", "A completed task's whole result"),
    Route("GET", f"{_EXECUTION}/events", "execution.events", "The audit log, in order", query=_PAGE),
    Route(
        "POST",
        f"{_EXECUTION}/events",
        "execution.send_event",
        "Send an external event to tasks that wait for it",
        HTTPStatus.ACCEPTED,
        body="required",
    ),
    Route(
        "POST",
        f"{_EXECUTION}/recount",
        "swarm.recount",
        "Count a swarm's votes again under another rule",
        body="required",
    ),
    Route(
        "POST",
        f"{_EXECUTION}/watch-token",
        "execution.watch_token",
        "A token that stands in a WebSocket's address: works once, for half a minute",
        HTTPStatus.CREATED,
    ),
    Route("GET", f"{_EXECUTION}/checkpoints", "execution.checkpoints", "Checkpoints", query=_PAGE),
    Route(
        "POST",
        f"{_EXECUTION}/checkpoints",
        "execution.checkpoint",
        "Make a checkpoint",
        HTTPStatus.CREATED,
        body="optional",
    ),
    Route("POST", f"{_EXECUTION}/pause", "workflow.pause", "Pause; answers once it stands", body="optional"),
    Route("POST", f"{_EXECUTION}/resume", "workflow.resume", "Resume, from a checkpoint or on", body="optional"),
    Route("POST", f"{_EXECUTION}/cancel", "workflow.cancel", "Cancel for good", body="optional"),
    Route(
        "GET", f"{_EXECUTION}/compensations", "execution.compensations", "Steps that could not be undone", query=_PAGE
    ),
    Route(
        "POST",
        f"{_EXECUTION}/compensations/{{task_id}}/retry",
        "execution.retry_compensation",
        "Have a step undone after all",
        HTTPStatus.ACCEPTED,
    ),
    Route(
        "POST",
        f"{_EXECUTION}/compensations/{{task_id}}/mark-done",
        "execution.mark_compensation_done",
        "Say that a step was undone by other means",
        body="optional",
    ),
    Route("GET", "/patterns", "pattern.page", "Coordination patterns", query=(*_PAGE, "filter")),
    Route(
        "POST",
        "/patterns",
        "pattern.register",
        "Register a pattern that is described as data",
        HTTPStatus.CREATED,
        body="required",
        location="/api/v1/patterns/{name}",
    ),
    Route("GET", "/patterns/{name}", "pattern.get", "A pattern with the schema of its settings", query=("version",)),
    Route(
        "POST",
        "/hooks",
        "hooks.register",
        "Register a hook",
        HTTPStatus.CREATED,
        body="required",
        location="/api/v1/hooks/{hook_id}",
    ),
    Route("GET", "/hooks", "hooks.page", "Hooks, the oldest first", query=(*_PAGE, "trigger", "enabled")),
    Route("GET", "/hooks/switch", "hooks.switch", "Whether hooks run at all"),
    Route("POST", "/hooks/switch", "hooks.set_switch", "Turn all hooks off or on", body="required"),
    Route(
        "GET",
        "/hooks/executions",
        "hooks.executions",
        "Runs of hooks, newest first",
        query=(*_PAGE, "hook_id", "execution_id", "status"),
    ),
    Route("GET", _HOOK, "hooks.get", "A hook with its statistics"),
    Route("PATCH", _HOOK, "hooks.update", "Change a hook; what is absent stays", body="required"),
    Route("DELETE", _HOOK, "hooks.delete", "Delete a hook", HTTPStatus.NO_CONTENT),
    Route("POST", f"{_HOOK}/enable", "hooks.enable", "Enable a hook, and close its circuit"),
    Route("POST", f"{_HOOK}/disable", "hooks.disable", "Disable a hook"),
    Route("POST", f"{_HOOK}/execute", "hooks.execute", "Run a hook once, with a simulated event", body="required"),
    Route(
        "GET",
        "/agents",
        "agent.list",
        "Host processes of agents with state, load and speed",
        query=(*_PAGE, "type", "state"),
    ),
    Route("GET", "/agents/{host_id}", "agent.get", "A host process of agents with its history"),
    Route("GET", "/breakers", "breaker.list", "Circuit breakers of agent types that have seen a failure", query=_PAGE),
    Route("POST", "/breakers/{service}/reset", "breaker.reset", "Close a circuit breaker"),
    Route("GET", "/capacity", "capacity.get", "What runs, what waits, and how much more would start"),
    Route(
        "GET",
        "/statistics",
        "statistics.get",
        "How executions have gone, by pattern and by workflow",
        query=(*_PAGE, "workflow_id"),
    ),
    Route("GET", "/dead-letters", "dead_letter.list", "What could not be delivered, newest first", query=_PAGE),
    Route("GET", "/dead-letters/{letter_id}", "dead_letter.get", "A dead letter with the entry as it was written"),
    Route("POST", "/dead-letters/replay", "dead_letter.replay", "Send dead letters again", body="required"),
    Route("POST", "/dead-letters/purge", "dead_letter.purge", "Throw dead letters away", body="required"),
    Route("GET", "/audit", "audit.list", "Who did what, newest first", query=_PAGE),
)
