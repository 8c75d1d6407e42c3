"""Commands that run code, where there is no sandbox: what their Jobs are told, and what comes of them."""

import asyncio
import os
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from engine.agents.kubernetes.hook_jobs import HookJobLostError
from engine.contracts.hook_actions import HookAction
from engine.contracts.hook_jobs import HookJob, HookJobEnded
from engine.contracts.hooks import HookConfig
from engine.errors import EngineError
from engine.settings import Settings
from hooks.actions.command import CommandRunner, check_command
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.actions.runner import HookActions
from hooks.running import run_hook
from hooks.secrets import EnvironmentSecrets, SecretStore

SECRET = "s3cret-of-the-hook"
HOOK = UUID(int=7)


class FakeJobs:
    """Ends every Job as it was told to."""

    def __init__(self, *ends: HookJobEnded | EngineError) -> None:
        self._ends = list(ends)
        self.given: list[HookJob] = []

    async def run(self, job: HookJob) -> HookJobEnded:
        self.given.append(job)
        end = self._ends.pop(0)
        if isinstance(end, EngineError):
            raise end
        return end


def ended(exit_code: int | None = 0, reason: Any = None, output: bytes = b"1 passed\n") -> HookJobEnded:
    return HookJobEnded(exit_code, reason, output, False, 12)


async def run(jobs: FakeJobs, work_dir: Path, line: str, *args: str, **event: Any) -> ActionOutcome:
    settings = Settings.model_validate({"hooks_sandbox": "off", "hooks_unsandboxed_code": True})
    store = SecretStore([EnvironmentSecrets({"ORCHESTRATOR_HOOK_SECRET_TEAM__KEY": SECRET})])
    secrets = event.pop("secrets", {})
    action = HookAction(type="command", command=line, args=list(args), secrets=secrets)
    context = HookContext(
        tenant="team", trigger="post_task", subject="x", work_dir=work_dir, hook_id=HOOK, run_key="run/1", **event
    )
    runner = CommandRunner(settings, store, jobs=jobs)
    return await runner.run(check_command(action, settings), context, 9.0)


async def test_a_job_gets_checked_arguments_each_as_one(tmp_path: Path) -> None:
    jobs = FakeJobs(ended())
    outcome = await run(jobs, tmp_path, "pytest -q -k {values.which} tests", values={"which": "a and not b"})
    assert (outcome.status, outcome.output) == ("completed", "1 passed")
    (job,) = jobs.given
    assert job.argv[0] == "pytest"
    assert {"-q", "tests", "no:cacheprovider"} <= set(job.argv)
    assert any("a and not b" in argument for argument in job.argv)
    assert (job.tenant, job.key, job.hook, job.timeout_seconds) == ("team", "run/1", str(HOOK), 9.0)
    assert job.owner == (os.stat(tmp_path).st_uid, os.stat(tmp_path).st_gid)
    assert "PATH" not in job.environment, "the image knows where its programs are"
    assert job.environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] == "1"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["{values.up}"], "PATH_OUTSIDE_WORK_DIRECTORY"),
        (["{values.gone}"], "VALUE_MISSING"),
    ],
)
async def test_what_is_refused_elsewhere_makes_no_job(arguments: list[str], code: str, tmp_path: Path) -> None:
    jobs = FakeJobs()
    outcome = await run(jobs, tmp_path, "pytest", *arguments, values={"up": "../outside"})
    assert (outcome.error_code, outcome.refused, jobs.given) == (code, True, [])


async def test_secrets_are_apart_from_the_environment_and_taken_out_of_the_output(tmp_path: Path) -> None:
    jobs = FakeJobs(ended(1, output=f"it is {SECRET}".encode()))
    outcome = await run(jobs, tmp_path, "pytest", secrets={"API_KEY": "key"})
    (job,) = jobs.given
    assert job.secrets == {"API_KEY": SECRET}
    assert "API_KEY" not in job.environment
    assert (outcome.error_code, outcome.output) == ("EXIT_STATUS", "it is [secret:key]")


@pytest.mark.parametrize(
    ("reason", "code", "refused"),
    [("time", "TIMEOUT", False), ("memory", "MEMORY_EXCEEDED", True), ("disk", "DISK_EXCEEDED", True)],
)
async def test_what_a_job_was_stopped_for_has_the_same_codes_as_elsewhere(
    reason: str, code: str, refused: bool, tmp_path: Path
) -> None:
    outcome = await run(FakeJobs(ended(None, reason)), tmp_path, "pytest")
    assert (outcome.error_code, outcome.refused) == (code, refused)


async def test_only_commands_that_run_code_become_jobs(tmp_path: Path) -> None:
    jobs = FakeJobs()
    outcome = await run(jobs, tmp_path, "git rev-parse HEAD")
    assert jobs.given == []
    assert outcome.status == "failed", "it ran, and this is no repository"


async def test_each_repetition_is_a_job_of_its_own_and_a_takeover_begins_with_the_same(tmp_path: Path) -> None:
    hook = HookConfig.model_validate(
        {
            "hook_id": HOOK, "name": "tests", "trigger": "post_task",
            "action": {"type": "command", "command": "pytest"}, "retry_policy": {"max_attempts": 2},
            "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z",
        }
    )  # fmt: skip
    settings = Settings.model_validate({"hooks_sandbox": "off"})
    context = HookContext(tenant="team", trigger="post_task", subject="x", work_dir=tmp_path, run_key="the-run")

    async def no_rest(_: float) -> None:
        return None

    keys = []
    for _ in range(2):
        jobs = FakeJobs(HookJobLostError("its pod was lost"), ended())
        outcome, runs = await run_hook(HookActions(settings, jobs=jobs), hook, context, asyncio.Semaphore(1), no_rest)
        assert (outcome.status, runs) == ("completed", 2)
        keys.append([job.key for job in jobs.given])
    assert keys == [["the-run/1", "the-run/2"]] * 2


async def test_without_jobs_such_commands_are_refused_and_the_remedy_names_them(tmp_path: Path) -> None:
    settings = Settings.model_validate({"hooks_sandbox": "off"})
    context = HookContext(tenant="team", trigger="post_task", subject="x", work_dir=tmp_path)
    outcome = await HookActions(settings).run(HookAction(type="command", command="pytest"), context, 5.0)
    assert (outcome.error_code, outcome.refused) == ("SANDBOX_REQUIRED", True)
    assert "ORCHESTRATOR_HOOKS_JOB_IMAGE" in (outcome.error_message or "")
