"""Names and labels: valid whatever they are made of, and different for whatever is different."""

import re

from hypothesis import given
from hypothesis import strategies as st

from engine.agents.kubernetes import names
from engine.agents.kubernetes.names import Identity

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")
WORDS = st.one_of(
    st.text(max_size=80),
    st.text(alphabet="abcXYZ09-_.", min_size=1, max_size=300),
    st.sampled_from(["worker-1", "a" * 63, "a" * 64, "-", "ä", "a/b", "a\0b"]),
)
TENANTS = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)


@given(WORDS, WORDS, WORDS, WORDS)
def test_a_pod_s_name_can_be_a_host_s_name(owner: str, tenant: str, execution: str, agent: str) -> None:
    name = names.pod_name(owner, tenant, execution, agent)
    assert DNS_LABEL.fullmatch(name)
    assert name == names.pod_name(owner, tenant, execution, agent)


@given(st.tuples(WORDS, WORDS, WORDS, WORDS), st.tuples(WORDS, WORDS, WORDS, WORDS))
def test_two_agents_never_share_a_name(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> None:
    assert (names.pod_name(*one) == names.pod_name(*other)) == (one == other)


@given(WORDS)
def test_a_label_s_value_is_always_one(value: str) -> None:
    assert LABEL.fullmatch(names.label_value(value))


@given(WORDS, WORDS)
def test_different_values_have_different_labels(one: str, other: str) -> None:
    assert (names.label_value(one) == names.label_value(other)) == (one == other)


@given(st.from_regex(r"[a-z][a-z0-9-]{0,38}", fullmatch=True), TENANTS, TENANTS)
def test_each_tenant_has_a_namespace_of_its_own(prefix: str, one: str, other: str) -> None:
    name = names.namespace_name(prefix, one)
    assert DNS_LABEL.fullmatch(name)
    assert (name == names.namespace_name(prefix, other)) == (one == other)


@given(st.text(alphabet="abc-XY ä", max_size=60), st.integers(0, 99), st.integers(0, 99))
def test_pods_of_a_pool_are_numbered(agent_type: str, one: int, other: int) -> None:
    name = names.pool_pod_name("o", "t", agent_type, one)
    assert DNS_LABEL.fullmatch(name)
    assert (name == names.pool_pod_name("o", "t", agent_type, other)) == (one == other)
    assert DNS_LABEL.fullmatch(names.object_name("agents-egress", agent_type))


@given(WORDS, WORDS, WORDS, WORDS, WORDS)
def test_whose_a_pod_is_can_be_read_back(tenant: str, execution: str, role: str, agent: str, kind: str) -> None:
    who = Identity(tenant, execution, role, agent, kind)
    assert names.identity_of({"annotations": names.pod_annotations(who)}) == who
    assert all(LABEL.fullmatch(value) for value in names.pod_labels("o", who).values())


def test_what_the_engine_has_not_made_is_nobody_s() -> None:
    assert names.identity_of({}) is None
    assert names.identity_of({"annotations": {names.TENANT: "t"}}) is None


def test_a_host_names_its_pod_and_which_of_that_name() -> None:
    assert names.pod_of_host(names.host_id("worker-1-ab", "u-1")) == ("worker-1-ab", "u-1")
    assert names.pod_of_host("synthetic-0123") == ("synthetic-0123", "")


def test_a_selector_finds_the_agents_of_one_execution() -> None:
    selector = names.agents_selector("o", tenant="t", execution_id="e")
    assert f"{names.EXECUTION}=e" in selector
    assert f"{names.OWNER}=o" in selector
    assert names.EXECUTION not in names.agents_selector("o")
