"""The engine's fixed limits. Operators may lower or raise most of them in `engine.settings`.

They stand here, below everything, because models, planner, kernel and gateway all check against them.
"""

from typing import Final

TASKS_MAX: Final = 10_000
"""Tasks in one definition."""

AGENTS_MAX: Final = 10_000
"""Logical agent instances in one definition (the sum of `count` over its roles)."""

REQUEST_BYTES_MAX: Final = 2 * 1024 * 1024
"""Body of one HTTP request."""

BATCH_REQUESTS_MAX: Final = 100
"""Calls in one JSON-RPC batch."""

TASKS_DYNAMIC_MAX: Final = 10_000
"""Tasks that one execution may add while it runs: elements of `for_each`, spawned ones, and those of patterns."""

NOTE_BYTES_MAX: Final = 64 * 1024
"""What a pattern may send with a task's attempts."""

SPAWN_TASKS_MAX: Final = 1_000
"""Tasks that one result may add."""

SPAWN_BYTES_MAX: Final = 128 * 1024
"""What one result may add, as JSON."""

CHAIN_MAX: Final = 100
"""Tasks of a fused chain that go out as one assignment."""

TRIGGERS_MAX: Final = 20
"""Triggers of one task."""

EXPRESSION_LENGTH_MAX: Final = 2_000
EXPRESSION_STEPS_MAX: Final = 100_000
"""Steps of one evaluation; afterwards it is refused with EXPRESSION_TOO_LONG."""

EXTERNAL_EVENT_BYTES_MAX: Final = 64 * 1024
EXTERNAL_EVENTS_WAITING_MAX: Final = 1_000
"""External events that an execution keeps for triggers that are not waiting yet; older ones are dropped."""

EXTERNAL_EVENTS_REMEMBERED_MAX: Final = 2_000
"""Ids by which repetitions of external events are known."""

EVALUATIONS_MAX: Final = 500
"""Tasks, and events, that one activity evaluates."""

NAME_LENGTH_MAX: Final = 255
EVENT_NAME_PATTERN: Final = r"^[a-zA-Z0-9_.:-]+$"
VERSION_LENGTH_MAX: Final = 50
NAME_PATTERN: Final = r"^[a-zA-Z0-9_-]+$"
TASK_ID_PATTERN: Final = r"^[a-zA-Z0-9_-]+(\[[0-9]{1,6}\])?$"
VERSION_PATTERN: Final = r"^[a-zA-Z0-9][a-zA-Z0-9._+-]*$"
TENANT_PATTERN: Final = r"^[a-z0-9][a-z0-9-]{0,62}$"

PAGE_SIZE_DEFAULT: Final = 100
PAGE_SIZE_MAX: Final = 1_000

ATTEMPTS_DEFAULT: Final = 4
"""Attempts of a task: the first and retries after 1, 2 and 4 s."""

ATTEMPTS_MAX: Final = 100
RETRY_DELAY_MAX_SECONDS: Final = 60.0
TASK_TIMEOUT_DEFAULT_SECONDS: Final = 300
TASK_TIMEOUT_MAX_SECONDS: Final = 7 * 24 * 3600
EXECUTION_TIMEOUT_DEFAULT_SECONDS: Final = 3600
EXECUTION_TIMEOUT_MAX_SECONDS: Final = 30 * 24 * 3600
CHECKPOINT_INTERVAL_DEFAULT_SECONDS: Final = 300

TASK_LOSSES_MAX: Final = 5
"""Times a task may lose its agent before it fails: a task that kills its agents must not do so for ever."""

PLAN_INLINE_BYTES_MAX: Final = 16 * 1024
"""A plan whose JSON is above this travels to workflows by reference."""

CARRY_INLINE_BYTES_MAX: Final = 1024 * 1024
"""What a run hands to the next one goes by reference above this, compressed."""

RESULT_INLINE_BYTES_MAX: Final = 4 * 1024
"""A task's result above this travels to workflows by reference."""

RESULT_BYTES_MAX: Final = 8 * 1024 * 1024
"""A task's result above this is refused: the attempt fails with RESULT_TOO_LARGE."""

SIGNAL_BYTES_MAX: Final = 256 * 1024
SIGNALS_UNCOVERED_MAX: Final = 16
SIGNALS_UNCOVERED_BYTES_MAX: Final = 1024 * 1024

ERROR_MESSAGE_LENGTH_MAX: Final = 2_000
