"""Secrets: whose they are, where they come from, and that nothing shows them."""

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import InvalidHookActionError
from engine.settings import Settings
from hooks.secrets import EnvironmentSecrets, FileSecrets, SecretStore, SecretValues

ENVIRONMENT = {
    "ORCHESTRATOR_HOOK_SECRET_TEAM_A__API_KEY": "key of team-a",
    "ORCHESTRATOR_HOOK_SECRET_TEAM__A_KEY": "key of team",
    "ORCHESTRATOR_HOOK_SECRET_TEAM__SHORT": "short",
    "PATH": "not a secret",
}


@pytest.mark.parametrize(
    ("tenant", "secret_id", "value"),
    [
        ("team-a", "api-key", "key of team-a"),
        ("team-a", "api_key", "key of team-a"),
        ("team", "a-key", "key of team"),
        ("team", "api-key", None),
        ("team-", "a-key", None),
        ("team--a", "key", None),
        ("other", "api-key", None),
    ],
)
async def test_a_secret_of_the_environment_is_its_tenants(tenant: str, secret_id: str, value: str | None) -> None:
    assert await EnvironmentSecrets(ENVIRONMENT).read(tenant, secret_id) == value


async def test_files_are_read_as_kubernetes_mounts_them(tmp_path: Path) -> None:
    mounted = tmp_path / "team"
    (mounted / "..2026").mkdir(parents=True)
    (mounted / "..2026" / "key").write_text("first value\n")
    (mounted / "..data").symlink_to("..2026")
    (mounted / "key").symlink_to("..data/key")
    source = FileSecrets(tmp_path)
    assert await source.read("team", "key") == "first value"
    (mounted / "..2027").mkdir()
    (mounted / "..2027" / "key").write_text("second value")
    (mounted / "..data").unlink()
    (mounted / "..data").symlink_to("..2027")
    assert await source.read("team", "key") == "second value"
    assert await source.read("team", "..data") is None
    assert await source.read("other", "key") is None


async def test_files_of_others_are_not_read(tmp_path: Path) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "key").write_text("other's value")
    (tmp_path / "team" / "link").symlink_to("../other/key")
    (tmp_path / "team" / "large").write_text("x" * 100_000)
    (tmp_path / "team" / "binary").write_bytes(b"\xff" * 20)
    source = FileSecrets(tmp_path)
    for secret_id in ("link", "../other/key", "large", "binary", ".", "none"):
        assert await source.read("team", secret_id) is None


async def test_the_first_source_that_has_it_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "team").mkdir()
    (tmp_path / "team" / "a-key").write_text("key of the file")
    monkeypatch.setenv("ORCHESTRATOR_HOOK_SECRET_TEAM__A_KEY", "key of the environment")
    monkeypatch.setenv("ORCHESTRATOR_HOOK_SECRET_TEAM__B_KEY", "b of the environment")

    class Vault:
        async def read(self, tenant: str, secret_id: str) -> str | None:
            return f"{secret_id} of the vault"

    store = SecretStore.from_settings(Settings(_env_file=None, hooks_secrets_dir=tmp_path), Vault())
    values = await store.values("team", ["a-key", "b-key", "c-key"])
    assert values["a-key"] == "key of the file"
    assert values["b-key"] == "b of the environment"
    assert values["c-key"] == "c-key of the vault"
    without = SecretStore.from_settings(Settings(_env_file=None))
    assert (await without.values("team", ["a-key"]))["a-key"] == "key of the environment"


@pytest.mark.parametrize(
    ("tenant", "secret_id"), [("team", "none"), ("team", "short"), ("team", "../x"), ("../x", "a")]
)
async def test_a_secret_that_is_missing_or_unusable_is_named_and_not_shown(tenant: str, secret_id: str) -> None:
    with pytest.raises(InvalidHookActionError) as refused:
        await SecretStore([EnvironmentSecrets(ENVIRONMENT)]).values(tenant, [secret_id])
    assert refused.value.data["reason"] == "VALUE_MISSING"
    assert "of team" not in refused.value.message


def test_values_are_not_shown_by_accident() -> None:
    values = SecretValues({"key": "s3cret-value"})
    assert "s3cret-value" not in f"{values} {values!r} {[values]}"
    assert values.mapping["key"] == "s3cret-value"


@given(
    value=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=8, max_size=60),
    before=st.binary(max_size=5),
    after=st.binary(max_size=5),
)
def test_no_usual_form_of_a_value_stays_in_a_text(value: str, before: bytes, after: bytes) -> None:
    values = SecretValues({"key": value})
    forms = [value, quote(value), quote(value, safe=""), json.dumps(value)[1:-1], value.encode().hex()]
    for form in forms:
        redacted = values.redact(f"<<{form}>>")
        assert "[secret:key]" in redacted
        assert form not in redacted.replace("[secret:key]", "")
    encoded = base64.b64encode(before + value.encode() + after).decode()
    assert "[secret:key]" in values.redact(encoded)


def test_lines_of_a_key_are_found_by_themselves() -> None:
    values = SecretValues({"pem": "-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG\nabc\n-----END KEY-----"})
    assert values.redact("line 2: MIIEvQIBADANBgkqhkiG, abc") == "line 2: [secret:pem], abc"


def test_the_beginning_of_a_value_at_the_end_of_a_cut_text_goes_too() -> None:
    values = SecretValues({"key": "s3cret-value"})
    assert values.redact("it is s3cret-va", truncated=True) == "it is "
    assert values.redact("it is s3c", truncated=True) == "it is s3c"
    assert values.redact("it is s3cret-va") == "it is s3cret-va"
    assert SecretValues({}).redact("s3cret", truncated=True) == "s3cret"


def test_the_longer_of_two_values_is_found_first() -> None:
    values = SecretValues({"a": "s3cret", "b": "s3cret-and-more"})
    assert values.redact("s3cret-and-more s3cret") == "[secret:b] [secret:a]"
