"""An agent whose result is as large as its task asks for."""

from orchestration_agent import Task


async def run(task: Task) -> str:
    """As many characters as the input's `bytes` says, on the first attempt; on later ones a few."""
    return "x" * (task.input.get("bytes", 0) if task.attempt == 1 else 1)
