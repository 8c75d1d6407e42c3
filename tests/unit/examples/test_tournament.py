"""The tournament: the game, the referees, and the pattern that makes the draw."""

from typing import Any

import pytest
from rich.console import Console

from engine.agents.catalogue import check_capabilities, load_catalogue
from engine.contracts.execution import ExecutionStatus
from engine.contracts.patterns.language import PatternRegistration
from examples.running import Run
from examples.tournament.agents import match, referee
from examples.tournament.connect_four import COLUMNS, EMPTY, ROWS, dropped, has_won, open_columns, play
from examples.tournament.demo import DEMONSTRATION, TASK, prepare, registration, show
from examples.tournament.players import PLAYERS
from orchestration_agent import TaskFailed
from planner.language.check import parse_registration
from planner.parse import parse_definition, parse_text
from tests.unit.workflows.drill import task
from tests.unit.workflows.stage import Call, Stage


@pytest.mark.parametrize(
    ("moves", "won"),
    [("0011223", True), ("3030303", True), ("0112223303"[:9], False), ("01122323343", True), ("0101010", True)],
)
def test_four_in_a_row_win_in_any_direction(moves: str, won: bool) -> None:
    board = EMPTY
    last = 0
    for number, column in enumerate(moves):
        last = int(column)
        board = dropped(board, last, number % 2 + 1)
    assert has_won(board, last) is won


def test_who_plays_a_full_column_loses_and_a_full_board_is_a_draw() -> None:
    assert play(lambda *_: 0, lambda *_: 0) == (2, [0] * ROWS)
    order = [c for pair in ((0, 1), (2, 3), (4, 5)) for c in (*pair, *pair, *pair[::-1], *pair[::-1], *pair, *pair)]
    script = iter([*order, 6, 6, 6, 6, 6, 6])
    outcome, moves = play(lambda *_: next(script), lambda *_: next(script))
    assert (outcome, len(moves)) == (0, ROWS * COLUMNS)


@pytest.mark.parametrize("name", PLAYERS)
def test_players_play_by_the_rules_and_alike_each_time(name: str) -> None:
    board = EMPTY
    for column in (3, 3, 3, 3, 3, 3, 2):
        board = dropped(board, column, len(board[column]) % 2 + 1)
    chosen = PLAYERS[name](board, 2)
    assert chosen in open_columns(board)
    assert chosen == PLAYERS[name](board, 2)


def test_a_search_takes_a_win_and_stops_one() -> None:
    board = EMPTY
    for column in (0, 6, 1, 6, 2, 5):
        board = dropped(board, column, 1 if column < 3 else 2)
    for name in ("watchful", "one-ahead", "two-ahead"):
        assert PLAYERS[name](board, 1) == 3
    assert PLAYERS["two-ahead"](board, 2) == 3


def test_a_match_has_a_winner_even_when_both_games_are_drawn_or_shared() -> None:
    even = match("leftmost", "leftmost")
    assert even["winner"] == "leftmost"
    assert match("watchful", "dice")["winner"] == match("dice", "watchful")["winner"] == "watchful"


class Asked:
    def __init__(self, action: str, *players: str) -> None:
        self.action = action
        self.input = {"players": list(players)}


def test_a_referee_refuses_what_is_no_match() -> None:
    assert referee(Asked("match", "dice", "watchful"))["winner"] == "watchful"  # type: ignore[arg-type]
    for asked in (Asked("nap", "dice", "watchful"), Asked("match", "dice", "nobody")):
        with pytest.raises(TaskFailed):
            referee(asked)  # type: ignore[arg-type]


def test_the_definition_and_the_catalogue_fit_the_pattern() -> None:
    definition = parse_definition(parse_text(DEMONSTRATION.workflow.read_text()))
    assert DEMONSTRATION.catalogue is not None
    check_capabilities(load_catalogue(DEMONSTRATION.catalogue), [], definition)
    parse_registration(PatternRegistration.model_validate(registration()))


def stage_of(players: list[str], agent: Any) -> Stage:
    config = {"players": players, "referees": "worker"}
    return Stage(registration()["coordination_logic"], agent, task(TASK), config=config)


def answer(call: Call) -> dict[str, Any]:
    return match(*call.input["players"])


class Client:
    """What the demo asks of the engine."""

    def __init__(self, result: Any = None) -> None:
        self.given = result
        self.registered: list[dict[str, Any]] = []

    def call(self, _method: str, params: dict[str, Any]) -> dict[str, Any]:
        self.registered.append(params)
        return {"pattern_id": "id"}

    def get(self, _path: str) -> dict[str, Any]:
        return {"result": self.given}

    def pages(self, _path: str, *, limit: int) -> list[dict[str, Any]]:
        return [{"items": [{"event_type": "agent.task_assigned", "payload": {"agent_id": "referee-1"}}][:limit]}]


def run_of(client: Client, players: list[str]) -> Run:
    definition = {"pattern": {"name": "tournament", "version": "1"}, "pattern_config": {"players": players}}
    return Run(Console(record=True, width=100), client, DEMONSTRATION.workflow.parent, definition)  # type: ignore[arg-type]


@pytest.mark.parametrize("players", [["dice", "leftmost"], ["dice", "watchful", "leftmost", "centre", "one-ahead"]])
def test_everybody_but_the_champion_loses_once_and_the_demo_says_so(players: list[str]) -> None:
    stage = stage_of(players, answer)
    assert stage.play() is ExecutionStatus.COMPLETED
    result = stage.results[TASK]
    assert sum(map(len, result["rounds"])) == len(players) - 1
    run = run_of(Client(result), players)
    assert show(run)
    assert f"The champion is {result['champion']}." in run.console.export_text()


def test_the_demo_notices_a_match_that_came_out_otherwise() -> None:
    stage = stage_of(["dice", "watchful"], lambda call: {**answer(call), "winner": "dice"})
    assert stage.play() is ExecutionStatus.COMPLETED
    assert not show(run_of(Client(stage.results[TASK]), ["dice", "watchful"]))


def test_a_referee_who_names_somebody_else_fails_the_tournament() -> None:
    stage = stage_of(["dice", "watchful"], lambda call: {**answer(call), "winner": "me"})
    assert stage.play() is ExecutionStatus.FAILED
    assert "who did not play" in stage.failures[TASK][1]


def test_the_demo_registers_the_pattern_and_has_the_definition_name_it() -> None:
    client = Client()
    run = run_of(client, [])
    prepare(run)
    assert client.registered[0]["version"] == run.definition["pattern"]["version"]
