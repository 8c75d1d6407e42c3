"""Repositories that attack who looks at them: none of their programs runs, in a sandbox or without.

Each attack is first shown to work on plain git, so that a test cannot pass because the attack is none.
"""

import asyncio
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from hooks.sandbox.launch import Sandbox
from hooks.sandbox.probe import SandboxSetting
from hooks.sandbox.spec import Command, Ended
from tests.integration.hooks.actions.conftest import PWNED, Bench, sandbox_of

COMMANDS = [
    ["status"],
    ["diff"],
    ["add", "--all"],
    ["add", "--update"],
    ["add", "."],
    ["add", "nested"],
    ["commit", "-a", "-m", "x"],
    ["log", "-p"],
    ["show", "HEAD"],
    ["commit", "-m", "x"],
    ["describe", "--always", "--tags"],
]
PLAIN_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_NAME": "a",
    "GIT_AUTHOR_EMAIL": "a@b",
    "GIT_COMMITTER_NAME": "a",
    "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_ALLOW_PROTOCOL": "ext:file",
}
TOUCH = f"touch {PWNED}; cat"
"""A program for every place: it leaves its mark, and passes on what it is given."""


@dataclass(frozen=True)
class Hostile:
    configure: Callable[[Path], object]
    works: bool = True
    """Whether plain git falls for it with the commands above; otherwise it needs more than they do."""


def config(*lines: str) -> Hostile:
    return Hostile(lambda work_dir: _append(work_dir / ".git" / "config", "\n".join(lines) + "\n"))


def hook(name: str) -> Hostile:
    return Hostile(lambda work_dir: _script(work_dir / ".git" / "hooks" / name))


def _append(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text)


