"""What git knows of a repository: its files, who changes often, and what files looked like before.

Nothing of the repository is written or run: no hooks, no external diff programs, no file system monitor.
"""

import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

COMMITS_MAX: Final = 5_000
"""As far back as history is read."""

GIT_TIMEOUT_SECONDS: Final = 120.0


class RepositoryError(Exception):
    """The repository cannot be read; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A file as one commit left it."""

    path: str
    blob: str


class Repository:
    """A git work tree."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def files(self) -> list[str]:
        """Tracked files that are there, by name. Raises RepositoryError."""
        listed = self._git("ls-files", "-z", "--cached").decode("utf-8", "surrogateescape").split("\0")
        files = [path for path in listed if path and _is_plain(path)]
        return sorted({path for path in files if (self.root / path).is_file() and not (self.root / path).is_symlink()})

    def churn(self) -> tuple[int, dict[str, tuple[int, int]]]:
        """Commits that were read; and for each path the commits that changed it and the lines added and deleted."""
        log = self._log("--numstat", "--format=%x00")
        commits: Counter[str] = Counter()
        lines: Counter[str] = Counter()
        for line in log:
            added, _, rest = line.partition("\t")
            deleted, _, path = rest.partition("\t")
            if path:
                commits[path] += 1
                lines[path] += sum(int(count) for count in (added, deleted) if count.isdigit())  # "-": binary
        read = sum(line == "\0" for line in log)
        return read, {path: (count, lines[path]) for path, count in commits.items()}

    def revisions(self, suffix: str) -> list[Revision]:
        """The revisions of files with that ending, oldest first."""
        found: list[Revision] = []
        for line in self._log("--raw", "--no-abbrev", "--diff-filter=AM", "--format=", "--", f"*{suffix}"):
            facts, _, path = line.partition("\t")
            parts = facts.split(" ")
            if len(parts) == 5 and _is_plain(path):
                found.append(Revision(path, parts[3]))
        return found[::-1]

    def blobs(self, ids: Iterable[str]) -> Iterator[bytes]:
        """The contents of these blobs, in their order, from one git process."""
        process = subprocess.Popen(
            [*self._command(), "cat-file", "--batch"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdin is not None  # they are pipes  # noqa: S101
        assert process.stdout is not None  # noqa: S101
        try:
            for blob in ids:
                process.stdin.write(f"{blob}\n".encode())
                process.stdin.flush()
                header = process.stdout.readline().split()
                if len(header) != 3:
                    raise RepositoryError(f"{self.root}: git has no object {blob}; is this a partial clone?")
                content = process.stdout.read(int(header[2]) + 1)
                yield content[:-1]
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(GIT_TIMEOUT_SECONDS)

    def head(self) -> str:
        """The short id of the commit that is checked out. Raises RepositoryError when there is none yet."""
        return self._git("rev-parse", "--short", "--verify", "HEAD").decode().strip()

    def _log(self, *options: str) -> list[str]:
        output = self._git(
            "log",
            f"--max-count={COMMITS_MAX}",
            "--no-merges",
            "--no-renames",
            "--no-ext-diff",
            "--no-textconv",
            *options,
        )
        return output.decode("utf-8", "surrogateescape").split("\n")

    def _git(self, *arguments: str) -> bytes:
        try:
            done = subprocess.run(
                [*self._command(), *arguments],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=GIT_TIMEOUT_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise RepositoryError(f"{self.root}: git {arguments[0]} took over {GIT_TIMEOUT_SECONDS:g} s") from error
        if done.returncode != 0:
            reason = done.stderr.decode("utf-8", "replace").strip() or f"exit code {done.returncode}"
            raise RepositoryError(f"{self.root}: git {arguments[0]}: {reason}")
        return done.stdout

    def _command(self) -> list[str]:
        git = shutil.which("git")
        if git is None:
            raise RepositoryError("git is not installed, or not in PATH")
        # The folder was named by whoever started the review, so its owner does not matter.
        trusted = ["-c", f"safe.directory={self.root}", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false"]
        return [git, "-C", str(self.root), *trusted]


def _is_plain(path: str) -> bool:
    """Names that are no UTF-8, or that git quotes, are left out: they could not be shown either."""
    return path.isprintable() and not path.startswith('"') and "|" not in path
