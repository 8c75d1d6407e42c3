"""What an agent's function gets, and how it says that it failed."""

import threading
from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any


class TaskFailed(Exception):
    """Raise it to end the attempt as failed, with a code of your own.

    `retryable=False` (the default: you know why it failed) tells the engine not to try again. Any other exception
    counts as retryable and is reported with the code AGENT_ERROR.
    """

    def __init__(self, message: str, *, code: str = "TASK_FAILED", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.retryable = retryable


class NeverHappened(TaskFailed):
    """Raise it in a compensation when there is nothing to undo: that counts as undone."""

    def __init__(self, message: str = "there is nothing to undo") -> None:
        super().__init__(message, code="NEVER_HAPPENED")


@dataclass(frozen=True)
class Compensates:
    """What a compensation is to undo."""

    task_id: str
    key: str
    """The same however often it is tried: what was undone under this key is not undone again."""
    result: Any = None
    """What the step returned, if it completed."""
    certain: bool = True
    """False: nobody knows whether the step was done; undo what is there of it, or raise `NeverHappened`."""


@dataclass(frozen=True)
class Spawned:
    """Return it to add tasks to the execution along with the result.

    `tasks` are objects as in a definition's `tasks`; `blocks` in one lists tasks of the execution that have not
    started and that shall wait for it, too. At most 1,000 tasks and 128 KiB as JSON; else the attempt fails. What is
    added counts when the result does: never twice, and not at all when the attempt fails.
    """

    result: Any = None
    tasks: Sequence[dict[str, Any]] = ()


class _Nothing(Awaitable[None]):
    """Awaiting it does nothing, and so does not awaiting it: `progress` serves both kinds of function."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        return
        yield


_NOTHING = _Nothing()


class Task:
    """One attempt of a task. `input` is the task's own, `execution_input` the whole execution's."""

    __slots__ = (
        "_cancel_event",
        "_cancel_requested",
        "_report",
        "action",
        "agent_id",
        "attempt",
        "compensates",
        "context",
        "epoch",
        "execution_id",
        "execution_input",
        "input",
        "results",
        "role",
        "spawned",
        "task_id",
        "timeout_seconds",
        "trace_id",
        "workflow_id",
    )

    def __init__(
        self,
        *,
        task_id: str,
        agent_id: str,
        action: str,
        execution_id: str,
        report: Callable[[float], None],
        role: str = "",
        input: dict[str, Any] | None = None,
        execution_input: dict[str, Any] | None = None,
        results: dict[str, Any] | None = None,
        attempt: int = 1,
        epoch: int = 1,
        workflow_id: str = "",
        trace_id: str = "",
        timeout_seconds: float | None = None,
        context: Any = None,
        compensates: Compensates | None = None,
    ) -> None:
        self.task_id = task_id
        self.agent_id = agent_id
        self.role = role
        self.action = action
        self.input: dict[str, Any] = {} if input is None else input
        self.execution_input: dict[str, Any] = {} if execution_input is None else execution_input
        self.results: dict[str, Any] = {} if results is None else results
        """Results of the direct dependencies, by task id."""
        self.context = context
        """What the coordination pattern tells: feedback, what others have said so far; see its page."""
        self.compensates = compensates
        """Set when the task undoes another one; `action` is then that one's compensation, `input` that one's input."""
        self.attempt = attempt
        """From 1; it rises whenever the task is handed out anew."""
        self.epoch = epoch
        self.execution_id = execution_id
        self.workflow_id = workflow_id
        self.trace_id = trace_id
        self.timeout_seconds = timeout_seconds
        self.spawned: list[dict[str, Any]] = []
        self._report = report
        self._cancel_requested = False
        self._cancel_event: threading.Event | None = None

    def progress(self, fraction: float) -> Awaitable[None]:
        """Report progress from 0.0 to 1.0. Callable from threads; a coroutine may await it. Sent at most 4 times a
        second, the last value wins."""
        self._report(min(1.0, max(0.0, float(fraction))))
        return _NOTHING

    def spawn(self, *tasks: dict[str, Any]) -> None:
        """Add tasks to the execution when this attempt completes; see `Spawned`, which does the same."""
        self.spawned.extend(tasks)

    @property
    def cancelled(self) -> threading.Event:
        """Set once the attempt no longer counts. Plain functions should look at it from time to time and return;
        coroutines are cancelled the usual way as well."""
        if self._cancel_event is None:
            self._cancel_event = threading.Event()
        # Looked at after the event is in place: `cancel` writes in the opposite order, so that neither misses.
        if self._cancel_requested:
            self._cancel_event.set()
        return self._cancel_event

    def cancel(self) -> None:
        """Called by the host."""
        self._cancel_requested = True
        if self._cancel_event is not None:
            self._cancel_event.set()

    def __repr__(self) -> str:
        return f"<Task {self.task_id} attempt {self.attempt} of {self.execution_id} as {self.agent_id}>"
