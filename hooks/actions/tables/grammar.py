"""How a command's arguments are read: exact flags with checked values, then positional arguments.

What is not in a table is refused: there is no list of what is dangerous. Arguments are taken apart while their
placeholders are still placeholders, and are put together again in one canonical form (`--flag=value`), so that a
program cannot read them otherwise than they were checked.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from hooks.actions.placeholders import PLACEHOLDER
from hooks.actions.refusal import Reason, refused

ARGUMENT_LENGTH_MAX: Final = 16 * 1024

ValueCheck = Callable[[str], str | None]
"""Answers what is wrong with a value."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may look like. Paths are further looked at where they lead."""

    name: str
    check: ValueCheck
    is_path: bool = False


def matching(name: str, pattern: str, what: str) -> Kind:
    """A kind whose values match the pattern as a whole."""
    compiled = re.compile(pattern)
    return Kind(name, lambda value: None if compiled.fullmatch(value) else f"is not {what}")


def one_of(*values: str) -> Kind:
    return Kind("choice", lambda value: None if value in values else f"is not one of {', '.join(values)}")


def _check_path(value: str) -> str | None:
    if not PATH_PATTERN.fullmatch(value):
        return "is not a path of letters, digits, spaces and . _ / + , = @ % ( ) -"
    if value[0] in "-@~:":
        return f"begins with {value[0]!r}"
    parts = value.split("/")
    if ".." in parts:
        return "leads upwards"
    if any(part.lower() == ".git" for part in parts):
        return "leads into .git"
    return None


PATH_PATTERN: Final = re.compile(r"[\w ./+,=@%()-]{1,1024}")
PATH: Final = Kind("path", _check_path, is_path=True)


def _check_node(value: str) -> str | None:
    path, separator, rest = value.partition("::")
    if separator and not re.fullmatch(r"[\w:\[\]., -]{1,512}", rest):
        return "is not a test's id"
    return _check_path(path) if path else "has no path"


NODE: Final = Kind("node", _check_node, is_path=True)
NUMBER: Final = matching("number", r"[0-9]{1,6}", "a number")
CODES: Final = matching("codes", r"[A-Z0-9]{1,10}(,[A-Z0-9]{1,10}){0,99}", "a list of rule codes")
WORD: Final = matching("word", r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,99}", "a plain word")
EXPRESSION: Final = matching("expression", r"[\w .,\[\]()-]{1,512}", "an expression of names, and, or, not")
TEXT: Final = matching("text", r"[^\x00-\x1f\x7f]{1,4096}", "a text of one line")
REVISION: Final = matching(
    "revision", r"[A-Za-z0-9][A-Za-z0-9_/.~^-]{0,200}", "a plain revision (names, digits, ~, ^, ..)"
)


@dataclass(frozen=True, slots=True)
class Grammar:
    """What a sub-command takes. `forced` arguments come first, so that later ones cannot be read as their values."""

    flags: Mapping[str, Kind | None]
    positional: Kind | None = None
    after_separator: Kind | None = None
    """What positional arguments behind `--` are, where that differs."""
    positional_max: int = 50
    positional_default: tuple[str, ...] = ()
    forced: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CommandTable:
    """One allowed command. Without sub-commands the only grammar has the name ""."""

    program: str
    subcommands: Mapping[str, Grammar]
    runs_code: bool = False
    """Whether it carries out code that it finds in the working directory."""
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument as it was written. `flag` is empty for positional ones."""

    flag: str
    value: str | None
    kind: Kind | None
    field: str

    def written(self, value: str | None) -> tuple[str, ...]:
        if not self.flag:
            return (value or "",)
        if value is None:
            return (self.flag,)
        return (f"{self.flag}={value}",) if self.flag.startswith("--") else (self.flag, value)


@dataclass(frozen=True, slots=True)
class Parsed:
    subcommand: str
    arguments: tuple[Argument, ...]
    separator_at: int | None
    """Before which argument `--` stood."""


def parse(table: CommandTable, words: list[str], field_prefix: str) -> tuple[Grammar, Parsed]:
    """Takes the words behind the program's name apart. Values are checked as far as they are known yet."""
    subcommand, start = "", 0
    if "" not in table.subcommands:
        subcommand, start = (words[0] if words else ""), 1
        if subcommand not in table.subcommands:
            raise refused(
                "SUBCOMMAND_NOT_PERMITTED",
                f"{field_prefix}[0]",
                f"{table.program} may not be asked for {subcommand[:50]!r}",
                f"permitted as the first argument are {', '.join(sorted(table.subcommands))}",
            )
    grammar = table.subcommands[subcommand]
    arguments: list[Argument] = []
    separator_at: int | None = None
    index = start
    while index < len(words):
        word, name = words[index], f"{field_prefix}[{index}]"
        index += 1
        if separator_at is None and word == "--":
            separator_at = len(arguments)
        elif separator_at is None and word.startswith("-"):
            argument, taken = _flag(table, grammar, words, index - 1, name)
            arguments.append(argument)
            index += taken
        else:
            kind = (grammar.after_separator if separator_at is not None else None) or grammar.positional
            arguments.append(_positional(table, kind, word, name))
    _check_counts(grammar, arguments, field_prefix)
    return grammar, Parsed(subcommand, tuple(arguments), separator_at)


