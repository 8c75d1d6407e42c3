"""A command line as one string, taken apart as a shell would, without anything that only a shell could carry out."""

import shlex
import unicodedata
from typing import Final

from hooks.actions.refusal import refused

SHELL_CHARACTERS: Final = frozenset(";|&<>()`$*?[]#!\n")
SHELL_CHARACTERS_IN_QUOTES: Final = frozenset("$`")
"""What a shell would still act on inside double quotes."""

FORBIDDEN_CATEGORIES: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
DIRECTION_MARKS: Final = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""With these a text reads otherwise than it is."""

REMEDY: Final = "give the arguments as a list in `args`; there is no shell, so nothing is expanded or chained"


def check_text(text: str, field: str) -> str:
    """No control characters, no line breaks, no surrogates, nothing that turns the direction of reading."""
    for character in text:
        if unicodedata.category(character) in FORBIDDEN_CATEGORIES or character in DIRECTION_MARKS:
            raise refused(
                "CONTROL_CHARACTER", field, f"contains the character U+{ord(character):04X}", "remove the character"
            )
    return text


def split_words(line: str, field: str = "action.command") -> list[str]:
    """Raises when the line has unquoted characters that a shell would act on, or a quote that does not end."""
    check_text(line, field)
    quote = ""
    escaped = False
    start_of_word = True
    for character in line:
        if escaped:
            escaped = False
        elif character == "\\" and quote != "'":
            escaped = True
        elif quote:
            if character == quote:
                quote = ""
            elif quote == '"' and character in SHELL_CHARACTERS_IN_QUOTES:
                raise refused("SHELL_SYNTAX", field, f"has {character!r} in double quotes", REMEDY)
        elif character in "'\"":
            quote = character
        elif character in SHELL_CHARACTERS or (character == "~" and start_of_word):
            raise refused("SHELL_SYNTAX", field, f"has {character!r} outside of quotes", REMEDY)
        start_of_word = character.isspace() and not quote
    try:
        return shlex.split(line)
    except ValueError as error:
        raise refused("SHELL_SYNTAX", field, f"cannot be taken apart: {error}", REMEDY) from error