def _script(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\ntouch $(dirname $0)/{PWNED} {PWNED}\ncat\n")
    path.chmod(0o755)


def _both(work_dir: Path, attributes: str, *lines: str, where: str = ".gitattributes") -> None:
    _append(work_dir / where, attributes + "\n")
    _append(work_dir / ".git" / "config", "\n".join(lines) + "\n")


def _evil_directory(work_dir: Path) -> Path:
    """A second repository, whose configuration is hostile."""
    evil = work_dir / "evil"
    (work_dir / ".git").rename(evil)
    _append(evil / "config", f'[core]\n\tfsmonitor = "touch {PWNED}; false"\n\tworktree = ..\n')
    return evil


def _as_file(work_dir: Path) -> None:
    _evil_directory(work_dir)
    (work_dir / ".git").write_text("gitdir: evil\n")


def _as_link(work_dir: Path) -> None:
    _evil_directory(work_dir)
    (work_dir / ".git").symlink_to("evil")


def _as_common_directory(work_dir: Path) -> None:
    evil = work_dir / "evil"
    evil.mkdir()
    for name in ("objects", "refs", "config", "packed-refs"):
        if (work_dir / ".git" / name).exists():
            (work_dir / ".git" / name).rename(evil / name)
    _append(evil / "config", f'[core]\n\tfsmonitor = "touch {PWNED}; false"\n')
    (work_dir / ".git" / "commondir").write_text("../evil\n")


def _as_bare(work_dir: Path) -> None:
    """The working directory itself looks like a repository."""
    for path in (work_dir / ".git").iterdir():
        path.rename(work_dir / path.name)
    (work_dir / ".git").rmdir()
    _append(work_dir / "config", f'[core]\n\tbare = false\n\tworktree = .\n\tfsmonitor = "touch {PWNED}; false"\n')


def _configuration_by_link(work_dir: Path) -> None:
    path = work_dir / ".git" / "config"
    path.rename(work_dir / "evil")
    _append(work_dir / "evil", f'[core]\n\tfsmonitor = "touch {PWNED}; false"\n')
    path.symlink_to("../evil")


def _configuration_of_worktree(work_dir: Path) -> None:
    _append(
        work_dir / ".git" / "config", "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tworktreeConfig = true\n"
    )
    _append(work_dir / ".git" / "config.worktree", f'[core]\n\tfsmonitor = "touch {PWNED}; false"\n')


def _include(work_dir: Path) -> None:
    _append(work_dir / ".git" / "config", "[include]\n\tpath = ../evil\n")
    _append(work_dir / "evil", f'[core]\n\tfsmonitor = "touch {PWNED}; false"\n')


def _include_by_branch(work_dir: Path) -> None:
    _append(work_dir / ".git" / "config", '[includeIf "onbranch:**"]\n\tpath = ../evil\n')
    _append(work_dir / "evil", f'[core]\n\tfsmonitor = "touch {PWNED}; false"\n')


def _promisor(work_dir: Path) -> None:
    """A missing object is fetched while one looks: by a program that the repository names."""
    _append(
        work_dir / ".git" / "config",
        "[core]\n\trepositoryformatversion = 1\n[extensions]\n\tpartialClone = origin\n"
        f'[remote "origin"]\n\turl = "ext::sh -c touch% {PWNED}"\n\tpromisor = true\n',
    )
    for path in (work_dir / ".git" / "objects").glob("[0-9a-f][0-9a-f]/*"):
        path.unlink()


def _nested(work_dir: Path) -> Path:
    """A repository inside of this one, in its index already, with a filter and a file that has to be looked at."""
    nested = work_dir / "nested"
    nested.mkdir()
    _git(nested, "init", "-q", "-b", "main")
    (nested / "f").write_text("x\n")
    _git(nested, "add", "f")
    _git(nested, "commit", "-q", "-m", "x")
    _git(work_dir, "add", "nested")
    _both(nested, "* filter=x", '[filter "x"]', f'\tclean = "{TOUCH}"')
    os.utime(nested / "f", (0, 0))
    return nested


def _git(work_dir: Path, *arguments: str) -> None:
    subprocess.run(
        ["git", *arguments], cwd=work_dir, env=PLAIN_ENVIRONMENT, check=True, capture_output=True, timeout=20
    )


def _nested_by_file(work_dir: Path) -> None:
    nested = _nested(work_dir)
    (nested / ".git").rename(work_dir / "elsewhere")
    (nested / ".git").write_text("gitdir: ../elsewhere\n")


def _nested_by_link(work_dir: Path) -> None:
    nested = _nested(work_dir)
    (nested / ".git").rename(work_dir / "elsewhere")
    (nested / ".git").symlink_to("../elsewhere")


def _hooks_elsewhere(work_dir: Path) -> None:
    _append(work_dir / ".git" / "config", "[core]\n\thooksPath = evil\n")
    _script(work_dir / "evil" / "pre-commit")


def _attributes_elsewhere(work_dir: Path) -> None:
    _append(work_dir / "evil", "* filter=x\n")
    _append(work_dir / ".git" / "config", f'[core]\n\tattributesFile = evil\n[filter "x"]\n\tclean = "{TOUCH}"\n')


FSMONITOR = f'\tfsmonitor = "touch {PWNED}; false"'
HOSTILE: dict[str, Hostile] = {
    "file system monitor": config("[core]", FSMONITOR),
    "file system monitor in one line": config(f'[core] fsmonitor = "touch {PWNED}; false"'),
    "file system monitor in capitals": config("[CORE]", f'\tFSMonitor = "touch {PWNED}; false"'),
    "hooks elsewhere": Hostile(_hooks_elsewhere),
    "hook before a commit": hook("pre-commit"),
    "hook for the message": hook("commit-msg"),
    "hook for preparing the message": hook("prepare-commit-msg"),
    "hook after a commit": hook("post-commit"),
    "hook after the index": hook("post-index-change"),
    "hook for references": hook("reference-transaction"),
    "filter for cleaning": Hostile(lambda w: _both(w, "* filter=x", '[filter "x"]', f'\tclean = "{TOUCH}"')),
    "filter as a process": Hostile(
        lambda w: _both(w, "* filter=x", '[filter "x"]', f'\tprocess = "touch {PWNED}"', "\trequired = true")
    ),
    "filter in the repository's attributes": Hostile(
        lambda w: _both(w, "* filter=x", '[filter "x"]', f'\tclean = "{TOUCH}"', where=".git/info/attributes")
    ),
    "filter in attributes elsewhere": Hostile(_attributes_elsewhere),
    "text of what is compared": Hostile(
        lambda w: _both(w, "* diff=x", '[diff "x"]', f'\ttextconv = "touch {PWNED}; cat"')
    ),
    "program that compares": Hostile(lambda w: _both(w, "* diff=x", '[diff "x"]', f'\tcommand = "touch {PWNED}; :"')),
    "program that compares everything": config("[diff]", f'\texternal = "touch {PWNED}; :"'),
    "signing": config("[commit]", "\tgpgSign = true", "[gpg]", "\tprogram = ./evil.sh"),
    "signing with ssh": config(
        "[commit]",
        "\tgpgSign = true",
        "[gpg]",
        "\tformat = ssh",
        '[gpg "ssh"]',
        "\tprogram = ./evil.sh",
        "[user]",
        "\tsigningKey = /dev/null",
    ),
    "included configuration": Hostile(_include),
    "included by a condition": Hostile(_include_by_branch),
    "configuration by a link": Hostile(_configuration_by_link),
    "configuration of the worktree": Hostile(_configuration_of_worktree),
    "repository by a file": Hostile(_as_file),
    "repository by a link": Hostile(_as_link),
    "common directory": Hostile(_as_common_directory),
    "directory that is a repository itself": Hostile(_as_bare),
    "objects that are fetched": Hostile(_promisor),
    "repository inside": Hostile(_nested),
    "repository inside by a file": Hostile(_nested_by_file),
    "repository inside by a link": Hostile(_nested_by_link),
    "pager": Hostile(config("[core]", f'\tpager = "touch {PWNED}; cat"').configure, works=False),
    "pager of a command": Hostile(config("[pager]", f'\tlog = "touch {PWNED}; cat"').configure, works=False),
    "editor": Hostile(config("[core]", f'\teditor = "touch {PWNED}"').configure, works=False),
    "alias for a command": Hostile(config("[alias]", f'\tstatus = "!touch {PWNED}"').configure, works=False),
    "credentials": Hostile(config("[credential]", f'\thelper = "!touch {PWNED}"').configure, works=False),
    "ssh": Hostile(config("[core]", f'\tsshCommand = "touch {PWNED}"').configure, works=False),
    "remote over ext": Hostile(config('[remote "x"]', f"\turl = ext::sh -c touch% {PWNED}").configure, works=False),
    "maintenance": Hostile(
        config("[gc]", "\tauto = 1", f'\trecentObjectsHook = "touch {PWNED}"').configure, works=False
    ),
}


async def git(work_dir: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "git",
        *arguments,
        cwd=work_dir,
        env=PLAIN_ENVIRONMENT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    async with asyncio.timeout(20):
        await process.wait()


@pytest.fixture
async def repository(bench: Bench) -> Bench:
    """With a commit, a change that is staged and one that is not. Its commands find their program for the mark."""
    await git(bench.work_dir, "init", "-q", "-b", "main")
    bench.write("a.txt", "one\n")
    await git(bench.work_dir, "add", "a.txt")
    await git(bench.work_dir, "commit", "-q", "-m", "first")
    bench.write("b.txt", "staged\n")
    await git(bench.work_dir, "add", "b.txt")
    bench.write("a.txt", "two\n")
    _script(bench.work_dir / "evil.sh")
    return bench


def marks(bench: Bench) -> list[str]:
    return [str(path) for path in bench.outside.parent.rglob(PWNED)]


@pytest.mark.parametrize("title", [title for title, hostile in HOSTILE.items() if hostile.works])
async def test_plain_git_falls_for_the_attack(title: str, repository: Bench) -> None:
    HOSTILE[title].configure(repository.work_dir)
    for command in COMMANDS:
        await git(repository.work_dir, *command)
    assert marks(repository)


@pytest.mark.parametrize("setting", ["auto", "off"])
@pytest.mark.parametrize("title", HOSTILE)
async def test_a_hostile_repository_runs_nothing(title: str, setting: SandboxSetting, repository: Bench) -> None:
    repository.setting = setting
    HOSTILE[title].configure(repository.work_dir)
    for command in COMMANDS:
        outcome = await repository.run("git", *command)
        assert outcome.error_code in (None, "EXIT_STATUS", "REPOSITORY_HOSTILE", "WORK_DIRECTORY_INVALID"), outcome
        assert marks(repository) == []


@pytest.mark.parametrize("arguments", [["--all"], ["-A"], ["--update"], ["-u"], ["."], ["nested"], ["a.txt"]])
@pytest.mark.parametrize("setting", ["auto", "off"])
async def test_adding_is_refused_where_there_is_another_repository(
    arguments: list[str], setting: SandboxSetting, repository: Bench
) -> None:
    """Each is run on a repository that git has to look into: it would run the filter."""
    repository.setting = setting
    _nested(repository.work_dir)
    outcome = await repository.run("git", "add", *arguments)
    assert (outcome.error_code, outcome.refused) == ("REPOSITORY_HOSTILE", True)
    assert "nested/.git" in str(outcome.error_message)
    assert marks(repository) == []


@pytest.mark.parametrize("command", [["status"], ["diff"], ["diff", "HEAD"], ["commit", "-a", "-m", "x"]])
async def test_another_repository_is_not_looked_into_by_the_rest(command: list[str], repository: Bench) -> None:
    _nested(repository.work_dir)
    sandbox = await sandbox_of("auto")
    outcome = await repository.run("git", *command)
    assert outcome.error_code == (None if sandbox is not None and sandbox.isolates else "REPOSITORY_HOSTILE"), outcome
    assert marks(repository) == []


async def test_a_directory_that_is_too_large_to_be_searched_is_refused(
    repository: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hooks.actions.repository.ENTRIES_SEARCHED_MAX", 3)
    outcome = await repository.run("git add a.txt")
    assert (outcome.error_code, outcome.refused) == ("REPOSITORY_HOSTILE", True)
    assert "too many files" in str(outcome.error_message)


async def test_a_repository_with_filters_is_still_read_in_a_sandbox_and_refused_without(repository: Bench) -> None:
    """As repositories with large files have them."""
    HOSTILE["filter for cleaning"].configure(repository.work_dir)
    sandbox = await sandbox_of("auto")
    outcome = await repository.run("git status --short")
    if sandbox is not None and sandbox.isolates:
        assert outcome.status == "completed", outcome
        assert "a.txt" in outcome.output
    repository.setting = "off"
    outcome = await repository.run("git status --short")
    assert (outcome.error_code, outcome.refused) == ("REPOSITORY_HOSTILE", True)


@pytest.mark.parametrize("setting", ["auto", "off"])
async def test_an_ordinary_repository_can_be_committed_to(setting: SandboxSetting, repository: Bench) -> None:
    repository.setting = setting
    (repository.work_dir / "evil.sh").unlink()
    _append(
        repository.work_dir / ".git" / "config",
        '[remote "origin"]\n\turl = https://example.com/x.git\n\tfetch = +refs/heads/*:refs/remotes/origin/*\n'
        '[branch "main"]\n\tremote = origin\n\tmerge = refs/heads/main\n[user]\n\tname = Ann\n\temail = a@b\n',
    )
    for command, expected in {
        "git add a.txt": "",
        "git commit -m 'done by {task_id}' -q": "",
        "git log --oneline -n 1": "done by format",
        "git show --stat HEAD": "2 files changed",
        "git diff main": "",
        "git rev-parse --abbrev-ref HEAD": "main",
    }.items():
        outcome = await repository.run(command, task_id="format")
        assert outcome.status == "completed", outcome
        assert expected in outcome.output


@pytest.mark.parametrize(
    "text",
    [
        "[core\n",
        "fsmonitor = x\n",
        "[core]\n\tx = a\\\n\tfsmonitor = b\n",
        "[a] [b] c = d\n",
        "[core]\n\t= x\n",
        "\x00",
        "[core]\n\tx = a\x0b\n",
        "a" * 300_000,
    ],
)
async def test_a_configuration_that_cannot_be_read_plainly_is_refused(text: str, repository: Bench) -> None:
    (repository.work_dir / ".git" / "config").write_text(text)
    outcome = await repository.run("git status")
    assert (outcome.error_code, outcome.refused) == ("REPOSITORY_HOSTILE", True)


@pytest.mark.parametrize("kind", ["directory", "pipe", "missing"])
async def test_a_configuration_that_is_no_file_is_refused(kind: str, repository: Bench) -> None:
    path = repository.work_dir / ".git" / "config"
    path.unlink()
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    outcome = await repository.run("git status")
    assert (outcome.error_code, outcome.refused) == ("REPOSITORY_HOSTILE", True)


async def test_objects_from_outside_are_not_read(repository: Bench) -> None:
    """Alternates lead to another repository's objects."""
    other = repository.work_dir.parent / "other"
    other.mkdir()
    await git(other, "init", "-q")
    (other / "secret").write_text("of another tenant\n")
    await git(other, "add", "secret")
    await git(other, "commit", "-q", "-m", "x")
    head = next((other / ".git" / "refs" / "heads").iterdir()).read_text().strip()
    _append(repository.work_dir / ".git" / "objects" / "info" / "alternates", f"{other / '.git' / 'objects'}\n")
    for repository.setting in ("auto", "off"):
        outcome = await repository.run("git", "show", head)
        assert outcome.status == "failed"
        assert "of another tenant" not in outcome.output


def _hostile_file(work_dir: Path) -> None:
    _append(work_dir / ".git" / "config", f"[core]\n{FSMONITOR}\n")


def _hostile_link(work_dir: Path) -> None:
    _configuration_by_link(work_dir)


def _link_for_the_directory(work_dir: Path) -> None:
    evil = _evil_directory(work_dir)
    (work_dir / ".git").symlink_to(evil.name)


def _no_file(work_dir: Path) -> None:
    (work_dir / ".git" / "config").unlink()


@pytest.mark.parametrize("swap", [_hostile_file, _hostile_link, _link_for_the_directory, _no_file])
async def test_what_is_swapped_between_the_look_and_the_run_does_not_run(
    swap: Callable[[Path], None], repository: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await sandbox_of("auto")
    run = Sandbox.run

    async def swapped(self: Sandbox, command: Command) -> Ended:
        if command.program.name == "git":
            swap(repository.work_dir)
        return await run(self, command)

    monkeypatch.setattr(Sandbox, "run", swapped)
    outcome = await repository.run("git status")
    if sandbox is None or not sandbox.isolates:
        return  # without a sandbox there is this gap, which the documentation names
    assert marks(repository) == []
    assert outcome.error_code in (None, "SANDBOX_FAILED")
    assert (outcome.error_code is None) is (swap is _hostile_file)
