"""Hooks' commands as Kubernetes Jobs: one Job a run, in a namespace of their own, gone when its output has been read.

A Job's name follows from the deployment, the tenant and the run's key, so that a worker that takes a run over finds the
Job of the one that died, and the API server lets nobody make a second. What nobody removes ends at its deadline and is
removed by the cluster.
"""

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import Any, Final

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import (
    JOBS,
    NETWORK_POLICIES,
    PODS,
    SECRETS,
    Document,
    KubernetesApi,
    ObjectExistsError,
    QuotaExceededError,
)
from engine.agents.kubernetes.hook_job_documents import CONTAINER, job_document, policy_document, secret_document
from engine.agents.kubernetes.reasons import Standing, pod_state
from engine.contracts.hook_jobs import HookJob, HookJobEnded, JobStopReason
from engine.errors import EngineError, NotFoundError, UnavailableError
from engine.observability.log import get_logger
from engine.settings import Settings

POLICY_SECONDS: Final = 300.0
"""So long it is taken for granted that the network policy is there."""
LOOK_SECONDS: Final = 0.25
LOOK_SECONDS_MAX: Final = 1.0
LOG_SECONDS: Final = 2.0
"""For the output of one whose time is over."""
REMOVE_SECONDS: Final = 2.0

CONTROLLER_UID: Final = "batch.kubernetes.io/controller-uid"
_ENDED: Final = ("Complete", "Failed", "FailureTarget")
_DISK_WORDS: Final = ("ephemeral", "emptydir", "storage", "disk")

log = get_logger(__name__)


class HookJobNotStartedError(EngineError):
    """No pod of it has run."""

    code = "JOB_NOT_STARTED"
    transient = True


class HookJobLostError(EngineError):
    """It has run, perhaps to its end, and nobody knows what came of it."""

    code = "JOB_LOST"
    transient = True


@dataclass(slots=True)
class _Watched:
    """What is known of one Job."""

    name: str
    uid: str = ""
    pod: str | None = None
    has_run: bool = False
    waits_for: str = "its pod has not been made"


@dataclass(frozen=True, slots=True)
class _Finished:
    exit_code: int | None
    reason: JobStopReason | None = None


