"""Write agents for the orchestration engine.

    from orchestration_agent import Task, run_host

    async def work(task: Task) -> dict[str, int]:
        await task.progress(0.5)
        return {"answer": task.input["n"] * 2}

    if __name__ == "__main__":
        run_host(work, types=("doubler",))

The engine hands out tasks over Redis Streams (`docs/agent-protocol.md`); this package speaks that protocol. It
imports nothing of the engine.
"""

from orchestration_agent.host import AgentHost, HostOptions
from orchestration_agent.process import run_host
from orchestration_agent.task import Compensates, NeverHappened, Spawned, Task, TaskFailed

__all__ = ["AgentHost", "Compensates", "HostOptions", "NeverHappened", "Spawned", "Task", "TaskFailed", "run_host"]
