"""The tournament from end to end: a pattern registered as data, through the API, on an engine of processes."""

import re
from pathlib import Path

import pytest

from tests.acceptance.demo.test_swarm_and_network_demos import shown_by

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(600)]


def test_a_registered_pattern_plays_a_tournament_twice_on_the_same_data(data_dir: Path) -> None:
    """The second time pattern and definition are there already, and are found to be the same."""
    ids = set()
    for _ in range(2):
        shown = shown_by("tournament", data_dir)
        registered = re.search(r"The pattern tournament 1\.0\.0-[0-9a-f]{8} is registered: (\S+)", shown)
        assert registered is not None
        ids.add(registered[1])
        assert "The champion is four-ahead." in shown
        assert "8 matches in 4 rounds for 9 players" in shown
        assert "Played again here, every match comes out the same." in shown
        assert "Everybody but the champion lost exactly once." in shown
    assert len(ids) == 1
