"""Names of activities, so that workflows name them without importing them."""

from typing import Final

BEGIN_EXECUTION: Final = "begin_execution"
"""Binds agents whose hosts are there and commits the first ticks."""
COMMIT_TICK: Final = "commit_tick"
COMMIT_TICK_PATIENTLY: Final = "commit_tick_patiently"
"""The same as a regular activity, perhaps in another process: for ticks that the local one cannot commit."""
READ_CONTROL: Final = "read_control"
LOAD_CHECKPOINT: Final = "load_checkpoint"
EVALUATE_TASKS: Final = "evaluate_tasks"
BIND_AGENTS: Final = "bind_agents"
ALLOCATE_AGENTS: Final = "allocate_agents"
ASK_HOOKS: Final = "ask_hooks"
"""Runs the blocking hooks before something; hook workers serve it, on a queue of their own."""
HOOKS_QUEUE: Final = "-hooks"
JUDGE: Final = "judge"
COMPENSATE: Final = "compensate"
"""Has one step of an execution undone by an agent of its role."""
NEXT_RETRY: Final = "next_compensation_retry"
SETTLE_RETRY: Final = "settle_compensation_retry"
COMPENSATION_WORKFLOW: Final = "CompensationWorkflow"
"""Retries what an operator asks for, after the execution was closed."""
READ_PROGRAM_CONTEXT: Final = "read_program_context"
"""Input and results, for a program of the coordination language that names them."""
READ_EVENT: Final = "read_event"

WORKFLOW_TYPES: Final = {
    "supervisor": "SupervisorWorkflow",
    "hierarchical": "HierarchicalWorkflow",
    "swarm": "SwarmWorkflow",
    "network": "NetworkWorkflow",
    "saga": "SagaWorkflow",
    "custom": "CustomWorkflow",
    "handoff": "HandoffWorkflow",
}
"""Temporal workflow type of each pattern that runs."""
