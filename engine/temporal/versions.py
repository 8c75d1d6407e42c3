"""Which version of the code a worker is, as far as Temporal is told.

Without a deployment's name, workers have no version, and every worker takes every execution. With one, Temporal sends
executions to the version that the operator made current. Runs move there on their way (auto-upgrade, the default), or
stay with the version that began them (pinned): docs/decisions/0009-worker-versioning.md.
"""

from importlib import metadata
from typing import Final

from temporalio.common import VersioningBehavior, WorkerDeploymentVersion
from temporalio.worker import WorkerDeploymentConfig

from engine.settings import Settings

DISTRIBUTION: Final = "orchestration-engine"

_BEHAVIORS: Final = {"auto_upgrade": VersioningBehavior.AUTO_UPGRADE, "pinned": VersioningBehavior.PINNED}


def deployment_config(settings: Settings) -> WorkerDeploymentConfig | None:
    """None for workers without a version."""
    name = settings.worker_deployment_name
    if name is None:
        return None
    build_id = settings.worker_build_id or metadata.version(DISTRIBUTION)
    return WorkerDeploymentConfig(
        version=WorkerDeploymentVersion(deployment_name=name, build_id=build_id),
        use_worker_versioning=True,
        default_versioning_behavior=_BEHAVIORS[settings.worker_versioning],
    )
