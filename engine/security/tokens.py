"""Bearer tokens: JWTs signed with Ed25519, or by an outside issuer with RS256, ES256 or EdDSA.

Tenant and roles come from the token alone. Verified tokens are remembered for a short while, because the
signature check is the dearest part of a cheap request.
"""

import hashlib
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from engine.contracts.limits import TENANT_PATTERN
from engine.errors import ConfigurationError, InvalidParametersError, UnauthenticatedError
from engine.security.keys import KeySource, key_id, load_signing_key
from engine.security.permissions import ROLES, permissions_of
from engine.security.principal import Principal

TOKEN_LIFETIME_DEFAULT_SECONDS: Final = 24 * 3600
TOKEN_LENGTH_MAX: Final = 8 * 1024
SUBJECT_LENGTH_MAX: Final = 255
ROLES_MAX: Final = 32
REMEMBERED_MAX: Final = 4096
REMEMBERED_SECONDS: Final = 60.0

_TENANT: Final = re.compile(TENANT_PATTERN.removesuffix("$") + r"\Z")
_REQUIRED_CLAIMS: Final = ["exp", "iat", "iss", "aud", "sub"]


class TokenIssuer:
    """Signs tokens. Stands where the private key is: the embedded engine and the `token` command."""

    def __init__(self, key: Ed25519PrivateKey, issuer: str, audience: str) -> None:
        self._key = key
        self._kid = key_id(key.public_key())
        self._issuer = issuer
        self._audience = audience

    @classmethod
    def from_file(cls, path: Path, issuer: str = "orchestrator", audience: str = "orchestrator") -> "TokenIssuer":
        return cls(load_signing_key(path), issuer, audience)

    def issue(
        self,
        *,
        tenant: str,
        roles: Sequence[str],
        subject: str = "local",
        lifetime_seconds: int = TOKEN_LIFETIME_DEFAULT_SECONDS,
    ) -> str:
        """Raises InvalidParametersError for a tenant or role that no verifier would take."""
        if not _TENANT.match(tenant):
            raise InvalidParametersError(f"the tenant must match {TENANT_PATTERN}")
        unknown = sorted(set(roles) - set(ROLES))
        if unknown or not roles:
            raise InvalidParametersError(f"roles are {', '.join(ROLES)}; not {', '.join(unknown) or 'none'}")
        now = int(time.time())
        claims = {
            "sub": subject,
            "tenant": tenant,
            "roles": list(roles),
            "iss": self._issuer,
            "aud": self._audience,
            "iat": now,
            "exp": now + lifetime_seconds,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})


class TokenVerifier:
    """Turns a token into a Principal, or raises UnauthenticatedError, which says little of what failed."""

    def __init__(self, keys: KeySource, issuer: str, audience: str, clock: Callable[[], float] = time.time) -> None:
        if not issuer or not audience:
            raise ConfigurationError("tokens need an issuer and an audience")
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._clock = clock
        self._remembered: OrderedDict[bytes, tuple[float, Principal]] = OrderedDict()

    async def verify(self, token: str) -> Principal:
        if len(token) > TOKEN_LENGTH_MAX:
            raise UnauthenticatedError("the token is too long")
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        now = self._clock()
        remembered = self._remembered.get(digest)
        if remembered is not None and now < remembered[0]:
            return remembered[1]
        principal = await self._verify(token)
        self._remembered[digest] = (min(now + REMEMBERED_SECONDS, principal.expires_at), principal)
        self._remembered.move_to_end(digest)
        while len(self._remembered) > REMEMBERED_MAX:
            self._remembered.popitem(last=False)
        return principal

    async def _verify(self, token: str) -> Principal:
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = await self._keys.find(kid) if isinstance(kid, str) else None
            if key is None:
                raise UnauthenticatedError("the token is signed with a key that is not known here")
            claims: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                options={"require": _REQUIRED_CLAIMS},
            )
        except jwt.ExpiredSignatureError as error:
            raise UnauthenticatedError("the token has expired") from error
        except (jwt.PyJWTError, ValueError, RecursionError) as error:
            raise UnauthenticatedError("the token is not valid") from error
        return _principal(claims)


def _principal(claims: dict[str, Any]) -> Principal:
    subject, tenant, roles = claims["sub"], claims.get("tenant"), claims.get("roles")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_LENGTH_MAX or not subject.isprintable():
        raise UnauthenticatedError("the token's subject is not usable")
    if not isinstance(tenant, str) or not _TENANT.match(tenant):
        raise UnauthenticatedError("the token names no valid tenant")
    if (
        not isinstance(roles, list)
        or len(roles) > ROLES_MAX
        or not all(isinstance(role, str) and len(role) <= SUBJECT_LENGTH_MAX for role in roles)
    ):
        raise UnauthenticatedError("the token's roles are not a list of names")
    granted = tuple(roles)
    return Principal(subject, tenant, granted, permissions_of(granted), float(claims["exp"]))
