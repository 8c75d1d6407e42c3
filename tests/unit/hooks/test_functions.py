"""Functions by name: only what the operator registered, with limits of time and threads."""

import asyncio
import threading
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any
from uuid import uuid4

import pytest

from engine.contracts.hook_actions import HookAction
from engine.errors import InvalidHookActionError
from engine.settings import Settings
from hooks.actions.context import HookContext
from hooks.actions.functions import CheckedFunction, FunctionRegistry, installed_functions
from hooks.actions.outcome import ActionOutcome
from hooks.actions.runner import HookActions
from hooks.secrets import EnvironmentSecrets, SecretStore

CONTEXT = HookContext(tenant="team", trigger="post_task", subject="x", task_id="t1", execution_id=uuid4())
SECRETS = SecretStore([EnvironmentSecrets({"ORCHESTRATOR_HOOK_SECRET_TEAM__KEY": "s3cret-value"})])


def registry(functions: Mapping[str, Callable[..., Any]], **settings: Any) -> FunctionRegistry:
    loaders = {name: (lambda function=function: function) for name, function in functions.items()}
    return FunctionRegistry(Settings(_env_file=None, **settings), SECRETS, loaders)


async def call(
    function: Callable[..., Any], *args: str, timeout_seconds: float = 5.0, secrets: dict[str, str] | None = None
) -> ActionOutcome:
    functions = registry({"f": function})
    action = HookAction(type="function", function="f", args=list(args), secrets=secrets or {})
    return await functions.run(functions.check(action), CONTEXT, timeout_seconds)


async def test_a_function_gets_the_event_and_its_arguments_with_their_values() -> None:
    def function(context: HookContext, *args: str) -> Any:
        return {"task": context.task_id, "args": args}

    outcome = await call(function, "{task_id}!", "plain")
    assert (outcome.status, outcome.output) == ("completed", '{"task":"t1","args":["t1!","plain"]}')


async def test_a_coroutine_is_awaited_and_nothing_returned_is_no_output() -> None:
    async def function(context: HookContext) -> None:
        await asyncio.sleep(0)

    outcome = await call(function)
    assert (outcome.status, outcome.output, outcome.error_code) == ("completed", "", None)


async def test_a_callable_that_returns_a_coroutine_is_awaited() -> None:
    class Function:
        def __call__(self, context: HookContext) -> Any:
            async def later() -> str:
                return threading.current_thread().name

            return later()

    assert (await call(Function())).output == threading.current_thread().name


async def test_other_functions_do_not_hold_the_loop() -> None:
    outcome = await call(lambda context: threading.current_thread().name)
    assert outcome.output == "hook-function"


@pytest.mark.parametrize(
    "name", ["os.system", "os:system", "builtins.eval", "subprocess.run", "f ", "F", "../f", "f;g", "__import__", "g"]
)
def test_what_is_not_registered_is_refused(name: str) -> None:
    functions = registry({"f": print, "h": print}, hooks_functions=("f", "missing"))
    with pytest.raises(InvalidHookActionError) as refused:
        functions.check(HookAction(type="function", function=name))
    assert refused.value.data["reason"] == "FUNCTION_NOT_REGISTERED"
    assert "registered are f;" in refused.value.data["remedy"]


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        (HookAction(type="function"), "COMMAND_MISSING"),
        (HookAction(type="function", function="f", command="ruff"), "COMMAND_MISSING"),
        (HookAction(type="command", command="ruff"), "COMMAND_MISSING"),
        (HookAction(type="function", function="f\x1b[2J"), "CONTROL_CHARACTER"),
        (HookAction(type="function", function="f", args=["{nobody}"]), "PLACEHOLDER_UNKNOWN"),
        (HookAction(type="function", function="f", args=["{secret:key}"]), "SECRET_MISPLACED"),
        (HookAction(type="function", function="f", args=["a\nb"]), "CONTROL_CHARACTER"),
    ],
)
def test_an_action_that_is_none_is_refused(action: HookAction, reason: str) -> None:
    with pytest.raises(InvalidHookActionError) as refused:
        registry({"f": print}).check(action)
    assert refused.value.data["reason"] == reason


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ValueError("wrong"), "ValueError: wrong"),
        (SystemExit(0), "RuntimeError: SystemExit(0)"),
        (KeyboardInterrupt(), "RuntimeError: KeyboardInterrupt()"),
        (StopIteration("x"), "RuntimeError: StopIteration: x"),
    ],
)
async def test_a_function_that_raises_fails(error: BaseException, text: str) -> None:
    def function(context: HookContext) -> None:
        raise error

    outcome = await call(function)
    assert (outcome.status, outcome.error_code, outcome.error_message) == ("failed", "FUNCTION_FAILED", f"f: {text}")
    assert outcome.retryable


