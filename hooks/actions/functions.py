"""Functions that the operator registered by name as entry points of the group `orchestrator.hooks`.

A client names a function, never where it is: nothing is imported that the operator did not install and name. A
function takes the context and the arguments, and returns text or anything that JSON can say:

    def notify(context: HookContext, *args: str) -> str | Mapping[str, Any] | None
    async def review(context: HookContext, *args: str) -> ...

Coroutines are awaited and cancelled when their time is over. Others run in threads, which nobody can stop: one that
does not return keeps its thread, and when all are kept, further calls are refused until some come back.
"""

import asyncio
import contextvars
import inspect
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Any, Final

from engine.contracts.hook_actions import HookAction
from engine.errors import InvalidHookActionError
from engine.observability.log import get_logger
from engine.settings import Settings
from hooks.actions.context import HookContext
from hooks.actions.outcome import ActionOutcome
from hooks.actions.placeholders import check_placeholders, fill
from hooks.actions.refusal import refused
from hooks.actions.results import failed, readable, refusal_outcome
from hooks.actions.words import check_text
from hooks.secrets import SecretStore, SecretValues

ENTRY_POINT_GROUP: Final = "orchestrator.hooks"
NAME_LENGTH_MAX: Final = 255

HookFunction = Callable[..., Any]

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CheckedFunction:
    """An action that passed `FunctionRegistry.check`."""

    name: str
    arguments: tuple[str, ...]
    secrets: Mapping[str, str]


class FunctionRegistry:
    """Which functions there are, and how they are run. Modules are imported when a function is first called."""

    def __init__(
        self,
        settings: Settings,
        secrets: SecretStore,
        functions: Mapping[str, Callable[[], HookFunction]] | None = None,
    ) -> None:
        """`functions` maps names to what loads them; the installed entry points when absent."""
        self._settings = settings
        self._secrets = secrets
        self._loaders = dict(installed_functions() if functions is None else functions)
        self._loaded: dict[str, HookFunction] = {}
        self._threads = _Threads(settings.hooks_function_threads)

    def names(self) -> tuple[str, ...]:
        """Those that hooks may call."""
        permitted = self._settings.hooks_functions
        return tuple(sorted(name for name in self._loaders if not permitted or name in permitted))

    def check(self, action: HookAction) -> CheckedFunction:
        """Raises InvalidHookActionError with `reason`, `field` and `remedy`."""
        if action.type != "function" or action.function is None or action.command is not None:
            raise refused("COMMAND_MISSING", "action.function", "is missing, or a command is named too", "name one")
        if action.function not in self.names():
            raise refused(
                "FUNCTION_NOT_REGISTERED",
                "action.function",
                f"{check_text(action.function, 'action.function')[:100]!r} is not registered",
                f"registered are {', '.join(self.names()) or 'none'}; functions are registered by the operator",
            )
        for index, argument in enumerate(action.args):
            check_text(argument, f"action.args[{index}]")
            check_placeholders(argument, f"action.args[{index}]")
        return CheckedFunction(action.function, tuple(action.args), dict(action.secrets))

    async def run(self, checked: CheckedFunction, context: HookContext, timeout_seconds: float) -> ActionOutcome:
        """Never raises but on cancellation."""
        started_at = time.monotonic()
        timeout_seconds = min(timeout_seconds, self._settings.hooks_timeout_seconds_max)
        values = SecretValues({})
        try:
            async with asyncio.timeout(timeout_seconds):
                if checked.secrets:
                    values = await self._secrets.values(context.tenant, checked.secrets.values())
                named = {name: values[secret_id] for name, secret_id in checked.secrets.items()}
                arguments = [fill(text, context, f"action.args[{i}]") for i, text in enumerate(checked.arguments)]
                result = await self._call(checked.name, context, arguments, named)
                return self._completed(result, values, started_at)
        except InvalidHookActionError as error:
            return refusal_outcome(error, values, started_at)
        except TimeoutError:
            message = f"{checked.name} took longer than {timeout_seconds:g} s"
            return failed("TIMEOUT", message, values, started_at, "timeout")
        except Exception as error:
            # The operator's code ends here whatever it raises; only the type is logged, since texts may hold secrets.
            log.warning("hook.function_failed", function=checked.name, error=type(error).__name__)
            return failed("FUNCTION_FAILED", f"{checked.name}: {type(error).__name__}: {error}", values, started_at)

    async def close(self) -> None:
        """Take no more calls. Threads that still run end with the process."""
        self._threads.close()

    async def _call(self, name: str, context: HookContext, arguments: list[str], secrets: Mapping[str, str]) -> Any:
        function = self._loaded.get(name)
        if function is None:
            function = self._loaded[name] = await self._threads.run(self._loaders[name])
        keywords = {"secrets": secrets} if secrets else {}
        if inspect.iscoroutinefunction(function):
            return await function(context, *arguments, **keywords)
        result = await self._threads.run(lambda: function(context, *arguments, **keywords))
        return await result if inspect.isawaitable(result) else result

    def _completed(self, result: Any, secrets: SecretValues, started_at: float) -> ActionOutcome:
        text = result if isinstance(result, str) else "" if result is None else _as_json(result)
        kept = self._settings.hooks_output_bytes_max
        data = text.encode(errors="replace")
        output = secrets.redact(readable(data[:kept]), truncated=len(data) > kept)
        return ActionOutcome(
            status="completed",
            output=output,
            output_truncated=len(data) > kept,
            duration_ms=round((time.monotonic() - started_at) * 1000),
        )


def installed_functions() -> dict[str, Callable[[], HookFunction]]:
    """The entry points of the group; of two with one name neither, since nobody could say which is meant."""
    found: dict[str, Callable[[], HookFunction]] = {}
    twice: set[str] = set()
    for point in metadata.entry_points(group=ENTRY_POINT_GROUP):
        if point.name in found:
            twice.add(point.name)
        found[point.name] = point.load
    for name in sorted(twice):
        log.error("hook.function_registered_twice", function=name)
        del found[name]
    return found


def _as_json(value: Any) -> str:
    """Raises TypeError or ValueError for what JSON cannot say, which fails the action."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


class _Threads:
    """A thread a call, up to a limit. They are daemons, so that one that hangs does not keep the process alive."""

    def __init__(self, limit: int) -> None:
        self._free = threading.BoundedSemaphore(limit)
        self._closed = False

    async def run(self, function: Callable[[], Any]) -> Any:
        """Raises what it raises. When the caller's time is over the thread goes on, and keeps its place."""
        if self._closed or not self._free.acquire(blocking=False):
            raise _AllThreadsBusyError("all threads for functions are busy; some may hang")
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()

        def settle(result: Any, error: BaseException | None) -> None:
            if done.cancelled():
                return
            if error is None:
                done.set_result(result)
            else:
                done.set_exception(error)

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                result = context.run(function)
            except StopIteration as stopped:  # a future cannot hold it
                error = RuntimeError(f"StopIteration: {stopped}")
            except BaseException as raised:  # SystemExit of a function is its failure, not the thread's end
                error = raised if isinstance(raised, Exception) else RuntimeError(repr(raised))
            finally:
                self._free.release()
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, result, error)

        threading.Thread(target=work, name="hook-function", daemon=True).start()
        return await done

    def close(self) -> None:
        self._closed = True


class _AllThreadsBusyError(Exception):
    """No thread is free."""
