"""The text that arrays are written as; that PostgreSQL reads it back is shown in the integration tests."""

import pytest

from engine.postgres.literals import documents, numbers, plain, texts


def test_nothing_is_an_empty_array() -> None:
    assert [make([]) for make in (numbers, plain, texts, documents)] == ["{}"] * 4


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("", '""'),
        ("a", '"a"'),
        ("null", '"null"'),
        ("a,b", '"a,b"'),
        ("{}", '"{}"'),
        ('"', r'"\""'),
        ("\\", r'"\\"'),
        ('\\"', r'"\\\""'),
        ("a\nb", '"a\nb"'),
        (None, "NULL"),
    ],
)
def test_texts_are_quoted_whatever_they_hold_and_none_is_not(value: str | None, written: str) -> None:
    assert texts([value]) == "{" + written + "}"
    assert texts([value, value]) == "{" + written + "," + written + "}"


def test_documents_are_quoted_as_texts_are() -> None:
    assert documents([b'{"a":"\\n"}', None, b"null"]) == r'{"{\"a\":\"\\n\"}",NULL,"null"}'


def test_numbers_and_names_stand_as_they_are() -> None:
    assert numbers([1, None, -(2**63)]) == "{1,NULL,-9223372036854775808}"
    assert plain(["t", "agent.task_assigned"]) == "{t,agent.task_assigned}"