def _flag(table: CommandTable, grammar: Grammar, words: list[str], index: int, name: str) -> tuple[Argument, int]:
    word = words[index]
    flag, equals, value = word.partition("=")
    if flag not in grammar.flags:
        raise refused(
            "FLAG_NOT_PERMITTED",
            name,
            f"{table.program} may not be given {flag[:50]!r}",
            f"permitted are {', '.join(sorted(grammar.flags))}",
        )
    kind = grammar.flags[flag]
    if kind is None:
        if equals:
            raise refused("ARGUMENT_INVALID", name, f"{flag} takes no value", "leave the value out")
        return Argument(flag, None, None, name), 0
    taken = 0
    if not equals or not flag.startswith("--"):
        if equals or index + 1 >= len(words):
            raise refused("ARGUMENT_INVALID", name, f"{flag} needs a value", "give it as the next argument")
        value, taken = words[index + 1], 1
    check_known(value, kind, name)
    return Argument(flag, value, kind, name), taken


def _positional(table: CommandTable, kind: Kind | None, word: str, name: str) -> Argument:
    if kind is None:
        raise refused("ARGUMENT_INVALID", name, f"{table.program} takes no such argument", "leave it out")
    check_known(word, kind, name)
    return Argument("", word, kind, name)


def _check_counts(grammar: Grammar, arguments: list[Argument], field_prefix: str) -> None:
    positional = sum(not argument.flag for argument in arguments)
    if positional > grammar.positional_max:
        raise refused(
            "ARGUMENT_INVALID", field_prefix, f"{positional} arguments", f"give at most {grammar.positional_max}"
        )
    given = {argument.flag for argument in arguments}
    if grammar.required and not given & set(grammar.required):
        raise refused("ARGUMENT_INVALID", field_prefix, "incomplete", f"give {' or '.join(grammar.required)}")


def check_known(value: str, kind: Kind, name: str) -> None:
    """A value with placeholders is checked when they are filled in; only those may be absolute paths."""
    if PLACEHOLDER.search(value) is not None:
        return
    if kind.is_path and value.startswith("/"):
        raise refused(
            "PATH_OUTSIDE_WORK_DIRECTORY", name, f"{value[:100]!r} is absolute", "give it from the working directory"
        )
    check_value(value, kind, name)


def check_value(value: str, kind: Kind, name: str) -> None:
    if len(value) > ARGUMENT_LENGTH_MAX:
        raise refused("ARGUMENT_TOO_LONG", name, f"has {len(value)} characters", "use a shorter value")
    if value.startswith("-"):
        raise refused("ARGUMENT_INVALID", name, "a value begins with '-'", "values may not look like flags")
    wrong = kind.check(value)
    if wrong is not None:
        reason: Reason = "PATH_OUTSIDE_WORK_DIRECTORY" if kind.is_path else "ARGUMENT_INVALID"
        raise refused(reason, name, f"{value[:100]!r} {wrong}", f"a {kind.name} of the permitted form is needed")
