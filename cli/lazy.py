"""Command groups that load a command's module when that command runs.

`--help` needs no database driver and each role of the engine loads its own part of it only: that makes the start of a
role two to three times faster. These tables are the one place where first-party code is imported by name at run time;
everywhere else imports stand at the top of the file.
"""

import importlib
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_group


class LazyCommand(NamedTuple):
    """Where a command lives. `module` has a Typer named `app`, which holds the command or, if `group`, is it."""

    module: str
    summary: str
    group: bool = False


class LazyGroup(TyperGroup):
    """Knows its commands' names and summaries, and loads a command's module when it is asked for."""

    table: ClassVar[Mapping[str, LazyCommand]] = {}

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self._listing = False
        for name, entry in self.table.items():
            self.add_command(TyperCommand(name, help=entry.summary))

    def get_command(self, ctx: typer.Context, cmd_name: str) -> Any:  # type: ignore[override]
        entry = self.table.get(cmd_name)
        if entry is None or self._listing:
            return super().get_command(ctx, cmd_name)
        group = get_group(importlib.import_module(entry.module).app)
        if not entry.group:
            return group.commands[cmd_name]
        group.name = cmd_name
        return group

    def format_help(self, ctx: typer.Context, formatter: Any) -> None:  # type: ignore[override]
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False
