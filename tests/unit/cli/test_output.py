import sys
from dataclasses import dataclass

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.output import describe_problems, print_document, printable


@dataclass
class Located:
    text: str

    def __str__(self) -> str:
        return self.text


@given(st.text())
def test_no_control_character_reaches_the_terminal(text: str) -> None:
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in printable(text) if c not in "\n\t")


@given(st.text(alphabet=st.characters(categories=("L", "N", "P", "S"))))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_a_document_is_one_line_for_programs_and_indented_for_people(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    print_document({"a": [1]})
    assert capsys.readouterr().out == '{"a": [1]}\n'
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_document({"a": [1]})
    shown = capsys.readouterr().out
    assert orjson.loads(shown) == {"a": [1]}
    assert shown.count("\n") > 1


def test_problems_are_told_alike_whatever_form_they_come_in() -> None:
    problems = [{"location": "tasks[0]", "message": "no"}, {"location": "", "message": "no"}, "text", Located("x: y")]
    assert describe_problems(problems) == ["tasks[0]: no", "no", "text", "x: y"]
    assert describe_problems(None) == []
    assert describe_problems("no list") == []
