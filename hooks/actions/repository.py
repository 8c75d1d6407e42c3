"""A repository that nobody vouches for: its configuration is replaced by the few keys that cannot run anything.

A list of what is dangerous would miss something: includes, filters, drivers, aliases, remotes with commands, promisor
remotes that fetch while one looks. So git sees a configuration that this module wrote. Where no sandbox can lay it
over the repository's own, a repository whose configuration has other keys than harmless ones is refused.

A repository inside of it has a configuration of its own, and `git add` runs git there. No setting forbids that.
"""

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final

from hooks.actions.refusal import refused

CONFIGURATION_BYTES_MAX: Final = 256 * 1024
ENTRIES_SEARCHED_MAX: Final = 200_000
KEPT: Final = {
    "core.repositoryformatversion": re.compile(r"[01]"),
    "core.filemode": re.compile(r"true|false", re.IGNORECASE),
    "core.ignorecase": re.compile(r"true|false", re.IGNORECASE),
    "core.symlinks": re.compile(r"true|false", re.IGNORECASE),
    "core.precomposeunicode": re.compile(r"true|false", re.IGNORECASE),
    "core.autocrlf": re.compile(r"true|false|input", re.IGNORECASE),
    "core.eol": re.compile(r"lf|crlf|native", re.IGNORECASE),
    "extensions.objectformat": re.compile(r"sha1|sha256"),
    "extensions.refstorage": re.compile(r"files|reftable"),
}
"""What git needs to know to read the repository as it is."""

HARMLESS_SECTIONS: Final = frozenset({"user", "branch", "color", "init", "pull", "push", "advice"})
HARMLESS_KEYS: Final = frozenset({"core.bare", "core.logallrefupdates", "remote.url", "remote.fetch", *KEPT})
"""For repositories without a sandbox: nothing here is ever carried out by a permitted sub-command."""

SECTION: Final = re.compile(r"\[\s*([A-Za-z0-9.-]+)(?:\s+\"(?:[^\"\\]|\\.)*\")?\s*\]")
ENTRY: Final = re.compile(r"([A-Za-z][A-Za-z0-9-]*)\s*(?:=\s*(.*))?")
UNREADABLE: Final = re.compile(r"[\x00-\x08\x0b-\x0c\x0e-\x1f\x7f\x85\u2028\u2029]")
FIELD: Final = "work_dir"
REMEDY: Final = "make the repository anew, with a configuration of git's own making"


def check_repository(work_dir: Path, *, isolated: bool) -> dict[str, bytes]:
    """What is to be laid over the repository's files, by path. Raises when it cannot be made safe."""
    directory = work_dir / ".git"
    if not _is(directory, stat.S_ISDIR):
        raise refused("WORK_DIRECTORY_INVALID", FIELD, "is not the top of a git repository", "use one that is")
    for name in ("commondir", "config.worktree", "shallow.lock"):
        if os.path.lexists(directory / name):
            raise refused("REPOSITORY_HOSTILE", FIELD, f".git/{name} is not permitted", REMEDY)
    if not isolated:
        for path in ("objects/info/alternates", "objects/info/http-alternates"):
            if os.path.lexists(directory / path):
                raise refused("REPOSITORY_HOSTILE", FIELD, f".git/{path} is not permitted", REMEDY)
    entries = parse_configuration(_read(directory / "config"))
    if not isolated:
        _refuse_unknown(entries)
    return {".git/config": configuration(entries)}


def refuse_nested_repositories(work_dir: Path) -> None:
    """Raises where git could find another repository, be it a directory, a file or a link."""
    seen = 0
    for directory, names, files in os.walk(work_dir, followlinks=False):
        seen += len(names) + len(files)
        if seen > ENTRIES_SEARCHED_MAX:
            raise refused("REPOSITORY_HOSTILE", FIELD, "has too many files to look for other repositories", REMEDY)
        found = [name for name in (*names, *files) if name.lower() == ".git"]
        if directory != str(work_dir):
            if found:
                path = os.path.relpath(os.path.join(directory, found[0]), work_dir)
                raise refused("REPOSITORY_HOSTILE", FIELD, f"has another repository: {path[:200]!r}", "remove it")
        elif ".git" in names:
            names.remove(".git")


def configuration(entries: list[tuple[str, str]]) -> bytes:
    """The configuration that git gets to see."""
    lines = ["[core]", "\tbare = false", "\tlogallrefupdates = true"]
    for key, value in dict(entries).items():
        if key in KEPT and KEPT[key].fullmatch(value):
            section, _, name = key.partition(".")
            lines += [f"[{section}]", f"\t{name} = {value}"]
    return ("\n".join(lines) + "\n").encode()


def parse_configuration(text: str) -> list[tuple[str, str]]:
    """The keys, without the names of sub-sections, and values. Raises for what is not plainly readable.

    Stricter than git: continued lines and several entries in one line are refused, so that nothing is read otherwise.
    """
    entries: list[tuple[str, str]] = []
    section = ""
    if UNREADABLE.search(text):
        raise refused("REPOSITORY_HOSTILE", FIELD, ".git/config has control characters", REMEDY)
    for line in text.split("\n"):
        rest = line.strip(" \t\r")
        if match := SECTION.match(rest):
            section = match[1].lower()
            rest = rest[match.end() :].strip(" \t\r")
        if not rest or rest[0] in "#;":
            continue
        entry = ENTRY.fullmatch(rest)
        if entry is None or not section or rest.endswith("\\"):
            raise refused("REPOSITORY_HOSTILE", FIELD, ".git/config cannot be read plainly", REMEDY)
        entries.append((f"{section}.{entry[1].lower()}", (entry[2] or "").strip()))
    return entries


def _refuse_unknown(entries: list[tuple[str, str]]) -> None:
    for key, value in entries:
        known = key in HARMLESS_KEYS or key.partition(".")[0] in HARMLESS_SECTIONS
        if not known or (key in KEPT and not KEPT[key].fullmatch(value)):
            raise refused("REPOSITORY_HOSTILE", FIELD, f".git/config has {key}", "run it where there is a sandbox")


def _is(path: Path, kind: Callable[[int], bool]) -> bool:
    with contextlib.suppress(OSError):
        return kind(path.lstat().st_mode)
    return False


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise refused("REPOSITORY_HOSTILE", FIELD, ".git/config is not a file", REMEDY) from error
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise refused("REPOSITORY_HOSTILE", FIELD, ".git/config is not a file", REMEDY)
        with os.fdopen(os.dup(descriptor), "rb") as file:
            content = file.read(CONFIGURATION_BYTES_MAX + 1)
    finally:
        os.close(descriptor)
    if len(content) > CONFIGURATION_BYTES_MAX:
        raise refused("REPOSITORY_HOSTILE", FIELD, ".git/config is not a configuration", REMEDY)
    return content.decode(errors="replace")