async def test_what_cannot_be_said_in_json_fails() -> None:
    for value in ({1, 2}, float("nan"), object()):
        assert (await call(lambda context, value=value: value)).error_code == "FUNCTION_FAILED"


async def test_a_slow_coroutine_is_cancelled_in_time() -> None:
    cancelled = asyncio.Event()

    async def function(context: HookContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    outcome = await call(function, timeout_seconds=0.05)
    assert (outcome.status, outcome.error_code) == ("timeout", "TIMEOUT")
    assert cancelled.is_set()


async def test_a_thread_that_hangs_keeps_its_place_and_others_are_refused_until_it_returns() -> None:
    release = threading.Event()
    functions = registry(
        {"hang": lambda context: release.wait(30), "f": lambda context: "fine"}, hooks_function_threads=1
    )
    hang = functions.check(HookAction(type="function", function="hang"))
    quick = functions.check(HookAction(type="function", function="f"))
    assert (await functions.run(quick, CONTEXT, 5.0)).output == "fine"
    assert await _until(functions, hang, "timeout", timeout_seconds=0.05)
    outcome = await functions.run(quick, CONTEXT, 5.0)
    assert (outcome.status, outcome.error_code) == ("failed", "FUNCTION_FAILED")
    assert "all threads for functions are busy" in (outcome.error_message or "")
    release.set()
    assert await _until(functions, quick, "completed", timeout_seconds=5.0)
    await functions.close()
    assert (await functions.run(quick, CONTEXT, 5.0)).status == "failed"


async def _until(functions: FunctionRegistry, checked: CheckedFunction, status: str, timeout_seconds: float) -> bool:
    """A thread that is done gives its place back a moment later than its result."""
    for _ in range(1000):
        if (await functions.run(checked, CONTEXT, timeout_seconds)).status == status:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_secrets_are_given_by_name_and_taken_out_of_what_comes_back() -> None:
    def function(context: HookContext, *args: str, secrets: Mapping[str, str]) -> str:
        return f"used {secrets['API_TOKEN']}"

    outcome = await call(function, secrets={"API_TOKEN": "key"})
    assert outcome.output == "used [secret:key]"

    def raising(context: HookContext, *, secrets: Mapping[str, str]) -> str:
        raise ValueError(f"refused: {secrets['API_TOKEN']}")

    outcome = await call(raising, secrets={"API_TOKEN": "key"})
    assert outcome.error_message == "f: ValueError: refused: [secret:key]"
    outcome = await call(function, secrets={"API_TOKEN": "none"})
    assert (outcome.error_code, outcome.refused, outcome.retryable) == ("VALUE_MISSING", True, False)


async def test_a_long_answer_is_cut_and_control_characters_go() -> None:
    functions = registry({"f": lambda context: "\x1b[31mx\0" + "y" * 5000}, hooks_output_bytes_max=1024)
    outcome = await functions.run(functions.check(HookAction(type="function", function="f")), CONTEXT, 5.0)
    assert outcome.output_truncated
    assert outcome.output.startswith("xyyy")
    assert len(outcome.output) < 1024


def test_entry_points_are_the_registry_and_of_two_with_one_name_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    group = "orchestrator.hooks"
    points = [
        metadata.EntryPoint("one", "json:dumps", group),
        metadata.EntryPoint("two", "json:dumps", group),
        metadata.EntryPoint("two", "json:loads", group),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda group: points)
    found = installed_functions()
    assert list(found) == ["one"]
    assert found["one"]().__name__ == "dumps"


async def test_the_one_door_runs_functions_and_says_which_there_are() -> None:
    settings = Settings(_env_file=None)
    actions = HookActions(settings, functions=registry({"f": lambda context, word: word}))
    action = HookAction(type="function", function="f", args=["{task_id}"])
    actions.check(action)
    assert actions.functions.names() == ("f",)
    assert (await actions.run(action, CONTEXT, 5.0)).output == "t1"
    await actions.close()
