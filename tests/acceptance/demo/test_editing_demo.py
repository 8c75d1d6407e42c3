"""The handoff's example from end to end."""

from pathlib import Path

import pytest

from tests.acceptance.demo.test_swarm_and_network_demos import shown_by

pytestmark = pytest.mark.acceptance


def test_a_page_goes_from_hand_to_hand_is_refused_and_rolls_back_until_it_is_right(data_dir: Path) -> None:
    shown = shown_by("editing", data_dir)
    assert "5 hand-overs counted, 4 were refused, 1 went back to the last accepted state." in shown
    assert "Every other word is there, whole and in its place." in shown
