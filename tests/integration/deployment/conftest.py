import pytest

from tests.cluster import program
from tests.cluster.fixtures import unavailable
from tests.integration.deployment import helm


@pytest.fixture(scope="session", autouse=True)
def helm_is_there() -> None:
    """Built before the first test that asks, which may take minutes."""
    if (missing := helm.why_not()) is not None:
        unavailable(missing)
    try:
        helm.build()
    except program.ClusterUnavailableError as error:
        unavailable(str(error))
