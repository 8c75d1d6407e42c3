import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.errors import ConfigurationError, UnauthenticatedError, UnavailableError
from engine.security.keys import (
    JWKS_LIFETIME_SECONDS,
    JWKS_REFETCH_AFTER_SECONDS,
    JwksKeys,
    create_key_file,
    load_signing_key,
    load_verification_key,
)
from engine.security.tokens import TokenVerifier
from tests.unit.security.test_tokens import claims

RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = Ed25519PrivateKey.generate()


def jwk(key: Any, algorithm: type[Any], **more: Any) -> dict[str, Any]:
    entry: dict[str, Any] = json.loads(algorithm.to_jwk(key.public_key()))
    return entry | more


def document() -> dict[str, Any]:
    return {
        "keys": [
            jwk(RSA_KEY, jwt.algorithms.RSAAlgorithm, kid="rsa", use="sig", alg="RS256"),
            jwk(EC_KEY, jwt.algorithms.ECAlgorithm, kid="ec"),
            jwk(ED_KEY, jwt.algorithms.OKPAlgorithm, kid="ed", alg="EdDSA"),
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0"},
            jwk(RSA_KEY, jwt.algorithms.RSAAlgorithm, kid="encryption", use="enc"),
            jwk(RSA_KEY, jwt.algorithms.RSAAlgorithm, kid="confused", alg="HS256"),
            {"kty": "RSA", "kid": "broken"},
            {"kty": "RSA"},
            "nonsense",
        ]
    }


class Issuer:
    """Somebody else's JWKS address."""

    def __init__(self) -> None:
        self.answer: Callable[[], httpx.Response] = lambda: httpx.Response(200, json=document())
        self.requests = 0
        self.now = 1000.0
        self.client = httpx.AsyncClient(transport=httpx.MockTransport(self.respond))
        self.keys = JwksKeys(self.client, "https://issuer.test/jwks", clock=lambda: self.now)

    def respond(self, _request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return self.answer()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.mark.parametrize(
    ("kid", "key", "algorithm"), [("rsa", RSA_KEY, "RS256"), ("ec", EC_KEY, "ES256"), ("ed", ED_KEY, "EdDSA")]
)
async def test_tokens_of_an_outside_issuer_are_verified_by_its_keys(
    issuer: Issuer, kid: str, key: Any, algorithm: str
) -> None:
    verifier = TokenVerifier(issuer.keys, "orchestrator", "orchestrator")
    token = jwt.encode(claims(), key, algorithm=algorithm, headers={"kid": kid})
    assert (await verifier.verify(token)).tenant == "acme"


@pytest.mark.parametrize("kid", ["shared", "encryption", "confused", "broken", ""])
async def test_keys_that_must_not_verify_are_not_taken(issuer: Issuer, kid: str) -> None:
    assert await issuer.keys.find(kid) is None


async def test_a_shared_secret_in_the_document_signs_nothing(issuer: Issuer) -> None:
    verifier = TokenVerifier(issuer.keys, "orchestrator", "orchestrator")
    token = jwt.encode(claims(), b"secret-secret-secret-secret-secret", algorithm="HS256", headers={"kid": "shared"})
    with pytest.raises(UnauthenticatedError):
        await verifier.verify(token)


async def test_unknown_keys_do_not_cause_a_storm_of_requests(issuer: Issuer) -> None:
    for number in range(50):
        await issuer.keys.find(f"unknown-{number}")
    assert issuer.requests == 1
    issuer.now += JWKS_REFETCH_AFTER_SECONDS + 1
    await issuer.keys.find("unknown")
    assert issuer.requests == 2


async def test_known_keys_outlive_an_outage_of_their_issuer(issuer: Issuer) -> None:
    assert await issuer.keys.find("rsa") is not None
    issuer.answer = lambda: httpx.Response(503)
    issuer.now += JWKS_LIFETIME_SECONDS + 1
    assert await issuer.keys.find("rsa") is not None
    assert issuer.requests == 2


@pytest.mark.parametrize(
    "answer",
    [
        httpx.Response(500),
        httpx.Response(200, text="no json"),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={}),
        httpx.Response(200, content=b" " * 300_000),
    ],
)
async def test_without_any_keys_the_issuer_is_unavailable(issuer: Issuer, answer: httpx.Response) -> None:
    issuer.answer = lambda: answer
    with pytest.raises(UnavailableError):
        await issuer.keys.find("rsa")


def test_a_key_file_is_its_owners_only_and_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "token.pem"
    create_key_file(path)
    first = path.read_bytes()
    assert path.stat().st_mode & 0o777 == 0o600
    create_key_file(path)
    assert path.read_bytes() == first
    assert list(tmp_path.iterdir()) == [path]


def test_the_public_half_is_enough_to_verify_and_not_to_sign(tmp_path: Path) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    create_key_file(private)
    key = load_signing_key(private).public_key()
    public.write_bytes(key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo))
    assert load_verification_key(public) == key == load_verification_key(private)
    with pytest.raises(ConfigurationError):
        load_signing_key(public)


def pem_of(key: Any) -> bytes:
    pem: bytes = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return pem


def public_pem_of(key: Any) -> bytes:
    pem: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return pem


@pytest.mark.parametrize("content", [None, b"", b"nonsense", pem_of(EC_KEY), public_pem_of(EC_KEY)])
def test_a_file_without_a_usable_key_is_a_configuration_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigurationError):
        load_verification_key(path)
    with pytest.raises(ConfigurationError):
        load_signing_key(path)
