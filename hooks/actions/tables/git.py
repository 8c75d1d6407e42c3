"""git: looking at a repository and committing to it. Nothing that speaks to another one.

Its repository comes from the working directory and is not trusted: its configuration could name programs for nearly
every step. The environment here switches off all of them whose names are known; those that have names of their own
(filters, diff and merge drivers) go with the repository's configuration, see `hooks.actions.repository`.
"""

from typing import Final

from hooks.actions.tables.grammar import NUMBER, PATH, REVISION, TEXT, CommandTable, Grammar, Kind, matching, one_of

FALSE: Final = "/bin/false"
NOTHING: Final = "/dev/null"

CONFIGURATION: Final = {
    "commit.gpgSign": "false",
    "core.askPass": FALSE,
    "core.attributesFile": NOTHING,
    "core.editor": FALSE,
    "core.excludesFile": NOTHING,
    "core.fsmonitor": "false",
    "core.gitProxy": FALSE,
    "core.hooksPath": NOTHING,
    "core.pager": "cat",
    "core.sshCommand": FALSE,
    "core.untrackedCache": "false",
    "credential.helper": "",
    "diff.external": "",
    "diff.ignoreSubmodules": "all",
    "gc.auto": "0",
    "gpg.program": FALSE,
    "gpg.ssh.program": FALSE,
    "gpg.x509.program": FALSE,
    "interactive.diffFilter": "",
    "log.showSignature": "false",
    "maintenance.auto": "false",
    "protocol.allow": "never",
    "protocol.ext.allow": "never",
    "protocol.file.allow": "never",
    "safe.bareRepository": "explicit",
    "sequence.editor": FALSE,
    "status.submoduleSummary": "false",
    "submodule.recurse": "false",
    "tag.gpgSign": "false",
    "user.useConfigOnly": "false",
}
"""Stronger than any file: given by the environment."""

ENVIRONMENT: Final = {
    "GIT_ALLOW_PROTOCOL": "none",
    "GIT_ASKPASS": FALSE,
    "GIT_ATTR_NOSYSTEM": "1",
    "GIT_AUTHOR_EMAIL": "hook@localhost",
    "GIT_AUTHOR_NAME": "hook",
    "GIT_COMMITTER_EMAIL": "hook@localhost",
    "GIT_COMMITTER_NAME": "hook",
    "GIT_COMMON_DIR": ".git",
    "GIT_CONFIG_GLOBAL": NOTHING,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_SYSTEM": NOTHING,
    "GIT_DIR": ".git",
    "GIT_EDITOR": FALSE,
    "GIT_LITERAL_PATHSPECS": "1",
    "GIT_NO_LAZY_FETCH": "1",
    "GIT_NO_REPLACE_OBJECTS": "1",
    "GIT_PAGER": "cat",
    "GIT_PROTOCOL_FROM_USER": "0",
    "GIT_SEQUENCE_EDITOR": FALSE,
    "GIT_SSH_COMMAND": FALSE,
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_WORK_TREE": ".",
    "PAGER": "cat",
    "SSH_ASKPASS": FALSE,
    "GIT_CONFIG_COUNT": str(len(CONFIGURATION)),
    **{f"GIT_CONFIG_KEY_{index}": key for index, key in enumerate(CONFIGURATION)},
    **{f"GIT_CONFIG_VALUE_{index}": value for index, value in enumerate(CONFIGURATION.values())},
}

_FORMAT: Final = one_of("oneline", "short", "medium", "full", "fuller", "raw", "reference")
_AUTHOR: Final = matching("author", r"[\w .,'+-]{1,100} <[\w.+@-]{1,100}>", "`Name <address>`")
_DIFF: Final[dict[str, Kind | None]] = {
    "--cached": None,
    "--check": None,
    "--exit-code": None,
    "--name-only": None,
    "--name-status": None,
    "--numstat": None,
    "--patch": None,
    "-p": None,
    "--quiet": None,
    "--shortstat": None,
    "--staged": None,
    "--stat": None,
    "--summary": None,
    "--unified": NUMBER,
    "-w": None,
}
_LOG: Final[dict[str, Kind | None]] = {
    "--all": None,
    "--author": TEXT,
    "--date": one_of("iso", "iso-strict", "short", "unix", "raw"),
    "--follow": None,
    "--format": _FORMAT,
    "--graph": None,
    "--grep": TEXT,
    "--max-count": NUMBER,
    "--name-only": None,
    "--name-status": None,
    "--no-merges": None,
    "-n": NUMBER,
    "--numstat": None,
    "--oneline": None,
    "--patch": None,
    "-p": None,
    "--reverse": None,
    "--shortstat": None,
    "--since": TEXT,
    "--stat": None,
    "--until": TEXT,
}
_QUIET_DIFF: Final = ("--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all")

TABLE: Final = CommandTable(
    program="git",
    subcommands={
        "add": Grammar(
            flags={"--all": None, "-A": None, "--update": None, "-u": None, "--verbose": None, "-v": None},
            positional=PATH,
        ),
        "commit": Grammar(
            flags={
                "--all": None,
                "-a": None,
                "--allow-empty": None,
                "--author": _AUTHOR,
                "--message": TEXT,
                "-m": TEXT,
                "--quiet": None,
                "-q": None,
                "--signoff": None,
            },
            after_separator=PATH,
            forced=("--no-verify", "--no-gpg-sign", "--no-edit", "--cleanup=strip"),
            required=("-m", "--message"),
        ),
        "describe": Grammar(
            flags={"--abbrev": NUMBER, "--always": None, "--exact-match": None, "--long": None, "--tags": None},
            positional=REVISION,
            positional_max=1,
        ),
        "diff": Grammar(flags=_DIFF, positional=REVISION, after_separator=PATH, forced=_QUIET_DIFF),
        "log": Grammar(
            flags=_LOG,
            positional=REVISION,
            after_separator=PATH,
            forced=(*_QUIET_DIFF, "--no-show-signature", "--max-count=1000"),
        ),
        "ls-files": Grammar(
            flags={
                "--cached": None,
                "--deleted": None,
                "--exclude-standard": None,
                "--modified": None,
                "--others": None,
                "--stage": None,
            },
            positional=PATH,
        ),
        "rev-parse": Grammar(
            flags={"--abbrev-ref": None, "--short": None, "--show-toplevel": None, "--verify": None},
            positional=REVISION,
            positional_max=2,
        ),
        "show": Grammar(
            flags={name: kind for name, kind in {**_DIFF, **_LOG}.items() if name not in ("--cached", "--staged")},
            positional=REVISION,
            after_separator=PATH,
            forced=(*_QUIET_DIFF, "--no-show-signature"),
        ),
        "status": Grammar(
            flags={
                "--branch": None,
                "-b": None,
                "--ignored": None,
                "--porcelain": None,
                "--short": None,
                "-s": None,
                "--untracked-files": one_of("no", "normal", "all"),
            },
            positional=PATH,
            forced=("--ignore-submodules=all", "--no-column"),
        ),
    },
    environment=ENVIRONMENT,
)
