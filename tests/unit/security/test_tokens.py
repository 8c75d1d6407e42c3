import base64
import hmac
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import jwt
import orjson
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ConfigurationError, ForbiddenError, InvalidParametersError, UnauthenticatedError
from engine.security import tokens
from engine.security.keys import FixedKeys, VerificationKey, create_key_file, key_id
from engine.security.permissions import ROLES, Permission, permissions_of
from engine.security.tokens import TokenIssuer, TokenVerifier

KEY = Ed25519PrivateKey.generate()
KID = key_id(KEY.public_key())
ISSUER = TokenIssuer(KEY, "orchestrator", "orchestrator")


def verifier(**changes: Any) -> TokenVerifier:
    keys = FixedKeys({KID: VerificationKey(KEY.public_key(), "EdDSA")})
    return TokenVerifier(keys, "orchestrator", "orchestrator", **changes)


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    made = {
        "sub": "ann",
        "tenant": "acme",
        "roles": ["viewer"],
        "iss": "orchestrator",
        "aud": "orchestrator",
        "iat": now,
        "exp": now + 60,
    }
    return {name: value for name, value in (made | changes).items() if value is not None}


def signed(payload: dict[str, Any], **headers: Any) -> str:
    return jwt.encode(payload, KEY, algorithm="EdDSA", headers={"kid": KID, **headers})


def forged(header: dict[str, Any], payload: dict[str, Any], signature: bytes = b"") -> str:
    def part(raw: bytes) -> str:
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()

    return ".".join((part(orjson.dumps(header)), part(orjson.dumps(payload)), part(signature)))


async def test_an_issued_token_names_subject_tenant_roles_and_what_they_allow() -> None:
    token = ISSUER.issue(tenant="acme", roles=["operator"], subject="ann")
    principal = await verifier().verify(token)
    assert (principal.subject, principal.tenant, principal.roles) == ("ann", "acme", ("operator",))
    assert principal.permissions == ROLES["operator"]
    assert principal.expires_at > time.time()
    assert jwt.get_unverified_header(token)["kid"] == KID


@pytest.mark.parametrize(
    "changes",
    [
        {"exp": int(time.time()) - 1},
        {"exp": None},
        {"iat": int(time.time()) + 3600},
        {"iat": None},
        {"iss": "somebody"},
        {"iss": None},
        {"aud": "another"},
        {"aud": None},
        {"sub": None},
        {"sub": ""},
        {"sub": "a\nb"},
        {"sub": 7},
        {"sub": "x" * 300},
        {"tenant": None},
        {"tenant": "ACME"},
        {"tenant": "acme\n"},
        {"tenant": "../other"},
        {"tenant": ["acme"]},
        {"roles": None},
        {"roles": "admin"},
        {"roles": [1]},
        {"roles": ["admin"] * 100},
        {"nbf": int(time.time()) + 3600},
    ],
)
async def test_a_token_with_a_wrong_or_missing_claim_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UnauthenticatedError):
        await verifier().verify(signed(claims(**changes)))


async def test_claims_that_are_right_pass_so_that_the_refusals_above_mean_something() -> None:
    assert (await verifier().verify(signed(claims()))).tenant == "acme"


def unsigned() -> str:
    return forged({"alg": "none", "kid": KID}, claims())


def signed_with_the_public_key_as_hmac_secret() -> str:
    pem = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    token = forged({"alg": "HS256", "kid": KID, "typ": "JWT"}, claims())
    body = token.rpartition(".")[0]
    signature = hmac.new(pem, body.encode(), sha256).digest()
    return f"{body}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def signed_by_a_stranger(**headers: Any) -> str:
    return jwt.encode(claims(), Ed25519PrivateKey.generate(), algorithm="EdDSA", headers={"kid": KID, **headers})


def signed_with_another_algorithm() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    return jwt.encode(claims(), key, algorithm="ES256", headers={"kid": KID})


