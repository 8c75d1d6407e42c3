"""Names of activities, so that workflows name them without importing them."""

from typing import Final

COMMIT_TICK: Final = "commit_tick"
READ_CONTROL: Final = "read_control"
LOAD_CHECKPOINT: Final = "load_checkpoint"
BIND_AGENTS: Final = "bind_agents"
ALLOCATE_AGENTS: Final = "allocate_agents"

WORKFLOW_TYPES: Final = {"supervisor": "SupervisorWorkflow"}
"""Temporal workflow type of each pattern that runs."""
