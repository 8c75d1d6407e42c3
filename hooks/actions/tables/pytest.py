"""pytest: it runs code of the working directory whatever its flags are, so it needs a sandbox.

Its flags are limited all the same: nothing that loads plugins, reads configuration from elsewhere or writes reports.
"""

from typing import Final

from hooks.actions.tables.grammar import EXPRESSION, NODE, NUMBER, CommandTable, Grammar, one_of

TABLE: Final = CommandTable(
    program="pytest",
    subcommands={
        "": Grammar(
            flags={
                "--co": None,
                "--collect-only": None,
                "--disable-warnings": None,
                "--durations": NUMBER,
                "--exitfirst": None,
                "-k": EXPRESSION,
                "-m": EXPRESSION,
                "--maxfail": NUMBER,
                "--no-header": None,
                "--no-summary": None,
                "-q": None,
                "--quiet": None,
                "-r": one_of("A", "E", "N", "P", "X", "a", "f", "s", "w", "x"),
                "-s": None,
                "--strict-markers": None,
                "--tb": one_of("auto", "long", "short", "line", "native", "no"),
                "-v": None,
                "--verbose": None,
                "-vv": None,
                "-x": None,
            },
            positional=NODE,
            forced=("-p", "no:cacheprovider", "--color=no"),
        )
    },
    runs_code=True,
    environment={
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONNOUSERSITE": "1",
        "PYTHONUTF8": "1",
    },
)
