"""Hooks' Jobs against a cluster in memory: what is made, how ends are told apart, what is left."""

import asyncio
import base64
import json
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import KubernetesApi, QuotaExceededError, RefusedError
from engine.agents.kubernetes.hook_job_documents import POLICY, job_document, policy_document
from engine.agents.kubernetes.hook_jobs import HookJobLostError, HookJobNotStartedError, KubernetesHookJobs
from engine.contracts.hook_jobs import HookJob, HookJobEnded
from engine.errors import ConfigurationError, EngineError, NotFoundError, UnavailableError
from engine.settings import Settings
from tests.unit.agents.kubernetes.job_cluster import JobCluster, ended_pod, pod_of

IMAGE = "registry.example/hooks:1"
EVICTED = "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi."


def settings_of(**changed: Any) -> Settings:
    return Settings.model_validate({"hooks_job_image": IMAGE, "hooks_job_namespace": "hook-jobs", **changed})


def job_of(**changed: Any) -> HookJob:
    job: dict[str, Any] = {
        "tenant": "acme", "key": "run/1", "argv": ("pytest", "-q"), "environment": {"LANG": "C.UTF-8"},
        "timeout_seconds": 5.0, "memory_bytes_max": 256 * 1024**2, "disk_bytes_max": 1024**3, "output_bytes_max": 1024,
        "work_inside": "/hookwork",
    }  # fmt: skip
    return HookJob(**{**job, **changed})


async def run(cluster: JobCluster, job: HookJob | None = None, **settings: Any) -> HookJobEnded:
    return await KubernetesHookJobs(cast(KubernetesApi, cluster), settings_of(**settings)).run(job or job_of())


def spec_of(job: HookJob, **settings: Any) -> dict[str, Any]:
    document = job_document(settings_of(**settings), "hook-x", job)
    spec: dict[str, Any] = document["spec"]["template"]["spec"]
    return spec


async def test_a_command_runs_once_is_read_and_leaves_nothing() -> None:
    cluster = JobCluster(lambda job: [ended_pod(0)])
    ended = await run(cluster)
    assert (ended.exit_code, ended.reason, ended.output, ended.truncated) == (0, None, b"printed", False)
    assert cluster.removed == [names.hook_job_name("orchestrator", "acme", "run/1")]
    assert cluster.jobs == []
    assert list(cluster.objects) == [("networkpolicies", POLICY)], "what denies the network stays"


async def test_the_network_is_denied_before_anything_runs() -> None:
    cluster = JobCluster(lambda job: [ended_pod(0)])
    jobs = KubernetesHookJobs(cast(KubernetesApi, cluster), settings_of())
    await jobs.run(job_of())
    assert cluster.asked[0] == ("create", "networkpolicies")
    await jobs.run(job_of(key="run/2"))
    assert cluster.asked.count(("create", "networkpolicies")) == 1
    policy = cluster.objects["networkpolicies", POLICY]
    policy["spec"] = {"podSelector": {}}
    await run(cluster)
    assert policy["spec"] == policy_document(settings_of())["spec"], "what somebody has changed is put right"
    assert "ingress" not in policy["spec"]
    assert "egress" not in policy["spec"]


async def test_more_output_than_is_kept_is_told() -> None:
    cluster = JobCluster(lambda job: [ended_pod(1)])
    cluster.log = b"x" * 2000
    ended = await run(cluster)
    assert (ended.exit_code, len(ended.output), ended.truncated) == (1, 1024, True)


FATES: dict[str, tuple[dict[str, Any], tuple[int | None, str | None]]] = {
    "status": (ended_pod(3), (3, None)),
    "memory": (ended_pod(137, "OOMKilled"), (None, "memory")),
    "disk": (ended_pod(137, "Error", reason="Evicted", message=EVICTED), (None, "disk")),
    "disk before it ended": (pod_of("Failed", reason="Evicted", message=EVICTED), (None, "disk")),
    "the pod's deadline": (pod_of("Failed", reason="DeadlineExceeded"), (None, "time")),
}


