import io
import sys
from pathlib import Path

import pytest

from cli.documents import load_definition, load_input
from engine.contracts.limits import REQUEST_BYTES_MAX
from engine.errors import ConfigurationError, InvalidDefinitionError, InvalidParametersError


@pytest.mark.parametrize("text", ['{"name": "a"}', "name: a\n"])
def test_a_definition_is_json_or_yaml(tmp_path: Path, text: str) -> None:
    file = tmp_path / "definition"
    file.write_text(text)
    assert load_definition(str(file)) == {"name": "a"}


def test_a_definition_comes_from_stdin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"name: a")))
    assert load_definition("-") == {"name": "a"}


@pytest.mark.parametrize("text", ["[1]", "{", "a: [", "name: a\nname: b"])
def test_what_is_no_object_is_refused_with_the_name_of_the_file(tmp_path: Path, text: str) -> None:
    file = tmp_path / "broken.yaml"
    file.write_text(text)
    with pytest.raises(InvalidDefinitionError, match=r"broken\.yaml"):
        load_definition(str(file))


def test_a_file_that_cannot_be_read_names_itself_and_the_reason(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"missing\.yaml: No such file"):
        load_definition(str(tmp_path / "missing.yaml"))


def test_a_file_that_is_no_text_names_the_byte(tmp_path: Path) -> None:
    file = tmp_path / "binary"
    file.write_bytes(b"ab\xff")
    with pytest.raises(ConfigurationError, match="byte 2"):
        load_definition(str(file))


def test_a_file_above_the_limit_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as opened:
        opened.truncate(REQUEST_BYTES_MAX + 1)
    with pytest.raises(ConfigurationError, match="larger than"):
        load_definition(str(file))


def test_input_is_empty_inline_or_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text('{"b": 2}')
    assert load_input(None) == {}
    assert load_input('{"a": 1}') == {"a": 1}
    assert load_input(f"@{file}") == {"b": 2}


@pytest.mark.parametrize("option", ["{", "[1]", "3", "[" * 100_000])
def test_input_that_is_no_json_object_says_how_to_write_one(option: str) -> None:
    with pytest.raises(InvalidParametersError, match="--input"):
        load_input(option)


def test_a_broken_input_file_is_a_wrong_parameter_and_not_a_wrong_definition(tmp_path: Path) -> None:
    file = tmp_path / "input.json"
    file.write_text("{")
    with pytest.raises(InvalidParametersError, match=r"input\.json"):
        load_input(f"@{file}")
