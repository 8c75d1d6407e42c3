"""Secrets by id: read when an action runs, given to it alone, and taken out of everything that comes back.

An id is the tenant's: the same id of another tenant is another secret. Values stand in no log, record, event or
Temporal history; what an action prints is searched for them, also in their usual encodings. Code that is given a
secret can encode it in ways that nobody searches for: give secrets only to what may have them.
"""

import asyncio
import base64
import contextlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote, quote_plus

from engine.contracts import limits
from engine.contracts.hook_actions import SECRET_ID_PATTERN
from engine.settings import Settings
from hooks.actions.refusal import refused

ENVIRONMENT_PREFIX: Final = "ORCHESTRATOR_HOOK_SECRET_"
VALUE_BYTES_MAX: Final = 64 * 1024
VALUE_LENGTH_MIN: Final = 6
"""Shorter ones would be found everywhere in an output, and could be guessed."""

LINE_LENGTH_MIN: Final = 12
"""Of a secret with several lines (a key), lines of at least this length are searched for by themselves."""

PREFIX_LENGTH_MIN: Final = 4
READ_TIMEOUT_SECONDS: Final = 10.0


class SecretSource(Protocol):
    """Where secrets are. Kubernetes' API, a vault: whatever answers this, besides the two sources below."""

    async def read(self, tenant: str, secret_id: str) -> str | None:
        """The value, or None when it is not there."""
        ...


class EnvironmentSecrets:
    """`ORCHESTRATOR_HOOK_SECRET_<TENANT>__<ID>`, in capitals, with `_` for `-`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    async def read(self, tenant: str, secret_id: str) -> str | None:
        name = _variable(tenant)
        # Such a tenant's name could be read as another tenant's with a part of an id.
        if "__" in name or name.endswith("_"):
            return None
        return self._environment.get(f"{ENVIRONMENT_PREFIX}{name}__{_variable(secret_id)}")


class FileSecrets:
    """`<directory>/<tenant>/<id>`: plain files, or a Kubernetes Secret that is mounted for each tenant."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def read(self, tenant: str, secret_id: str) -> str | None:
        return await asyncio.to_thread(self._read, tenant, secret_id)

    def _read(self, tenant: str, secret_id: str) -> str | None:
        base = os.path.realpath(self._directory / tenant)
        path = os.path.realpath(os.path.join(base, secret_id))
        # Kubernetes mounts links, but they stay inside of the tenant's directory.
        if not path.startswith(f"{base}{os.sep}") or not os.path.isfile(path):
            return None
        with contextlib.suppress(OSError, UnicodeDecodeError), open(path, "rb") as file:
            content = file.read(VALUE_BYTES_MAX + 1)
            return content.decode().removesuffix("\n") if len(content) <= VALUE_BYTES_MAX else None
        return None


class SecretStore:
    """The sources in their order: the first that has an id answers."""

    def __init__(self, sources: Sequence[SecretSource]) -> None:
        self._sources = tuple(sources)

    @classmethod
    def from_settings(cls, settings: Settings, *others: SecretSource) -> "SecretStore":
        """Files before the environment, since they can change while the engine runs."""
        files = [FileSecrets(settings.hooks_secrets_dir)] if settings.hooks_secrets_dir is not None else []
        return cls([*files, EnvironmentSecrets(os.environ), *others])

    async def values(self, tenant: str, secret_ids: Iterable[str]) -> "SecretValues":
        """Raises InvalidHookActionError when one is missing or unusable; the message has its id only."""
        if not re.fullmatch(limits.TENANT_PATTERN, tenant):
            raise refused("VALUE_MISSING", "secrets", "there are no secrets of this tenant", "name a tenant")
        found: dict[str, str] = {}
        for secret_id in sorted(set(secret_ids)):
            found[secret_id] = await self._value(tenant, secret_id)
        return SecretValues(found)

    async def _value(self, tenant: str, secret_id: str) -> str:
        field = f"secrets.{secret_id}"
        value: str | None = None
        if re.fullmatch(SECRET_ID_PATTERN, secret_id):
            async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                for source in self._sources:
                    value = await source.read(tenant, secret_id)
                    if value is not None:
                        break
        if value is None:
            raise refused("VALUE_MISSING", field, "does not exist", "ask the operator to provide it")
        if len(value) < VALUE_LENGTH_MIN or "\0" in value or len(value.encode()) > VALUE_BYTES_MAX:
            raise refused(
                "VALUE_MISSING",
                field,
                f"is shorter than {VALUE_LENGTH_MIN} characters, too long or has a NUL",
                "ask the operator for another",
            )
        return value


class SecretValues:
    """What one action was given, and how to take it out of its outputs again. Shows nothing when printed."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = dict(values)
        forms = {form: secret_id for secret_id, value in values.items() for form in _forms(value)}
        self._forms = dict(sorted(forms.items(), key=lambda item: -len(item[0])))
        self._pattern = re.compile("|".join(map(re.escape, self._forms))) if self._forms else None

    def __repr__(self) -> str:
        return f"SecretValues({sorted(self._values)})"

    def __getitem__(self, secret_id: str) -> str:
        return self._values[secret_id]

    @property
    def mapping(self) -> Mapping[str, str]:
        return self._values

    def redact(self, text: str, *, truncated: bool = False) -> str:
        """The text without the values. Of a text that was cut, the beginning of a value at its end goes too."""
        if self._pattern is None:
            return text
        text = self._pattern.sub(lambda match: f"[secret:{self._forms[match[0]]}]", text)
        return self._without_prefix(text) if truncated else text

    def _without_prefix(self, text: str) -> str:
        for form in self._forms:
            for length in range(min(len(form) - 1, len(text)), PREFIX_LENGTH_MIN - 1, -1):
                if text.endswith(form[:length]):
                    return text[:-length]
        return text


def _variable(name: str) -> str:
    return name.upper().replace("-", "_")


def _forms(value: str) -> set[str]:
    """The value and how it looks in URLs, JSON, representations and base64, whatever stands before it there."""
    forms = {value, quote(value, safe=""), quote(value), quote_plus(value), json.dumps(value)[1:-1]}
    forms.add(json.dumps(value, ensure_ascii=False)[1:-1])
    forms |= {repr(value)[1:-1], value.encode().hex(), value.strip()}
    forms |= {line.strip() for line in value.splitlines() if len(line.strip()) >= LINE_LENGTH_MIN}
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            # Only the characters that depend on the value alone.
            encoded = encode(b"\0" * offset + value.encode()).decode().rstrip("=")
            start, end = (0, 2, 3)[offset], len(encoded) - (1 if (len(value.encode()) + offset) % 3 else 0)
            forms.add(encoded[start:end])
    return {form for form in forms if len(form) >= VALUE_LENGTH_MIN}