@pytest.mark.parametrize("fate", FATES)
async def test_each_end_has_its_reason(fate: str) -> None:
    pod, expected = FATES[fate]
    cluster = JobCluster(lambda job: [pod])
    ended = await run(cluster)
    assert (ended.exit_code, ended.reason) == expected
    assert cluster.jobs == []


@pytest.mark.parametrize("pods", [[], [{**ended_pod(143)}], [pod_of("Failed")]], ids=["no pod", "ended", "failed"])
async def test_the_jobs_deadline_is_a_matter_of_time(pods: list[dict[str, Any]]) -> None:
    if pods and not pods[0]["status"]["containerStatuses"]:
        pods[0]["metadata"] = {**pods[0]["metadata"], "deletionTimestamp": "2026-01-01T00:00:01Z"}

    def happens(job: dict[str, Any]) -> list[dict[str, Any]]:
        job["status"] = {"conditions": [{"type": "FailureTarget", "status": "True", "reason": "DeadlineExceeded"}]}
        return pods

    ended = await run(JobCluster(happens))
    assert (ended.exit_code, ended.reason) == (None, "time")


async def test_what_takes_too_long_is_ended_with_what_it_has_printed() -> None:
    cluster = JobCluster(lambda job: [pod_of("Running", {"running": {}})])
    ended = await run(cluster, job_of(timeout_seconds=0.4))
    assert (ended.reason, ended.output) == ("time", b"printed")
    assert cluster.jobs == []


async def test_output_that_cannot_be_read_is_nothing_after_a_failure_and_an_error_after_a_success() -> None:
    cluster = JobCluster(lambda job: [ended_pod(2)])
    cluster.errors["log", "pods"] = [UnavailableError("busy"), RefusedError("rotated away")]
    assert (await run(cluster)).output == b""
    cluster = JobCluster(lambda job: [ended_pod(0)])
    cluster.errors["log", "pods"] = [RefusedError("rotated away")]
    with pytest.raises(HookJobLostError, match="cannot be read"):
        await run(cluster)
    cluster = JobCluster(lambda job: [pod_of("Running", {"running": {}})])
    cluster.errors["log", "pods"] = [RefusedError("rotated away")]
    assert (await run(cluster, job_of(timeout_seconds=0.3))).output == b""


