"""`dlq`: what is shown of dead letters, and which of them are sent again or thrown away."""

from typing import Any

from tests.unit.cli.conftest import Orchestrator
from tests.unit.cli.fake_engine import EXECUTION_ID, FakeEngine

At = tuple[str, ...]


def letter(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "letter_id": f"{number}-0", "reason": "b is not JSON", "tries": 5, "buried_at": "2026-01-01T00:00:00Z",
        "partition": 3, "entry_id": "1-0", "execution_id": EXECUTION_ID, "event_types": ["task.odd"],
        "size_bytes": 9, "replayable": True, **changes,
    }  # fmt: skip


def test_letters_are_listed_with_where_more_are(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    page = {"items": [letter(2), letter(1, execution_id=None)], "next_page_token": "1-0", "total": 17}
    engine.documents["/api/v1/dead-letters"] = page
    outcome = orchestrator("dlq", "list", *at)
    assert outcome.code == 0
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == ["letter", "2-0", "1-0"]
    assert "task.odd" in outcome.stdout
    assert "17 in all" in outcome.stderr
    assert "--page-token 1-0" in outcome.stderr
    assert orchestrator("dlq", "list", *at, "--json").document == page


def test_a_letter_is_shown_as_it_was_written(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    detail = letter(2, fields={"x": "no uuid", "b": "\x1b[2J"}, replayable=False)
    engine.methods["dead_letter.get"] = lambda _: detail
    outcome = orchestrator("dlq", "show", "2-0", *at)
    assert "reason: b is not JSON (after 5 tries)" in outcome.stdout
    assert "x: no uuid" in outcome.stdout
    assert "\x1b" not in outcome.stdout
    assert "cannot be replayed" in outcome.stderr
    assert orchestrator("dlq", "show", "2-0", *at, "--json").document == detail
    assert engine.calls[0] == ("dead_letter.get", {"letter_id": "2-0"})


def test_replaying_all_goes_on_until_there_is_no_more(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    answers = [{"replayed": ["1-0"], "refused": {}, "more": True}, {"replayed": [], "refused": {"2-0": "cut"},
               "more": False}]  # fmt: skip
    engine.methods["dead_letter.replay"] = lambda _: answers.pop(0)
    outcome = orchestrator("dlq", "replay", "--all", *at)
    assert outcome.stdout == "1 sent again\n"
    assert "2-0: cut" in outcome.stderr
    assert engine.calls == [("dead_letter.replay", {"all": True})] * 2
    answers.append({"replayed": ["7-0"], "refused": {}, "more": False})
    outcome = orchestrator("dlq", "replay", "7-0", *at, "--json")
    assert outcome.document == {"replayed": ["7-0"], "refused": {}}
    assert engine.calls[-1] == ("dead_letter.replay", {"letter_ids": ["7-0"]})


def test_letters_are_purged_by_id_or_all(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    engine.methods["dead_letter.purge"] = lambda _: {"purged": 2}
    assert orchestrator("dlq", "purge", "1-0", "2-0", *at).stdout == "2 thrown away\n"
    assert orchestrator("dlq", "purge", "--all", *at, "--json").document == {"purged": 2}
    assert [params for _, params in engine.calls] == [{"letter_ids": ["1-0", "2-0"]}, {"all": True}]


def test_without_saying_which_nothing_happens(orchestrator: Orchestrator, engine: FakeEngine, at: At) -> None:
    for words in (("purge",), ("replay",), ("purge", "1-0", "--all")):
        assert orchestrator("dlq", *words, *at).code == 2
    assert engine.calls == []
