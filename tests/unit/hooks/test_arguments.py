"""Commands that are permitted: how they are read, filled in and written down again."""

import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.contracts.hook_actions import HookAction
from engine.errors import InvalidHookActionError
from engine.settings import Settings
from hooks.actions.command import TABLES, _prepare, check_command, find_program
from hooks.actions.context import HookContext
from hooks.actions.placeholders import NAMES, fill
from hooks.actions.results import from_ended, readable
from hooks.actions.words import split_words
from hooks.sandbox.filesystem import root_layout
from hooks.sandbox.launch import bubblewrap_arguments
from hooks.sandbox.seccomp import system_call_filter
from hooks.sandbox.spec import Command, Ended, Limits
from hooks.secrets import SecretValues

SETTINGS = Settings(_env_file=None)


def context(work_dir: Path, **values: Any) -> HookContext:
    return HookContext(**{"tenant": "team", "trigger": "post_task", "subject": "x", "work_dir": work_dir} | values)


def prepared(work_dir: Path, command: str, *args: str, **values: Any) -> list[str]:
    checked = check_command(HookAction(type="command", command=command, args=list(args)), SETTINGS)
    return _prepare(checked, context(work_dir, **values), True)[1]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ruff check", ["ruff", "check"]),
        ("git commit -m 'a; b | c'", ["git", "commit", "-m", "a; b | c"]),
        ('git commit -m "it\'s done"', ["git", "commit", "-m", "it's done"]),
        ("git commit -m it\\'s\\ done", ["git", "commit", "-m", "it's done"]),
        ("git show HEAD~1", ["git", "show", "HEAD~1"]),
        ("ruff format {file}", ["ruff", "format", "{file}"]),
        ('git commit -m "a \\" b"', ["git", "commit", "-m", 'a " b']),
    ],
)
def test_a_line_is_split_as_a_shell_would(line: str, words: list[str]) -> None:
    assert split_words(line) == words


@pytest.mark.parametrize(
    ("command", "args", "written"),
    [
        ("ruff format", ["a.py"], ["--", "a.py"]),
        ("ruff format", [], ["--", "."]),
        ("ruff check a.py --select=E,F --fix", [], ["--select=E,F", "--fix", "--", "a.py"]),
        ("ruff check --select", ["E", "--", "a.py"], ["--select=E", "--", "a.py"]),
        ("pytest -k", ["a and not b", "t.py::test_a[x-1]"], ["-k", "a and not b", "t.py::test_a[x-1]"]),
        ("pytest", [], []),
        ("ruff format {file}", [], ["--", "made.py"]),
        ("ruff format", ["<work>/made.py".replace("<work>", "{values.dir}")], ["--", "made.py"]),
        ("ruff format", ["{values.dir}"], ["--", "."]),
        ("ruff format a-{task_id}.py", [], ["--", "a-t1.py"]),
        ("ruff check --line-length", ["{attempt}"], ["--line-length=3", "--", "."]),
    ],
)
def test_arguments_are_written_in_one_form(command: str, args: list[str], written: list[str], tmp_path: Path) -> None:
    values = {"task_id": "t1", "attempt": 3, "file": "made.py", "values": {"dir": str(tmp_path)}}
    assert prepared(tmp_path, command, *args, **values) == written


