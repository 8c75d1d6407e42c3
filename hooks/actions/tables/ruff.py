"""ruff: format and check. No configuration files by name, no output files, no cache, no watching."""

from typing import Final

from hooks.actions.tables.grammar import CODES, NUMBER, PATH, WORD, CommandTable, Grammar, Kind, one_of

_COMMON: Final[dict[str, Kind | None]] = {
    "--diff": None,
    "--isolated": None,
    "--line-length": NUMBER,
    "--no-preview": None,
    "--preview": None,
    "--quiet": None,
    "-q": None,
    "--respect-gitignore": None,
    "--silent": None,
    "--target-version": WORD,
}

TABLE: Final = CommandTable(
    program="ruff",
    subcommands={
        "format": Grammar(
            flags={**_COMMON, "--check": None, "--exit-non-zero-on-format": None},
            positional=PATH,
            positional_default=(".",),
            forced=("--no-cache",),
        ),
        "check": Grammar(
            flags={
                **_COMMON,
                "--exit-non-zero-on-fix": None,
                "--exit-zero": None,
                "--extend-select": CODES,
                "--fix": None,
                "--fixable": CODES,
                "--ignore": CODES,
                "--no-fix": None,
                "--no-unsafe-fixes": None,
                "--output-format": one_of("concise", "full", "json", "json-lines", "grouped", "github", "gitlab"),
                "--select": CODES,
                "--show-fixes": None,
                "--statistics": None,
                "--unfixable": CODES,
                "--unsafe-fixes": None,
            },
            positional=PATH,
            positional_default=(".",),
            forced=("--no-cache",),
        ),
    },
    environment={"RUFF_NO_CACHE": "true", "RAYON_NUM_THREADS": "2", "NO_COLOR": "1"},
)
