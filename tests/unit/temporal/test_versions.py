"""What a worker tells Temporal of its version."""

from importlib import metadata

import pytest
from pydantic import ValidationError
from temporalio.common import VersioningBehavior, WorkerDeploymentVersion

from engine.settings import Settings
from engine.temporal.versions import deployment_config


def settings(**values: str) -> Settings:
    return Settings.model_validate(values)


def test_a_worker_has_no_version_unless_its_deployment_is_named() -> None:
    assert deployment_config(settings()) is None
    assert deployment_config(settings(worker_build_id="1")) is None


def test_the_version_is_the_packages_own_unless_it_is_named_and_runs_move_to_it() -> None:
    config = deployment_config(settings(worker_deployment_name="engine"))
    assert config is not None
    assert config.use_worker_versioning
    assert config.version == WorkerDeploymentVersion("engine", metadata.version("orchestration-engine"))
    assert config.default_versioning_behavior is VersioningBehavior.AUTO_UPGRADE


def test_runs_may_be_pinned_to_a_build() -> None:
    values = {"worker_deployment_name": "engine", "worker_build_id": "2026.11-rc.1", "worker_versioning": "pinned"}
    config = deployment_config(settings(**values))
    assert config is not None
    assert config.version.build_id == "2026.11-rc.1"
    assert config.default_versioning_behavior is VersioningBehavior.PINNED


@pytest.mark.parametrize("name", ["", "with.dot", "with space", "x" * 101])
def test_a_name_that_temporal_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValidationError):
        settings(worker_deployment_name=name)
