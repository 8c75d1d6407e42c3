"""Commands: checked against the tables when a hook is registered and again when it runs, then run in the sandbox.

There is no shell anywhere. What a client wrote is taken apart once, with its placeholders still in it; values only
ever fill the places they were given, are checked there, and are written down in one canonical form.
"""

import asyncio
import os
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from engine.contracts.hook_actions import HookAction
from engine.errors import EngineError, InvalidHookActionError
from engine.settings import Settings
from hooks.actions import http
from hooks.actions.context import HookContext
from hooks.actions.jobs import HookJobs, ended_of, job_of
from hooks.actions.outcome import ActionOutcome
from hooks.actions.paths import check_inside, refuse_links_outwards, relative_to_work_dir, resolve_work_dir
from hooks.actions.placeholders import check_placeholders, fill, has_placeholder, secret_ids
from hooks.actions.refusal import refused
from hooks.actions.repository import check_repository, refuse_nested_repositories
from hooks.actions.results import failed, from_ended, refusal_outcome
from hooks.actions.tables import curl, git, pytest, ruff
from hooks.actions.tables.grammar import Argument, CommandTable, Grammar, Kind, Parsed, check_value, parse
from hooks.actions.words import check_text, split_words
from hooks.sandbox.launch import Sandbox
from hooks.sandbox.probe import SandboxProbe
from hooks.sandbox.spec import WORK_INSIDE, Command, Ended, Limits
from hooks.secrets import SecretStore, SecretValues

TABLES: Final[Mapping[str, CommandTable]] = {
    table.program: table for table in (ruff.TABLE, pytest.TABLE, git.TABLE, curl.TABLE)
}
SYSTEM_PATH: Final = ("/usr/local/bin", "/usr/bin", "/bin")
BASE_ENVIRONMENT: Final = {
    "HOME": "/tmp/home",  # noqa: S108 - in the sandbox; elsewhere it is replaced
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "TZ": "UTC",
}
SECRET_NAME_ENDINGS: Final = ("_TOKEN", "_KEY", "_SECRET", "_PASSWORD", "_URL", "_CREDENTIALS", "_DSN")
RESERVED_PREFIXES: Final = ("BASH_", "CURL_", "DYLD_", "GIT_", "GLIBC_", "LD_", "MALLOC_", "PYTEST_", "PYTHON", "RUFF_")
TIMEOUT_SECONDS_MIN: Final = 0.05


@dataclass(frozen=True, slots=True)
class CheckedCommand:
    """An action that passed `check_command`. Values of placeholders are checked when it runs."""

    table: CommandTable
    grammar: Grammar
    parsed: Parsed
    secrets: Mapping[str, str]
    """Environment variables and the ids of their secrets."""
    request: http.RequestTemplate | None = None
    """Of curl: what is to be asked for."""

    @property
    def program(self) -> str:
        return self.table.program


def check_command(action: HookAction, settings: Settings) -> CheckedCommand:
    """Raises InvalidHookActionError with `reason`, `field` and `remedy`."""
    if action.type != "command" or action.command is None or action.function is not None:
        raise refused("COMMAND_MISSING", "action.command", "is missing, or a function is named too", "name one command")
    words = split_words(action.command)
    if not words:
        raise refused("COMMAND_MISSING", "action.command", "is empty", "name a command")
    name, table = words[0], TABLES.get(words[0])
    if table is None or name not in settings.hooks_commands:
        allowed = ", ".join(sorted(set(TABLES) & set(settings.hooks_commands))) or "none"
        raise refused(
            "COMMAND_NOT_ALLOWED", "action.command", f"{name[:50]!r} may not be run", f"allowed by name: {allowed}"
        )
    is_curl = table is curl.TABLE
    arguments = [*words[1:], *action.args]
    for index, argument in enumerate(arguments):
        check_text(argument, f"action.args[{index}]")
        check_placeholders(argument, f"action.args[{index}]", secrets_allowed=is_curl)
    _check_secret_names(action.secrets)
    grammar, parsed = parse(table, arguments, "action.args")
    request = http.request_template(parsed) if is_curl else None
    if is_curl and action.secrets:
        raise refused(
            "SECRET_MISPLACED", "action.secrets", "curl has no environment", "use {secret:id} in a header or the body"
        )
    return CheckedCommand(table, grammar, parsed, dict(action.secrets), request)


