"""What a pod's document never holds, whatever the catalogue says; and what pods of a pool have."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from engine.agents.kubernetes import names
from engine.agents.kubernetes.names import Identity
from engine.agents.kubernetes.namespaces import policy_documents, quota_document
from engine.agents.kubernetes.pods import PodDefaults, agent_pod, pool_pod
from engine.contracts.catalogue import AgentType, Catalogue
from engine.contracts.pods import PodSettings, Toleration
from engine.errors import AllocationFailedError
from engine.settings import Settings

WHO = Identity("acme", "e-1", "worker", "worker-1", "coder")
DEFAULTS = PodDefaults(owner="o", image="agent:1", command=("python3",), pull_secrets=("pull",), priority_class="high")
SETTINGS = st.builds(
    PodSettings,
    placement=st.sampled_from(["any", "spread", "together"]),
    placement_required=st.booleans(),
    tmp_bytes=st.integers(0, 2**34),
    grace_seconds=st.none() | st.integers(0, 3600),
    command=st.none() | st.lists(st.text(alphabet="ab $()", max_size=5), min_size=1, max_size=3).map(tuple),
)


@given(SETTINGS, st.dictionaries(st.sampled_from(["A", "HOME", "ORCHESTRATION_AGENT_TENANT"]), st.text(max_size=5)))
def test_a_pod_is_restricted_and_the_engine_s_variables_are_its_own(
    settings: PodSettings, environment: dict[str, str]
) -> None:
    agent_type = AgentType(entry="synthetic", kubernetes=settings, environment=environment)
    spec = agent_pod("n", WHO, agent_type, (1, 1), DEFAULTS)["spec"]
    assert not {"hostNetwork", "hostPID", "hostIPC", "serviceAccountName", "initContainers"} & set(spec)
    assert spec["automountServiceAccountToken"] is False
    (volume,) = spec["volumes"]
    assert set(volume) == {"name", "emptyDir"}
    (container,) = spec["containers"]
    security = container["securityContext"]
    assert security["privileged"] is False
    assert security["allowPrivilegeEscalation"] is False
    assert container["resources"]["requests"] == container["resources"]["limits"]
    given_names = [item["name"] for item in container["env"]]
    assert len(given_names) == len(set(given_names))
    values = {item["name"]: item.get("value") for item in container["env"]}
    assert values["ORCHESTRATION_AGENT_TENANT"] == "acme"
    assert values["ORCHESTRATION_AGENT_HOST_ID"] == "$(POD_NAME).$(POD_UID)"
    for name, value in environment.items():
        if not name.startswith("ORCHESTRATION"):
            assert values[name].replace("$$", "$") == value


def test_a_pod_of_a_pool_is_nobody_s_yet() -> None:
    settings = PodSettings(placement="spread")
    pod = pool_pod("n", "acme", "coder", 3, AgentType(entry="synthetic", kubernetes=settings), (1, 1), DEFAULTS)
    assert pod["metadata"]["labels"][names.POOL] == "coder"
    assert names.EXECUTION not in pod["metadata"]["labels"]
    environment = {item["name"]: item.get("value") for item in pod["spec"]["containers"][0]["env"]}
    assert environment["ORCHESTRATION_AGENT_DEDICATED_TO"] == "/"
    assert "topologySpreadConstraints" not in pod["spec"]
    assert names.identity_of(pod["metadata"]) is None


def test_settings_of_all_pods_stand_behind_those_of_the_type() -> None:
    spec = agent_pod("n", WHO, AgentType(entry="synthetic"), (1, 1), DEFAULTS)["spec"]
    assert spec["priorityClassName"] == "high"
    assert spec["imagePullSecrets"] == [{"name": "pull"}]
    unreachable = Toleration(key="node.kubernetes.io/unreachable", operator="Exists")
    own = PodSettings(priority_class="low", image_pull_policy="Never", tolerations=(unreachable,))
    spec = agent_pod("n", WHO, AgentType(entry="synthetic", kubernetes=own, image="b:2"), (1, 1), DEFAULTS)["spec"]
    assert spec["priorityClassName"] == "low"
    assert spec["containers"][0]["image"] == "b:2"
    assert spec["containers"][0]["imagePullPolicy"] == "Never"
    assert [item["key"] for item in spec["tolerations"]].count("node.kubernetes.io/unreachable") == 1


def test_without_an_image_there_is_no_pod() -> None:
    with pytest.raises(AllocationFailedError, match="AGENT_IMAGE"):
        agent_pod("n", WHO, AgentType(entry="synthetic"), (1, 1), PodDefaults(owner="o"))


@pytest.mark.parametrize(
    ("url", "networks", "cidr", "port"),
    [
        ("redis://10.0.0.7/0", (), "10.0.0.7/32", 6379),
        ("redis://[fd00::7]:7000", (), "fd00::7/128", 7000),
        ("redis://redis.svc:6380", (), None, 6380),
        ("redis://redis.svc", ("10.2.0.0/16",), "10.2.0.0/16", 6379),
    ],
)
def test_agents_reach_redis_and_names_where_it_has_one(
    url: str, networks: tuple[str, ...], cidr: str | None, port: int
) -> None:
    settings = Settings(_env_file=None, kubernetes_redis_url=SecretStr(url), kubernetes_redis_networks=networks)
    denied, redis = policy_documents(settings, Catalogue())
    assert denied["spec"]["policyTypes"] == ["Ingress", "Egress"]
    first, *others = redis["spec"]["egress"]
    assert first.get("to") == (None if cidr is None else [{"ipBlock": {"cidr": cidr}}])
    assert first["ports"] == [{"protocol": "TCP", "port": port}]
    assert bool(others) == ("redis.svc" in url)


def test_the_quota_is_the_settings() -> None:
    hard = quota_document(Settings(_env_file=None, kubernetes_quota_pods=3))["spec"]["hard"]
    assert hard["pods"] == "3"
    assert hard["requests.cpu"] == hard["limits.cpu"] == "100000m"
