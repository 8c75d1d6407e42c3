"""Where a Redis URL leads: one server, or some of the nodes of a cluster.

`redis[s]://[user:password@]host[:port][/database]`, or `redis[s]-cluster://[user:password@]host:port[,host:port...]`.
"""

from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from engine.errors import ConfigurationError

CLUSTER_SCHEMES: Final = ("redis-cluster", "rediss-cluster")
PORT_DEFAULT: Final = 6379


def is_cluster(url: str) -> bool:
    return urlsplit(url).scheme in CLUSTER_SCHEMES


def addresses(url: str) -> list[tuple[str, int]]:
    """Host and port of the server, or of each node that is named. Raises ConfigurationError."""
    parts = urlsplit(url)
    if not is_cluster(url):
        try:
            return [(parts.hostname or "", parts.port or PORT_DEFAULT)]
        except ValueError as error:
            raise ConfigurationError(f"REDIS_URL names no port: {error}") from error
    nodes = [_node(address) for address in parts.netloc.rpartition("@")[2].split(",") if address]
    if not nodes:
        raise ConfigurationError("REDIS_URL names no node of the cluster")
    if parts.path.strip("/") not in ("", "0") or parse_qsl(parts.query):
        raise ConfigurationError("REDIS_URL of a cluster has neither a database nor options")
    return nodes


def cluster_login(url: str) -> tuple[str | None, str | None]:
    """User and password, which `urlsplit` does not find among several addresses."""
    user, _, password = urlsplit(url).netloc.rpartition("@")[0].partition(":")
    return unquote(user) or None, unquote(password) or None


def _node(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":") if ":" in address.rpartition("]")[2] else (address, "", "")
    if port and not port.isdigit():
        raise ConfigurationError("REDIS_URL names a node whose port is no number")
    return host.strip("[]"), int(port or PORT_DEFAULT)