NOT_STARTED = {
    "image": pod_of("Pending", {"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}}),
    "no room": pod_of(
        "Pending",
        conditions=[{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node fits"}],
    ),
}


@pytest.mark.parametrize("why", NOT_STARTED)
async def test_what_never_ran_is_told_apart_from_what_took_too_long(why: str) -> None:
    cluster = JobCluster(lambda job: [NOT_STARTED[why]])
    with pytest.raises(HookJobNotStartedError) as told:
        await run(cluster, job_of(timeout_seconds=0.4))
    assert ("ErrImageNeverPull" if why == "image" else "no node fits") in told.value.message
    assert told.value.code == "JOB_NOT_STARTED"
    assert cluster.jobs == []


async def test_a_missing_namespace_and_a_refused_job_are_told() -> None:
    cluster = JobCluster()
    cluster.errors["create", "networkpolicies"] = [NotFoundError("no such namespace")]
    with pytest.raises(HookJobNotStartedError, match="no namespace hook-jobs"):
        await run(cluster)
    cluster.errors["create", "jobs"] = [RefusedError("not allowed")]
    with pytest.raises(RefusedError):
        await run(cluster)


async def test_a_cluster_that_does_not_answer_is_asked_again_until_the_time_is_over() -> None:
    cluster = JobCluster(lambda job: [ended_pod(0)])
    cluster.errors = {
        ("create", "networkpolicies"): [UnavailableError("down")],
        ("create", "jobs"): [QuotaExceededError("no room")],
        ("list", "pods"): [UnavailableError("down")],
    }
    assert (await run(cluster)).exit_code == 0
    cluster.errors = {("create", "jobs"): [UnavailableError("it is down")] * 100}
    with pytest.raises(HookJobNotStartedError, match="it is down"):
        await run(cluster, job_of(timeout_seconds=0.3))


def lost_by(kind: str, cluster: JobCluster, job: dict[str, Any]) -> list[dict[str, Any]]:
    name = job["metadata"]["name"]
    match kind:
        case "the Job is gone":
            del cluster.objects["jobs", name]
        case "the Job is going":
            job["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        case "another Job has the name":
            cluster.objects["jobs", name] = {**job, "metadata": {**job["metadata"], "uid": "other"}}
        case "its pod is gone":
            job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]}
        case "the node was low on disk":
            return [pod_of("Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage.")]
        case "its pod was deleted":
            pod = ended_pod(143)
            return [{**pod, "metadata": {**pod["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"}}]
    return []


@pytest.mark.parametrize(
    "kind",
    ["the Job is gone", "the Job is going", "another Job has the name", "its pod is gone", "the node was low on disk",
     "its pod was deleted"],
)  # fmt: skip
async def test_a_run_of_which_nobody_knows_the_end_is_lost_and_not_failed(kind: str) -> None:
    cluster = JobCluster()
    cluster.happens = lambda job: lost_by(kind, cluster, job)
    with pytest.raises(HookJobLostError) as told:
        await run(cluster)
    assert told.value.code == "JOB_LOST"


async def test_whoever_takes_a_run_over_finds_the_job_of_the_one_that_died() -> None:
    cluster = JobCluster(lambda job: [pod_of("Running", {"running": {}})])
    first = asyncio.create_task(run(cluster))
    await cluster.called["list", "pods"].wait()
    made = cluster.jobs[0]["metadata"]["uid"]
    cluster.happens = lambda job: [ended_pod(0)] if job["metadata"]["uid"] == made else []
    assert (await run(cluster)).exit_code == 0
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert cluster.asked.count(("create", "jobs")) == 2, "the second was refused"


async def test_one_that_is_being_deleted_is_waited_out() -> None:
    cluster = JobCluster(lambda job: [ended_pod(0)])
    name = names.hook_job_name("orchestrator", "acme", "run/1")
    going = {"metadata": {"name": name, "uid": "old", "deletionTimestamp": "now"}, "spec": {"suspend": False}}
    cluster.objects["jobs", name] = going
    running = asyncio.create_task(run(cluster))
    await cluster.called["get", "jobs"].wait()
    del cluster.objects["jobs", name]
    assert (await running).exit_code == 0


async def test_a_cancelled_run_leaves_no_job() -> None:
    cluster = JobCluster(lambda job: [pod_of("Running", {"running": {}})])
    running = asyncio.create_task(run(cluster))
    await cluster.called["list", "pods"].wait()
    assert len(cluster.jobs) == 1
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert cluster.jobs == []


async def test_a_job_that_cannot_be_removed_does_not_change_how_it_ended() -> None:
    cluster = JobCluster(lambda job: [ended_pod(0)])
    cluster.errors["delete", "jobs"] = [UnavailableError("down")]
    assert (await run(cluster)).exit_code == 0


async def test_secrets_go_by_a_secret_of_the_job_before_it_runs() -> None:
    seen: list[dict[str, Any]] = []

    def happens(job: dict[str, Any]) -> list[dict[str, Any]]:
        seen.append(cluster.objects["secrets", job["metadata"]["name"]])
        return [ended_pod(0)]

    cluster = JobCluster(happens)
    job = job_of(secrets={"API_TOKEN": "s3cret-value"})
    await run(cluster, job)
    (secret,) = seen
    assert base64.b64decode(secret["data"]["API_TOKEN"]) == b"s3cret-value"
    assert secret["metadata"]["ownerReferences"][0]["kind"] == "Job", "it goes with it"
    document = json.dumps(job_document(settings_of(), "hook-x", job))
    assert "s3cret-value" not in document + repr(job)
    assert job_document(settings_of(), "hook-x", job)["spec"]["suspend"], "it does not start without them"
    cluster.objects.clear()
    cluster.errors["create", "secrets"] = [UnavailableError("down")]
    assert (await run(cluster, job)).exit_code == 0, "the Job that is there already gets them"


def test_the_container_may_do_nothing_but_compute() -> None:
    spec = spec_of(job_of())
    (container,) = spec["containers"]
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"] == {"cpu": "1000m", "memory": "256Mi", "ephemeral-storage": "1Gi"}
    assert container["resources"]["requests"] == container["resources"]["limits"]
    document = job_document(settings_of(), "hook-x", job_of(timeout_seconds=7.2))
    assert document["spec"]["backoffLimit"] == 0
    assert document["spec"]["activeDeadlineSeconds"] == 13
    assert document["spec"]["ttlSecondsAfterFinished"] > 0
    labels = document["spec"]["template"]["metadata"]["labels"]
    assert policy_document(settings_of())["spec"]["podSelector"]["matchLabels"].items() <= labels.items()


def test_the_volume_is_mounted_at_the_tenants_own_folder_and_as_its_owner() -> None:
    empty = spec_of(job_of(owner=(1234, 1235)))
    assert "emptyDir" in empty["volumes"][1]
    assert empty["securityContext"]["runAsUser"] == 65532
    shared = spec_of(job_of(owner=(1234, 1235)), hooks_job_volume_claim="work")
    assert shared["volumes"][1]["persistentVolumeClaim"] == {"claimName": "work"}
    assert shared["containers"][0]["volumeMounts"][1]["subPath"] == "acme"
    assert (shared["securityContext"]["runAsUser"], shared["securityContext"]["runAsGroup"]) == (1234, 1235)
    assert "fsGroup" not in shared["securityContext"], "it would change all tenants' files"
    roots = spec_of(job_of(owner=(0, 0)), hooks_job_volume_claim="work")
    assert roots["securityContext"]["runAsUser"] == 65532


def replaced(text: str, variables: dict[str, str]) -> str:
    """As the kubelet does it: `$(NAME)` by its value, `$$` by one `$`."""
    out, index = "", 0
    while index < len(text):
        if text[index] == "$" and text[index + 1 : index + 2] == "$":
            out, index = out + "$", index + 2
        elif text[index] == "$" and text[index + 1 : index + 2] == "(" and ")" in text[index:]:
            end = text.index(")", index)
            out, index = out + variables.get(text[index + 2 : end], "?"), end + 1
        else:
            out, index = out + text[index], index + 1
    return out


@given(st.lists(st.text("$()AHOME -;|`'\"x", max_size=12), min_size=1, max_size=4))
def test_arguments_arrive_as_they_are(arguments: list[str]) -> None:
    command = spec_of(job_of(argv=("pytest", *arguments), environment={"A": arguments[0]}))["containers"][0]
    assert [replaced(part, {"HOME": "/root"}) for part in command["command"]] == ["pytest", *arguments]
    assert replaced(command["env"][0]["value"], {"HOME": "/root"}) == arguments[0]


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_names_tell_tenants_and_runs_apart(tenant: str, key: str, other: str) -> None:
    name = names.hook_job_name("o", tenant, key)
    assert name == names.hook_job_name("o", tenant, key)
    assert len(name) <= 63
    assert (name == names.hook_job_name("o", tenant, other)) == (key == other)
    assert (name == names.hook_job_name("o", other, key)) == (tenant == other)


def test_without_an_image_there_are_no_jobs() -> None:
    with pytest.raises(ConfigurationError):
        job_document(Settings.model_validate({}), "hook-x", job_of())


def test_lost_and_not_started_are_worth_another_try() -> None:
    assert all(issubclass(kind, EngineError) and kind.transient for kind in (HookJobLostError, HookJobNotStartedError))