@given(value=st.text(max_size=60))
def test_a_value_stays_one_argument_or_is_refused(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    work_dir = tmp_path_factory.getbasetemp()
    try:
        written = prepared(work_dir, "ruff format {file} --check", file=value)
    except InvalidHookActionError:
        return
    assert written[:2] == ["--check", "--"]
    assert len(written) == 3
    assert not written[2].startswith(("-", "@", "/"))
    assert ".." not in written[2].split("/")


@given(value=st.text(max_size=60))
def test_a_message_stays_one_argument_or_is_refused(value: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    checked = check_command(HookAction(type="command", command="git commit -m '{role} done'"), SETTINGS)
    try:
        message = fill(checked.parsed.arguments[0].value or "", context(Path("/"), role=value), "x")
    except InvalidHookActionError:
        return
    assert message == f"{value} done"
    assert re.search(r"[\x00-\x1f\x7f-\x9f]", message) is None


@given(line=st.text(st.sampled_from("ab '\"\\;|&<>$`(){}*?~#!\n\t-="), max_size=30))
def test_no_line_is_split_that_a_shell_would_act_on(line: str) -> None:
    """What comes through means the same to a shell and to us: words."""
    try:
        words = split_words(line)
    except InvalidHookActionError:
        return
    quoted = re.sub(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", "", line)
    assert not set(quoted) & set(";|&<>$`()*?#!\n")
    assert all("\n" not in word for word in words)


@pytest.mark.parametrize("template", ["{", "{}", "{ task_id }", "{Task}", "{task_id", '{"a": 1}', "{{}}", "{a-b}"])
def test_braces_that_are_no_placeholders_stand_for_themselves(template: str) -> None:
    assert fill(template, context(Path("/"), task_id="t"), "x") == template


def test_parts_of_results_are_found() -> None:
    event = context(Path("/"), result={"files": ["a.py", {"name": "b.py"}], "ok": True, "none": None, "n": 1.5})
    for template, expected in {
        "{result.files.0}": "a.py",
        "{result.files.1.name}": "b.py",
        "{result.ok}": "true",
        "{result.n}": "1.5",
        "{result.files}": '["a.py",{"name":"b.py"}]',
        "{trigger}-{subject}": "post_task-x",
    }.items():
        assert fill(template, event, "x") == expected
    for template in ("{result.none}", "{result.files.2}", "{result.files.x}", "{result.ok.x}", "{agent_id}"):
        with pytest.raises(InvalidHookActionError):
            fill(template, event, "x")
    assert "work_dir" not in NAMES


def test_tables_name_their_own_programs_and_force_only_what_clients_may_not_say() -> None:
    for name, table in TABLES.items():
        assert table.program == name
        for grammar in table.subcommands.values():
            for forced in grammar.forced:
                assert forced.partition("=")[0] not in grammar.flags or forced.startswith("--max-count")
    assert [name for name, table in TABLES.items() if table.runs_code] == ["pytest"]


def test_a_program_is_found_in_the_operators_directories(tmp_path: Path) -> None:
    program = tmp_path / "ruff"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert find_program("ruff", Settings(_env_file=None, hooks_command_path=(str(tmp_path),))) == program
    assert find_program("ruff", SETTINGS).name == "ruff"


@pytest.mark.parametrize(
    ("ended", "status", "code", "refused", "output"),
    [
        (Ended(0, None, b"a\n", b"b\n", False, 1), "completed", None, False, "a\nb"),
        (Ended(2, None, b"", b"b", False, 1), "failed", "EXIT_STATUS", False, "b"),
        (Ended(-9, None, b"", b"", False, 1), "failed", "EXIT_STATUS", False, ""),
        (Ended(None, "time", b"a", b"", False, 1), "timeout", "TIMEOUT", False, "a"),
        (Ended(None, "memory", b"", b"", False, 1), "failed", "MEMORY_EXCEEDED", True, ""),
        (Ended(None, "output", b"a", b"", True, 1), "failed", "OUTPUT_EXCEEDED", True, "a"),
        (Ended(None, "stopped", b"", b"", False, 1), "failed", "STOPPED", False, ""),
        (
            Ended(0, None, b"\xff\x00\x1b[1mx\x9b\xe2\x80\x8b", b"", False, 1),
            "completed",
            None,
            False,
            "\ufffdx\ufffd\u200b",
        ),
    ],
)
def test_outcomes_say_what_happened(ended: Ended, status: str, code: str | None, refused: bool, output: str) -> None:
    outcome = from_ended(ended, "ruff", SecretValues({}))
    assert (outcome.status, outcome.error_code, outcome.refused, outcome.output) == (status, code, refused, output)
    assert outcome.retryable is not refused
    assert outcome.output_truncated is ended.truncated


@given(data=st.binary(max_size=200))
def test_what_a_command_prints_can_be_stored_and_shown(data: bytes) -> None:
    text = readable(data)
    assert not set(text) & {"\0", "\x1b", "\r", "\x7f", "\x9b"}
    assert text.encode().decode() == text


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_of_system_calls_is_a_program_whose_jumps_stay_inside(machine: str) -> None:
    program = system_call_filter(machine)
    assert program is not None
    instructions = [struct.unpack_from("HBBI", program, at) for at in range(0, len(program), 8)]
    for index, (code, if_true, if_false, _) in enumerate(instructions):
        if code not in (0x20, 0x06):
            assert index + 1 + max(if_true, if_false) < len(instructions)
    assert instructions[-1][0] == 0x06
    assert system_call_filter("unknown") is None


def test_bubblewrap_is_told_the_same_root(tmp_path: Path) -> None:
    layout = root_layout(Path("/usr/bin/git"))
    command = Command(Path("/usr/bin/git"), ("git",), {}, tmp_path, Limits(1, 1, 1, 1, 1, 1, 1), network=True)
    arguments = bubblewrap_arguments("bwrap", command, layout, {".git/config": tmp_path / "mask"})
    text = " ".join(arguments)
    assert text.startswith("bwrap --unshare-all --die-with-parent --cap-drop ALL")
    assert "--share-net" in arguments
    assert f"--bind {tmp_path} /hookwork --ro-bind {tmp_path / 'mask'} /hookwork/.git/config" in text
    assert "--ro-bind /usr /usr" in text
    assert "/etc" not in layout.readonly
    assert "/home" not in layout.readonly
