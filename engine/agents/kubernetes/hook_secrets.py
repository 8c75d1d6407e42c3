"""Hooks' secrets from one Kubernetes Secret in each tenant's namespace, by its keys.

Only the one Secret that the operator names is ever asked for, so that nobody reaches what else lies in the namespace,
such as the agents' login. What was read is kept for some seconds: a hook that runs often costs the API little, and a
changed secret holds soon.
"""

import base64
import binascii
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

from engine.agents.kubernetes import names
from engine.agents.kubernetes.client import SECRETS, KubernetesApi
from engine.errors import NotFoundError
from engine.observability.log import get_logger
from engine.settings import Settings

KEPT_SECONDS: Final = 15.0
TENANTS_MAX: Final = 500

log = get_logger(__name__)


class _Kept(NamedTuple):
    data: Mapping[str, str]
    until: float

    def __repr__(self) -> str:
        return "_Kept(...)"


class KubernetesSecrets:
    """A source of `hooks.secrets.SecretStore`."""

    def __init__(self, api: KubernetesApi, settings: Settings, *, kept_seconds: float = KEPT_SECONDS) -> None:
        self._api = api
        self._kept_seconds = kept_seconds
        self._prefix = settings.kubernetes_namespace_prefix
        self._name = settings.hooks_kubernetes_secret or ""
        self._kept: OrderedDict[str, _Kept] = OrderedDict()

    async def read(self, tenant: str, secret_id: str) -> str | None:
        """None when it is not there, or is no text. Raises UnavailableError."""
        kept = self._kept.get(tenant)
        if kept is None or time.monotonic() >= kept.until:
            kept = _Kept(await self._data(tenant), time.monotonic() + self._kept_seconds)
            self._kept[tenant] = kept
            while len(self._kept) > TENANTS_MAX:
                self._kept.popitem(last=False)
        return _text(kept.data.get(secret_id))

    async def _data(self, tenant: str) -> Mapping[str, str]:
        namespace = names.namespace_name(self._prefix, tenant)
        try:
            found = await self._api.get(SECRETS, namespace, self._name)
        except NotFoundError:
            log.info("hook_secrets.none", tenant=tenant, namespace=namespace, secret=self._name)
            return {}
        return found.get("data") or {}


def _text(encoded: str | None) -> str | None:
    if encoded is None:
        return None
    try:
        return base64.b64decode(encoded, validate=True).decode().removesuffix("\n")
    except (binascii.Error, UnicodeDecodeError):
        return None
