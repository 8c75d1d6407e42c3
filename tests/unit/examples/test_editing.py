"""What the hands of the editing example do to a text."""

from typing import Any

import pytest

from cli.documents import load_definition
from examples.editing.__main__ import DEMONSTRATION, is_right, missing_sentences, restored
from examples.editing.agents import WIDTH, WORDS_MAX, hand
from examples.editing.text import (
    PAGE,
    doubled,
    join_lines,
    longest_sentence,
    set_page,
    shorten,
    split_long,
    without_doubled,
    words,
)
from examples.registry import find_example
from orchestration_agent import Task, TaskFailed
from planner.parse import parse_definition


def work(action: str, role: str = "editor", feedback: str = "", **context: Any) -> Any:
    told = {"context": context, "feedback": [{"agent": "a", "feedback": feedback}] if feedback else []}
    task = Task(
        task_id=action, agent_id=f"{role}-1", role=role, action=action, execution_id="e", report=lambda _: None,
        context=told,
    )  # fmt: skip
    return hand(task)


def test_words_that_a_line_broke_are_whole_again_and_dashes_stay() -> None:
    assert join_lines("a some-\nthing that--\nin all\n\nnext  one") == ["a something that-- in all", "next one"]


def test_doubled_words_are_found_and_taken_out() -> None:
    scan = join_lines(PAGE.read_text())
    assert len(doubled(scan)) == 11
    assert doubled(without_doubled(scan)) == []


def test_only_long_sentences_are_split_and_no_word_is_lost_but_joining_ones() -> None:
    text = ["One two; three four: five six. Seven eight; nine."]
    assert split_long(text, 4) == ["One two. Three four. Five six. Seven eight; nine."]
    assert split_long(text, 6) == text


def test_the_shortest_sentences_go_first_and_never_the_first_of_a_paragraph() -> None:
    text = ["One. Two words there. Three words are there."]
    assert shorten(text, 1) == ["One. Three words are there."]
    assert shorten(text, 100) == ["One."]


@pytest.mark.parametrize("hyphens", [True, False])
def test_no_line_is_wider_than_the_page_and_no_letter_is_lost(hyphens: bool) -> None:
    text = without_doubled(join_lines(PAGE.read_text()))
    lines = set_page(text, WIDTH, hyphens=hyphens)
    assert max(map(len, lines)) <= WIDTH
    assert "".join(word for line in lines for word in words(line)) == "".join(w for t in text for w in words(t))


def test_what_a_gate_complains_of_is_put_right() -> None:
    first = work("restore")
    assert first["handoff_to"] == "historian"
    assert first["doubled"]
    second = work("restore", feedback="not so: size(result.doubled) == 0")
    assert second["doubled"] == []
    paragraphs = second["context"]["paragraphs"]
    assert work("restore", role="historian", paragraphs=paragraphs)["context"] == {"years": [1837, 1844], "span": 7}
    edited = work("edit", paragraphs=paragraphs)
    assert edited["longest"] <= WORDS_MAX
    cut = work("edit", feedback="lines: 55 is greater than the maximum of 54", paragraphs=paragraphs)
    assert longest_sentence(cut["context"]["paragraphs"]) <= WORDS_MAX
    assert len(str(cut)) < len(str(edited))


def test_the_reader_finds_what_is_broken_and_what_is_missing() -> None:
    def verdict(page: list[str]) -> Any:
        task = Task(task_id="j", agent_id="reader-1", role="reader", action="judge", execution_id="e",
                    report=lambda _: None, context={"context": {"paragraphs": ["one two"]},
                                                    "result": {"context": {"page": page}}})  # fmt: skip
        return hand(task)

    assert verdict(["one", "two"])["verdict"] == "accept"
    assert "is broken" in verdict(["one t-", "wo"])["feedback"]
    assert verdict(["one"])["feedback"] == "the page has 1 words, the text 2"


def test_what_nobody_can_do_fails() -> None:
    with pytest.raises(TaskFailed, match="nobody here"):
        work("dance")


def test_the_demo_notices_a_word_that_is_missing() -> None:
    page = set_page([" ".join(restored())], WIDTH, hyphens=False)
    assert (missing_sentences(page), is_right(page, [])) == ([], True)
    assert not is_right(page[1:], missing_sentences(page[1:]))


def test_the_definition_is_valid_and_the_example_of_its_pattern() -> None:
    definition = parse_definition(load_definition(str(DEMONSTRATION.workflow)))
    assert definition.orchestration_pattern == "handoff"
    example = find_example("handoff")
    assert example is not None
    assert example.module == "editing"
