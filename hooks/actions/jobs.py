"""Commands that run code, where there is no sandbox: each as a Job of its own, in a container made for it alone.

Which paths a command may name is checked here as ever; what it can reach when it runs is the container's affair, in
which there is no more than its working directory.
"""

from typing import Protocol

from engine.contracts.hook_jobs import HookJob, HookJobEnded
from hooks.sandbox.spec import Command, Ended


class HookJobs(Protocol):
    """Implemented by `engine.agents.kubernetes.hook_jobs`."""

    async def run(self, job: HookJob) -> HookJobEnded:
        """Raises EngineError when it could not run, or nobody knows how it ended. Cancelled, it leaves nothing."""
        ...


def job_of(
    command: Command,
    *,
    tenant: str,
    key: str,
    hook: str,
    secrets: dict[str, str],
    work_inside: str,
    owner: tuple[int, int],
) -> HookJob:
    """The command by its name: which program that is, and its PATH, are the image's."""
    environment = {name: value for name, value in command.environment.items() if name not in ("PATH", *secrets)}
    return HookJob(
        tenant=tenant,
        key=key,
        argv=command.argv,
        environment={**environment, "HOME": "/tmp"},  # noqa: S108 - the container's own
        timeout_seconds=command.limits.timeout_seconds,
        memory_bytes_max=command.limits.memory_bytes_max,
        disk_bytes_max=command.limits.written_bytes_max,
        output_bytes_max=command.limits.output_bytes_max,
        work_inside=work_inside,
        owner=owner,
        hook=hook,
        secrets=secrets,
    )


def ended_of(ended: HookJobEnded) -> Ended:
    """A container has one output."""
    return Ended(ended.exit_code, ended.reason, ended.output, b"", ended.truncated, ended.duration_ms)
