"""What Temporal's history of an execution holds, all its runs together."""

from typing import Final

from temporalio.client import Client

RUNS_MAX: Final = 10_000


async def history_events(client: Client, workflow_id: str) -> tuple[int, int]:
    """(events, runs). Continue-as-new makes a chain of runs, in which each one's last event names the next."""
    description = await client.get_workflow_handle(workflow_id).describe()
    info = description.raw_description.workflow_execution_info
    run_id = info.first_run_id or info.execution.run_id
    events = 0
    for run in range(1, RUNS_MAX + 1):
        history = await client.get_workflow_handle(workflow_id, run_id=run_id).fetch_history()
        events += len(history.events)
        run_id = history.events[-1].workflow_execution_continued_as_new_event_attributes.new_execution_run_id
        if not run_id:
            return events, run
    raise ValueError(f"{workflow_id} has more than {RUNS_MAX} runs")
