"""Parameters that several commands share, written once.

Typer reads a command's options from its signature. `shares` puts another function's parameters into that signature,
calls that function with what was given for them, and hands its result to the command: what is asked for and what is
made of it stand in one place.
"""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

from cli.client import EngineClient
from cli.connection import require_connection
from cli.options import DATA_DIR_DEFAULT, DataDirOption, TokenOption, UrlOption

Command = Callable[..., None]
Connect = Callable[[], EngineClient]
"""Opens the engine that the options name; only when it is asked, so that what cannot be meant is refused before."""


def engine(url: UrlOption = None, token: TokenOption = None, data_dir: DataDirOption = DATA_DIR_DEFAULT) -> Connect:
    """Options that name an engine."""
    return lambda: EngineClient(require_connection(url, token, data_dir))


def shares(**makers: Callable[..., Any]) -> Callable[[Command], Command]:
    """The command's parameters of these names are made by these functions, whose own parameters become its options."""

    def decorate(command: Command) -> Command:
        parameters: list[inspect.Parameter] = []
        taken: dict[str, list[str]] = {}
        for parameter in inspect.signature(command, eval_str=True).parameters.values():
            if parameter.name in makers:
                shared = list(inspect.signature(makers[parameter.name], eval_str=True).parameters.values())
                taken[parameter.name] = [one.name for one in shared]
                parameters += shared
            else:
                parameters.append(parameter)

        @wraps(command)
        def with_shared(**given: Any) -> None:
            made = {name: makers[name](**{one: given.pop(one) for one in names}) for name, names in taken.items()}
            command(**given, **made)

        by_name = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in parameters]
        with_shared.__signature__ = inspect.Signature(by_name)  # type: ignore[attr-defined]  # as `inspect` documents it
        with_shared.__annotations__ = {one.name: one.annotation for one in parameters}
        return with_shared

    return decorate
