"""An engine for the tests of a module that kill nothing, and somebody who uses it."""

from collections.abc import Iterator

import pytest

from tests.acceptance.caller import Caller
from tests.acceptance.running import RunningEngine, running_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[RunningEngine]:
    with running_engine() as engine:
        yield engine


@pytest.fixture
def caller(engine: RunningEngine) -> Caller:
    """An administrator of the tenant `default`, whose hosts are started once."""
    return engine.caller()