def _check_secret_names(secrets: Mapping[str, str]) -> None:
    for name in secrets:
        if not name.endswith(SECRET_NAME_ENDINGS) or name.startswith(RESERVED_PREFIXES):
            raise refused(
                "ENVIRONMENT_NAME_RESERVED",
                f"action.secrets.{name}",
                "could change how a program works",
                f"use a name that ends with {', '.join(SECRET_NAME_ENDINGS)}",
            )


class CommandRunner:
    """Runs checked commands. One for a process: it finds the sandbox once."""

    def __init__(
        self,
        settings: Settings,
        secrets: SecretStore,
        *,
        probe: SandboxProbe | None = None,
        resolve: http.Resolve = http.resolve_by_system,
        jobs: HookJobs | None = None,
    ) -> None:
        self._settings = settings
        self._secrets = secrets
        self._probe = probe or SandboxProbe(settings.hooks_sandbox)
        self._resolve = resolve
        self._jobs = jobs

    async def run(self, checked: CheckedCommand, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        """Never raises but on cancellation; then nothing of the command is left."""
        started_at = time.monotonic()
        timeout_seconds = max(TIMEOUT_SECONDS_MIN, min(timeout_seconds, self._settings.hooks_timeout_seconds_max))
        values = SecretValues({})
        try:
            async with asyncio.timeout(timeout_seconds + 2 * TIMEOUT_SECONDS_MIN):
                sandbox = await self._probe.sandbox()
                values = (
                    await self._secrets.values(context.tenant, _secret_ids(checked)) if _secret_ids(checked) else values
                )
            if checked.request is not None:
                return await self._run_curl(checked.request, context, values, sandbox, timeout_seconds)
            if self._jobs is not None and checked.table.runs_code and not sandbox.isolates:
                job = await self._run_job(self._jobs, checked, context, values, timeout_seconds)
                return from_ended(job, checked.program, values)
            command = await self._command(checked, context, values, sandbox, timeout_seconds)
            ended = await sandbox.run(command)
            return from_ended(ended, checked.program, values)
        except InvalidHookActionError as error:
            return refusal_outcome(error, values, started_at)
        except EngineError as error:
            return failed(error.code, error.message, values, started_at)
        except TimeoutError:
            return failed("TIMEOUT", "secrets or the sandbox did not answer in time", values, started_at, "timeout")
        except OSError as error:  # such as a working directory that is removed while it is looked at
            return failed("SYSTEM_ERROR", f"{type(error).__name__}: {error.strerror}", values, started_at)

    async def _command(
        self, checked: CheckedCommand, context: HookContext, values: SecretValues, sandbox: Sandbox, timeout: float
    ) -> Command:
        program = find_program(checked.program, self._settings)
        if checked.table.runs_code and not sandbox.isolates and not self._settings.hooks_unsandboxed_code:
            raise refused(
                "SANDBOX_REQUIRED",
                "action.command",
                f"{checked.program} runs code, and there is no sandbox here",
                "make user namespaces or bubblewrap available, or let the operator set "
                "ORCHESTRATOR_HOOKS_JOB_IMAGE (each runs as a Kubernetes Job) or ORCHESTRATOR_HOOKS_UNSANDBOXED_CODE",
            )
        return await self._filled(checked, program, context, values, sandbox.isolates, timeout)

    async def _run_job(
        self, jobs: HookJobs, checked: CheckedCommand, context: HookContext, values: SecretValues, timeout: float
    ) -> Ended:
        """In a container there is nothing but the working directory, so that links lead nowhere else."""
        command = await self._filled(checked, Path(checked.program), context, values, True, timeout)
        found = await asyncio.to_thread(os.stat, command.work_dir or os.curdir)
        job = job_of(
            command,
            tenant=context.tenant,
            key=context.run_key or uuid4().hex,
            hook=str(context.hook_id or ""),
            secrets={name: values[secret] for name, secret in checked.secrets.items()},
            work_inside=WORK_INSIDE,
            owner=(found.st_uid, found.st_gid),
        )
        return ended_of(await jobs.run(job))

    async def _filled(
        self,
        checked: CheckedCommand,
        program: Path,
        context: HookContext,
        values: SecretValues,
        isolated: bool,
        timeout: float,
    ) -> Command:
        work_dir, arguments, masks = await asyncio.to_thread(_prepare, checked, context, isolated)
        plugins = self._settings.hooks_pytest_plugins if checked.table is pytest.TABLE else ()
        forced = [argument for plugin in plugins for argument in ("-p", plugin)]
        environment = {**BASE_ENVIRONMENT, **checked.table.environment}
        if not isolated and checked.table is ruff.TABLE:
            # A configuration of the working directory could name files outside of it.
            forced.append("--isolated")
        subcommand = [checked.parsed.subcommand] if checked.parsed.subcommand else []
        return Command(
            program=program,
            argv=(checked.program, *subcommand, *checked.grammar.forced, *forced, *arguments),
            environment={**environment, **{name: values[secret] for name, secret in checked.secrets.items()}},
            work_dir=work_dir,
            limits=limits_of(self._settings, timeout),
            masks=masks,
        )

    async def _run_curl(
        self,
        request: http.RequestTemplate,
        context: HookContext,
        values: SecretValues,
        sandbox: Sandbox,
        timeout_seconds: float,
    ) -> ActionOutcome:
        action = http.HttpAction(
            program=find_program("curl", self._settings),
            sandbox=sandbox,
            policy=http.policy_of(self._settings),
            resolve=self._resolve,
            limits=limits_of(self._settings, timeout_seconds),
            environment=BASE_ENVIRONMENT,
        )
        return await action.run(request, context, values)


def limits_of(settings: Settings, timeout_seconds: float) -> Limits:
    return Limits(
        timeout_seconds=timeout_seconds,
        memory_bytes_max=settings.hooks_memory_bytes_max,
        processes_max=settings.hooks_processes_max,
        file_bytes_max=settings.hooks_file_bytes_max,
        written_bytes_max=settings.hooks_written_bytes_max,
        output_bytes_max=settings.hooks_output_bytes_max,
        output_read_bytes_max=settings.hooks_output_read_bytes_max,
    )


def find_program(name: str, settings: Settings) -> Path:
    """From the operator's directories only: never from a working directory or the caller's environment."""
    path = settings.hooks_command_path or (str(Path(sys.executable).parent), *SYSTEM_PATH)
    absolute = [directory for directory in path if os.path.isabs(directory)]
    found = shutil.which(name, path=os.pathsep.join(absolute))
    if found is None:
        raise refused(
            "COMMAND_NOT_ALLOWED", "action.command", f"{name} is not installed", "let the operator install it"
        )
    return Path(found)


def _secret_ids(checked: CheckedCommand) -> set[str]:
    written = (argument.value for argument in checked.parsed.arguments if argument.value is not None)
    return set(checked.secrets.values()) | {found for value in written for found in secret_ids(value)}


def _prepare(
    checked: CheckedCommand, context: HookContext, isolated: bool
) -> tuple[Path, list[str], Mapping[str, bytes]]:
    """Fill the places, look where paths lead, see what the repository is: all that touches the file system."""
    work_dir = resolve_work_dir(context.work_dir)
    given = context.work_dir or work_dir
    flags: list[str] = []
    before: list[str] = []
    behind: list[str] = []
    separator_at = checked.parsed.separator_at
    for index, argument in enumerate(checked.parsed.arguments):
        value = _filled(argument, context, work_dir, given)
        is_behind = separator_at is not None and index >= separator_at
        (flags if argument.flag else behind if is_behind else before).extend(argument.written(value))
    masks: Mapping[str, bytes] = {}
    if checked.table is git.TABLE:
        masks = check_repository(work_dir, isolated=isolated)
        # The others are told not to look into them, which a sandbox does not have to take for granted.
        if checked.parsed.subcommand == "add" or not isolated:
            refuse_nested_repositories(work_dir)
    if not isolated:
        refuse_links_outwards(work_dir)
    if not before and not behind:
        before = list(checked.grammar.positional_default)
    return work_dir, [*flags, *_positional(checked.grammar, before, behind)], masks


def _positional(grammar: Grammar, before: list[str], behind: list[str]) -> list[str]:
    """Behind `--` a program reads paths only, and before it, where both are possible, revisions only."""
    if grammar.after_separator is not None:
        return [*before, "--", *behind]
    positional = [*before, *behind]
    is_path: Kind | None = grammar.positional
    return ["--", *positional] if is_path is not None and is_path.name == "path" and positional else positional


def _filled(argument: Argument, context: HookContext, work_dir: Path, given: Path) -> str | None:
    if argument.value is None or argument.kind is None:
        return argument.value
    value = argument.value
    if has_placeholder(value):
        value = fill(value, context, argument.field)
        if argument.kind.is_path:
            value = relative_to_work_dir(value, work_dir, given, argument.field)
        check_value(value, argument.kind, argument.field)
    if argument.kind.is_path:
        value = relative_to_work_dir(value, work_dir, given, argument.field)
        check_inside(value.partition("::")[0], work_dir, argument.field)
    return value