class KubernetesHookJobs:
    """The port `hooks.actions.jobs.HookJobs`."""

    def __init__(self, api: KubernetesApi, settings: Settings) -> None:
        self._api = api
        self._settings = settings
        self._namespace = settings.hooks_job_namespace
        self._policy_until = 0.0

    async def run(self, job: HookJob) -> HookJobEnded:
        """Raises HookJobNotStartedError and HookJobLostError, and other errors of the API that are no passing ones.

        The job's time includes that until its container runs.
        """
        began = time.monotonic()
        watched = _Watched(names.hook_job_name(self._settings.kubernetes_owner, job.tenant, job.key))
        try:
            try:
                async with asyncio.timeout(job.timeout_seconds):
                    await self._make(watched, job)
                    finished = await self._finished(watched)
                    output = await self._output(watched, job, finished)
            except TimeoutError as error:
                if not watched.has_run:
                    raise HookJobNotStartedError(f"no pod of it ran in time: {watched.waits_for}") from error
                finished, output = _Finished(None, "time"), await self._last_output(watched, job)
            kept = output[: job.output_bytes_max]
            spent_ms = round((time.monotonic() - began) * 1000)
            return HookJobEnded(finished.exit_code, finished.reason, kept, len(output) > len(kept), spent_ms)
        finally:
            await self._remove(watched)

    async def _make(self, watched: _Watched, job: HookJob) -> None:
        while True:
            try:
                await self._deny_network()
                made = await self._made(watched, job)
                if made is not None:
                    watched.uid = made["metadata"]["uid"]
                    if job.secrets:
                        await self._give_secrets(made, job)
                    return
            except (UnavailableError, QuotaExceededError) as error:
                watched.waits_for = error.message
            except NotFoundError as error:
                raise HookJobNotStartedError(
                    f"there is no namespace {self._namespace} for hooks' Jobs: {error.message}"
                ) from error
            await asyncio.sleep(LOOK_SECONDS)

    async def _made(self, watched: _Watched, job: HookJob) -> Document | None:
        """None while one that is being deleted has the name."""
        try:
            return await self._api.create(JOBS, self._namespace, job_document(self._settings, watched.name, job))
        except ObjectExistsError:
            with contextlib.suppress(NotFoundError):
                found = await self._api.get(JOBS, self._namespace, watched.name)
                if not found["metadata"].get("deletionTimestamp"):
                    log.info("hook_jobs.found", tenant=job.tenant, job=watched.name)
                    return found
            return None

    async def _give_secrets(self, made: Document, job: HookJob) -> None:
        """They go with the Job that owns them; it waits for them, suspended."""
        with contextlib.suppress(ObjectExistsError):
            await self._api.create(SECRETS, self._namespace, secret_document(self._settings, made, job))
        if made["spec"].get("suspend"):
            await self._api.patch(JOBS, self._namespace, made["metadata"]["name"], {"spec": {"suspend": False}})

    async def _deny_network(self) -> None:
        if time.monotonic() < self._policy_until:
            return
        policy = policy_document(self._settings)
        try:
            await self._api.create(NETWORK_POLICIES, self._namespace, policy)
        except ObjectExistsError:
            name = policy["metadata"]["name"]
            await self._api.patch(NETWORK_POLICIES, self._namespace, name, {"spec": policy["spec"]})
        self._policy_until = time.monotonic() + POLICY_SECONDS

    async def _finished(self, watched: _Watched) -> _Finished:
        pause_seconds = LOOK_SECONDS
        while True:
            with contextlib.suppress(UnavailableError):  # asked again, until its time is over
                finished = await self._look(watched)
                if finished is not None:
                    return finished
            await asyncio.sleep(pause_seconds)
            pause_seconds = min(pause_seconds * 1.25, LOOK_SECONDS_MAX)

    async def _look(self, watched: _Watched) -> _Finished | None:
        """Raises HookJobNotStartedError, HookJobLostError."""
        selector = f"{CONTROLLER_UID}={watched.uid}"
        pods = (await self._api.list(PODS, self._namespace, selector=selector)).items
        # A Job has one pod, unless its controller has made a second by mistake, which it promises no better.
        pod = max(pods, key=lambda found: str(found["metadata"].get("creationTimestamp")), default=None)
        if pod is None:
            return await self._without_pod(watched)
        watched.pod = pod["metadata"]["name"]
        state = pod_state(pod)
        ended = _terminated(pod)
        watched.has_run = watched.has_run or state.standing is Standing.RUNNING or ended is not None
        if ended is not None:
            return await self._judged(watched, pod, ended)
        if state.standing is Standing.STUCK:
            raise HookJobNotStartedError(f"its container cannot start: {state.reason}")
        if state.standing is Standing.LOST:
            if (reason := _stop_reason(pod)) is not None:
                return _Finished(None, reason)
            if pod["metadata"].get("deletionTimestamp"):
                return await self._without_pod(watched)
            raise HookJobLostError(f"its pod was lost: {state.reason}")
        watched.waits_for = str(state.reason or "its container has not started")
        return None

    async def _judged(self, watched: _Watched, pod: Document, ended: Document) -> _Finished:
        exit_code = int(ended.get("exitCode", 0))
        if ended.get("reason") == "OOMKilled":
            return _Finished(None, "memory")
        if exit_code == 0:
            return _Finished(0)
        if (reason := _stop_reason(pod)) is not None:
            return _Finished(None, reason)
        with contextlib.suppress(NotFoundError):
            if _condition(await self._api.get(JOBS, self._namespace, watched.name)).get("reason") == "DeadlineExceeded":
                return _Finished(None, "time")
        if pod["metadata"].get("deletionTimestamp"):
            raise HookJobLostError("its pod was deleted while it ran")
        return _Finished(exit_code)

    async def _without_pod(self, watched: _Watched) -> _Finished | None:
        """What the Job itself says: its pod is not there yet, or not any more."""
        try:
            found = await self._api.get(JOBS, self._namespace, watched.name)
        except NotFoundError as error:
            raise HookJobLostError("somebody has deleted its Job") from error
        if found["metadata"]["uid"] != watched.uid or found["metadata"].get("deletionTimestamp"):
            raise HookJobLostError("somebody has deleted its Job")
        condition = _condition(found)
        if not condition:
            return None
        if condition.get("reason") == "DeadlineExceeded":
            return _Finished(None, "time")
        raise HookJobLostError(f"its pod was lost: {condition.get('reason', condition['type'])}")

    async def _output(self, watched: _Watched, job: HookJob, finished: _Finished) -> bytes:
        """One byte more than is kept, which tells a long output. Raises HookJobLostError: of a success the output is
        the answer, and none is another one."""
        while True:
            try:
                return await self._log(watched, job)
            except UnavailableError:
                await asyncio.sleep(LOOK_SECONDS)
            except EngineError as error:
                if finished.exit_code == 0:
                    raise HookJobLostError(f"its output cannot be read: {error.message}") from error
                return b""

    async def _last_output(self, watched: _Watched, job: HookJob) -> bytes:
        with contextlib.suppress(EngineError, TimeoutError):
            async with asyncio.timeout(LOG_SECONDS):
                return await self._log(watched, job)
        return b""

    async def _log(self, watched: _Watched, job: HookJob) -> bytes:
        if watched.pod is None:
            return b""
        return await self._api.log_head(self._namespace, watched.pod, CONTAINER, job.output_bytes_max + 1)

    async def _remove(self, watched: _Watched) -> None:
        """Also when it is not known whether it was made. What cannot be removed now ends at its deadline."""
        try:
            async with asyncio.timeout(REMOVE_SECONDS):
                await self._api.delete(JOBS, self._namespace, watched.name, uid=watched.uid or None)
        except (EngineError, TimeoutError) as error:
            log.warning("hook_jobs.left", job=watched.name, error=f"{type(error).__name__}: {error}")


def _terminated(pod: Document) -> Document | None:
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    found: Document = next((item for item in statuses if item.get("name") == CONTAINER), {})
    ended: Document | None = (found.get("state") or {}).get("terminated")
    return ended


def _stop_reason(pod: Document) -> JobStopReason | None:
    """What the pod itself was ended for, of what is its own fault."""
    status: dict[str, Any] = pod.get("status") or {}
    if status.get("reason") == "DeadlineExceeded":
        return "time"
    message = str(status.get("message", "")).lower()
    # A node that is short of disk evicts as well, but then says that the node was low on it.
    by_limit = status.get("reason") == "Evicted" and "was low on" not in message
    return "disk" if by_limit and any(word in message for word in _DISK_WORDS) else None


def _condition(job: Document) -> Document:
    """The one that says that it has ended, if it has."""
    conditions = (job.get("status") or {}).get("conditions") or ()
    found = [item for item in conditions if item.get("type") in _ENDED and item.get("status") == "True"]
    return min(found, key=lambda item: _ENDED.index(item["type"]), default={})
