"""An agent whose result is as large as its task asks for."""

from orchestration_agent import Task


async def run(task: Task) -> str | list[int]:
    """A list of `elements`, or as many characters as `bytes` says."""
    elements: int | None = task.input.get("elements")
    if elements is not None:
        return [0] * elements
    return "x" * int(task.input.get("bytes", 1))