@pytest.mark.parametrize(
    "token",
    [
        unsigned(),
        signed_with_the_public_key_as_hmac_secret(),
        signed_with_another_algorithm(),
        signed_by_a_stranger(),
        signed_by_a_stranger(jku="http://127.0.0.1:1/keys", x5u="http://127.0.0.1:1/cert"),
        signed(claims(), kid="../../etc/passwd"),
        signed(claims(), kid="' OR 1=1 --"),
        jwt.encode(claims(), KEY, algorithm="EdDSA"),
        signed(claims())[:-4] + "AAAA",
        forged({"alg": "EdDSA", "kid": [KID]}, claims()),
        forged({"alg": "EdDSA", "kid": {"a": 1}}, claims()),
        "",
        "a.b.c",
        "é.ü.ß",
        "x" * 100_000,
        "\ud800",
    ],
)
async def test_a_forged_token_is_refused(token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        await verifier().verify(token)


async def test_a_key_inside_the_token_is_not_used() -> None:
    stranger = Ed25519PrivateKey.generate()
    raw = stranger.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": base64.urlsafe_b64encode(raw).rstrip(b"=").decode()}
    token = jwt.encode(claims(), stranger, algorithm="EdDSA", headers={"kid": KID, "jwk": jwk})
    with pytest.raises(UnauthenticatedError):
        await verifier().verify(token)


async def test_a_token_is_remembered_until_its_expiry_and_not_longer() -> None:
    now = time.time()
    clock = [now]
    checked = verifier(clock=lambda: clock[0])
    token = signed(claims(exp=int(now) + 30))
    first = await checked.verify(token)
    assert await checked.verify(token) is first
    clock[0] = int(now) + 30
    assert await checked.verify(token) is not first


async def test_remembered_tokens_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "REMEMBERED_MAX", 3)
    checked = verifier()
    for number in range(10):
        await checked.verify(signed(claims(sub=f"s{number}")))
    assert len(checked._remembered) == 3


@given(st.text(max_size=60))
async def test_no_text_is_a_token_by_chance(text: str) -> None:
    with pytest.raises(UnauthenticatedError):
        await verifier().verify(text)


@pytest.mark.parametrize(
    ("tenant", "roles"), [("Acme", ["admin"]), ("acme\n", ["admin"]), ("acme", []), ("acme", ["root"])]
)
def test_a_token_that_no_verifier_would_take_is_not_issued(tenant: str, roles: list[str]) -> None:
    with pytest.raises(InvalidParametersError):
        ISSUER.issue(tenant=tenant, roles=roles)


async def test_a_token_from_a_key_file_is_verified_with_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "token.pem"
    create_key_file(path)
    token = TokenIssuer.from_file(path).issue(tenant="acme", roles=["viewer"])
    checked = TokenVerifier(FixedKeys.from_file(path), "orchestrator", "orchestrator")
    assert (await checked.verify(token)).roles == ("viewer",)


def test_a_verifier_without_issuer_or_audience_is_not_made() -> None:
    with pytest.raises(ConfigurationError):
        TokenVerifier(FixedKeys({}), "", "orchestrator")


async def test_a_role_that_is_not_known_allows_nothing() -> None:
    principal = await verifier().verify(signed(claims(roles=["root", "superuser"])))
    assert principal.permissions == frozenset()
    with pytest.raises(ForbiddenError):
        principal.require(Permission.WORKFLOW_READ)


async def test_roles_add_up() -> None:
    principal = await verifier().verify(signed(claims(roles=["developer", "operator"])))
    principal.require(Permission.WORKFLOW_CREATE)
    principal.require(Permission.WORKFLOW_ADMIN)


def test_there_are_nine_permissions_and_admin_has_them_all() -> None:
    assert len(Permission) == 9
    assert permissions_of(("admin",)) == frozenset(Permission)
    assert not permissions_of(("viewer",)) & {Permission.WORKFLOW_CREATE, Permission.WORKFLOW_EXECUTE}
