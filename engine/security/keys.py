"""Keys that sign and verify tokens: an Ed25519 key in a PEM file, or an issuer's JWKS document.

A key is found by the token's `kid` and carries the one algorithm it may be used with, so a token can choose
neither its algorithm nor where its key comes from (`jku`, `jwk` and `x5u` headers are never looked at).
"""

import hashlib
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol
from uuid import uuid4

import httpx
import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from engine.errors import ConfigurationError, UnavailableError

KEY_FILE_BYTES_MAX: Final = 64 * 1024
JWKS_BYTES_MAX: Final = 256 * 1024
JWKS_KEYS_MAX: Final = 100
JWKS_TIMEOUT_SECONDS: Final = 5.0
JWKS_LIFETIME_SECONDS: Final = 600.0
JWKS_REFETCH_AFTER_SECONDS: Final = 30.0
"""An unknown `kid` makes us look again, at most this often: forged tokens must not cause a request storm."""


@dataclass(frozen=True, slots=True)
class VerificationKey:
    key: Any
    algorithm: str


class KeySource(Protocol):
    async def find(self, kid: str) -> VerificationKey | None: ...


def create_key_file(path: Path) -> None:
    """Write a fresh Ed25519 private key, readable by its owner only; an existing file stays as it is.

    Two processes may do so at once: linking is atomic, and the one that comes second keeps the first's.
    """
    if path.exists():
        return
    pem = Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.{uuid4().hex}")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(scratch, path)
    finally:
        scratch.unlink()


def key_id(public_key: Ed25519PublicKey) -> str:
    raw = public_key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:32]


def load_signing_key(path: Path) -> Ed25519PrivateKey:
    """Raises ConfigurationError when there is no Ed25519 private key in the file."""
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} holds no private key in PEM form; issue tokens where it is") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError(f"{path} holds a private key that is not Ed25519")
    return key


def load_verification_key(path: Path) -> Ed25519PublicKey:
    """From a file with a private or a public key. Raises ConfigurationError."""
    pem = _read(path)
    if b"PRIVATE KEY" in pem:
        return load_signing_key(path).public_key()
    try:
        key = serialization.load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ConfigurationError(f"{path} holds no key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError(f"{path} holds a public key that is not Ed25519")
    return key


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(KEY_FILE_BYTES_MAX)
    except OSError as error:
        raise ConfigurationError(
            f"the token key {path} cannot be read ({error.strerror}); set ORCHESTRATOR_TOKEN_KEY_FILE"
        ) from error


class FixedKeys:
    """Keys known at start: the engine's own."""

    def __init__(self, keys: Mapping[str, VerificationKey]) -> None:
        self._keys = dict(keys)

    @classmethod
    def from_file(cls, path: Path) -> "FixedKeys":
        key = load_verification_key(path)
        return cls({key_id(key): VerificationKey(key, "EdDSA")})

    async def find(self, kid: str) -> VerificationKey | None:
        return self._keys.get(kid)


class JwksKeys:
    """Keys of an outside issuer, fetched from the address in the settings and kept for a while.

    Only asymmetric keys are taken: a symmetric one in the document would let everyone who reads it sign.
    """

    def __init__(self, client: httpx.AsyncClient, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._url = url
        self._clock = clock
        self._keys: dict[str, VerificationKey] = {}
        self._tried_at = float("-inf")
        self._fetched_at = float("-inf")

    async def find(self, kid: str) -> VerificationKey | None:
        now = self._clock()
        stale = now - self._fetched_at > JWKS_LIFETIME_SECONDS
        if (stale or kid not in self._keys) and now - self._tried_at > JWKS_REFETCH_AFTER_SECONDS:
            self._tried_at = now
            await self._fetch(now)
        return self._keys.get(kid)

    async def _fetch(self, now: float) -> None:
        try:
            answer = await self._client.get(self._url, timeout=JWKS_TIMEOUT_SECONDS)
            answer.raise_for_status()
            if len(answer.content) > JWKS_BYTES_MAX:
                raise ValueError("the JWKS document is too large")
            document = answer.json()
            entries = document["keys"][:JWKS_KEYS_MAX]
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            if not self._keys:
                raise UnavailableError("the token issuer's keys cannot be fetched") from error
            return
        self._keys = {kid: key for kid, key in map(_jwks_entry, entries) if key is not None}
        self._fetched_at = now


_JWKS_ALGORITHMS: Final = {("RSA", None): "RS256", ("EC", "P-256"): "ES256", ("OKP", "Ed25519"): "EdDSA"}


def _jwks_entry(entry: Any) -> tuple[str, VerificationKey | None]:
    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return "", None
    if entry.get("use", "sig") != "sig":
        return "", None
    algorithm = _JWKS_ALGORITHMS.get((entry.get("kty", ""), entry.get("crv")))
    if algorithm is None or entry.get("alg", algorithm) not in (algorithm, "Ed25519"):
        return "", None
    try:
        return entry["kid"], VerificationKey(jwt.PyJWK(entry, algorithm=algorithm).key, algorithm)
    except jwt.PyJWTError:
        return "", None
