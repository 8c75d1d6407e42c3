"""A host as a process of its own: options from the environment and arguments, signals, the exit code."""

import argparse
import asyncio
import ctypes
import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import orjson

from orchestration_agent import synthetic
from orchestration_agent.host import AgentHost, HostGivenUp, HostOptions
from orchestration_agent.runner import Function

logger = logging.getLogger("orchestration_agent")

PREFIX = "ORCHESTRATION_AGENT_"
REDIS_URL_VARIABLE = PREFIX + "REDIS_URL"
"""The address holds a password, so it is taken from the environment only: command lines can be read by others."""

PARENT_VARIABLE = PREFIX + "PARENT_PID"
"""When set, the process ends with that parent, however that ends."""

PR_SET_PDEATHSIG = 1
EXIT_USAGE = 2
EXIT_GIVEN_UP = 3


class UsageError(Exception):
    """The host cannot start as it was asked to; the message says what to change."""


def run_host(
    function: Function,
    *,
    redis_url: str | None = None,
    tenant: str | None = None,
    types: Sequence[str] = (),
    capabilities: Sequence[str] | Literal["*"] | None = None,
    slots: int | None = None,
    host_id: str | None = None,
    grace_seconds: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Run `function` for every task given to this process, until SIGTERM or SIGINT. Blocks.

    What is not given is read from the environment: `ORCHESTRATION_AGENT_REDIS_URL`, `_TENANT`, `_TYPES`,
    `_CAPABILITIES` (lists with commas; capabilities may be `*`), `_SLOTS`, `_HOST_ID`, `_GRACE_SECONDS`.
    Raises UsageError when something is missing.
    """
    variables = os.environ if environment is None else environment
    options = _options(
        variables,
        redis_url=redis_url,
        tenant=tenant,
        types=_joined(types) if types else None,
        capabilities=capabilities if capabilities in (None, "*") else _joined(capabilities),
        slots=slots,
        host_id=host_id,
        grace_seconds=grace_seconds,
    )
    host = AgentHost(function, options)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(host))


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m orchestration_agent`: a host for a function that is named."""
    parser = argparse.ArgumentParser("orchestration_agent", description=f"{__doc__} Redis: ${REDIS_URL_VARIABLE}.")
    parser.add_argument("--entry", help="python:module:function or synthetic")
    parser.add_argument("--tenant")
    parser.add_argument("--types", help="agent types, with commas")
    parser.add_argument("--capabilities", help="with commas; * for every one")
    parser.add_argument("--slots", type=int, help="tasks that each logical agent does at once")
    parser.add_argument("--host-id", help="new for each start; generated when absent")
    parser.add_argument("--grace-seconds", type=float, help="for running tasks after a request to stop")
    parser.add_argument("--python-path", help="folder put first on the import path")
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(
        level=os.environ.get(PREFIX + "LOG_LEVEL", "INFO"),
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
        stream=sys.stderr,
    )
    python_path = given.pop("python_path")
    entry = given.pop("entry") or os.environ.get(PREFIX + "ENTRY", "")
    try:
        end_with_parent(os.environ)
        if python_path:
            sys.path.insert(0, python_path)
        function = load_function(entry)
        options = _options(os.environ, redis_url=None, **given)
    except UsageError as error:
        logger.error("%s", error)
        return EXIT_USAGE
    # The agent's own code and what it starts have no use for the engine's address.
    os.environ.pop(REDIS_URL_VARIABLE, None)
    try:
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_serve(AgentHost(function, options)))
    except HostGivenUp as error:
        logger.error("%s", error)
        return EXIT_GIVEN_UP
    return 0


def load_function(entry: str) -> Function:
    """The function behind `python:module:function` or `synthetic`. Raises UsageError."""
    if entry == "synthetic":
        return synthetic.run
    kind, _, rest = entry.partition(":")
    module_name, _, name = rest.partition(":")
    if kind != "python" or not module_name or not name:
        raise UsageError(f"entry {entry!r}: write python:module:function or synthetic")
    try:
        function = getattr(importlib.import_module(module_name), name, None)
    except Exception as error:  # user code runs here: whatever it raises, say which entry did
        raise UsageError(f"entry {entry!r}: importing {module_name} failed: {error!r}") from error
    if not callable(function):
        raise UsageError(f"entry {entry!r}: module {module_name} has no function {name}")
    return function  # type: ignore[no-any-return]  # a module's attribute has no type


def end_with_parent(environment: Mapping[str, str]) -> None:
    """On Linux, have the kernel kill this process when the named parent is gone. Raises UsageError when it is."""
    expected = environment.get(PARENT_VARIABLE)
    if not expected:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if str(os.getppid()) != expected:  # it was gone before that call
        raise UsageError(f"the parent process {expected} is gone")


def _options(variables: Mapping[str, str], **given: Any) -> HostOptions:
    def value(name: str) -> Any:
        found = given.get(name)
        return found if found is not None else variables.get(PREFIX + name.upper(), "")

    redis_url, tenant, types = value("redis_url"), value("tenant"), _listed(value("types"))
    for name, needed in (("REDIS_URL", redis_url), ("TENANT", tenant), ("TYPES", types)):
        if not needed:
            raise UsageError(f"{PREFIX}{name} is not set, and nothing was given for it")
    capabilities = value("capabilities")
    try:
        return HostOptions(
            redis_url=redis_url,
            tenant=tenant,
            types=types,
            capabilities="*" if capabilities == "*" else _listed(capabilities),
            slots=int(value("slots") or 1),
            host_id=value("host_id"),
            grace_seconds=float(value("grace_seconds") or HostOptions.grace_seconds),
            heartbeat_seconds=float(variables.get(PREFIX + "HEARTBEAT_SECONDS") or HostOptions.heartbeat_seconds),
            dedicated_to=_dedication(variables.get(PREFIX + "DEDICATED_TO", "")),
        )
    except ValueError as error:
        raise UsageError(f"slots, grace and heartbeat are numbers: {error}") from error


def _dedication(text: str) -> tuple[str, str] | None:
    """`execution/agent`; `/` for a host that waits in a pool."""
    execution_id, slash, agent_id = text.partition("/")
    return (execution_id, agent_id) if slash else None


def _listed(text: str) -> tuple[str, ...]:
    """A list with commas, or as JSON where items have commas in them."""
    if text.startswith("["):
        try:
            return tuple(str(item) for item in orjson.loads(text))
        except orjson.JSONDecodeError as error:
            raise UsageError(f"{text!r} is not a JSON list: {error}") from error
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _joined(items: Sequence[str]) -> str:
    return orjson.dumps(list(items)).decode()


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        uvloop = importlib.import_module("uvloop")
    except ImportError:
        return None
    return uvloop.new_event_loop  # type: ignore[no-any-return]  # optional, so not typed here


async def _serve(host: AgentHost) -> None:
    loop = asyncio.get_running_loop()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, host.stop)
    await host.run()
