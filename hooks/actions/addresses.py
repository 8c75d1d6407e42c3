"""URLs read strictly, and the addresses that a hook may reach.

A name is resolved once; every address of it must be permitted; curl is told exactly those. Loopback, private,
link-local, metadata and all other special addresses are refused in whatever form they come, unless the operator lists
them.
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal
from urllib.parse import urlsplit

from hooks.actions.refusal import refused

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

RESOLVE_TIMEOUT_SECONDS: Final = 5.0
ADDRESSES_MAX: Final = 8
PORTS: Final = {"http": 80, "https": 443}
LABEL: Final = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
URL: Final = re.compile(
    r"(https?)://(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?([/?][\x21-\x7e]*)?"
)
PATH_FORBIDDEN: Final = frozenset('\\"<>^`{|}#')

ALWAYS_FORBIDDEN: Final = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "168.63.129.16/32",  # Azure's host
        "192.0.0.0/24",  # Oracle's metadata among others
        "198.18.0.0/15",
        "192.88.99.0/24",  # relays of 6to4
        "::/96",  # IPv4 in the form of long ago
        "64:ff9b::/96",  # IPv4 behind NAT64
        "64:ff9b:1::/48",
        "2001::/23",  # Teredo and other special uses
        "2002::/16",  # 6to4
        "fec0::/10",  # site-local
        "5f00::/16",
        "3fff::/20",
    )
)
"""What the `ipaddress` module calls global, or did in some versions, and is not the internet."""

TRANSLATED: Final = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


@dataclass(frozen=True, slots=True)
class Url:
    """One that was read and is written again from its parts, so that curl reads what was checked."""

    scheme: Literal["http", "https"]
    host: str
    """A name in small letters, or an address in its canonical form."""
    port: int
    rest: str

    @property
    def origin(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    @property
    def is_address(self) -> bool:
        return as_address(self.host) is not None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.rest}"


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What the operator permits besides the internet."""

    hosts: frozenset[tuple[str, int | None]] = frozenset()
    networks: tuple[Network, ...] = ()

    @classmethod
    def of(cls, entries: Sequence[str]) -> "AddressPolicy":
        """Entries are networks (`10.1.0.0/16`), addresses, names, and names or addresses with a port."""
        hosts: set[tuple[str, int | None]] = set()
        networks: list[Network] = []
        for entry in entries:
            try:
                networks.append(ipaddress.ip_network(entry))
            except ValueError:
                parts = urlsplit(f"//{entry}")
                if parts.hostname:
                    hosts.add((parts.hostname.rstrip("."), parts.port))
        return cls(frozenset(hosts), tuple(networks))

    def permits(self, url: Url, address: Address) -> bool:
        if {(url.host, None), (url.host, url.port)} & self.hosts:
            return True
        if any(address in network for network in self.networks):
            return True
        return is_public(address)


def read_url(text: str, field: str) -> Url:
    """Raises for everything that two programs might read differently."""
    match = URL.fullmatch(text)
    remedy = "give http:// or https://, a name or a plain address, and no user, fragment or special characters"
    if match is None or PATH_FORBIDDEN & set(match[4] or ""):
        raise refused("URL_INVALID", field, f"{text[:200]!r} is not a plain URL", remedy)
    scheme: Literal["http", "https"] = "https" if match[1] == "https" else "http"
    port = int(match[3]) if match[3] else PORTS[scheme]
    if not 0 < port < 65536:
        raise refused("URL_INVALID", field, f"{port} is not a port", remedy)
    return Url(scheme, _host(match[2], field), port, match[4] or "/")


def _host(text: str, field: str) -> str:
    if text.startswith("["):
        address = as_address(text[1:-1])
        if address is None:
            raise refused("ADDRESS_INVALID", field, f"{text} is not an address", "write it in full")
        return str(address)
    host = text.lower().removesuffix(".")
    labels = host.split(".")
    # A last part that is a number makes it an address to some programs: 127.1, 2130706433, 0x7f.1, 0177.0.0.1.
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", labels[-1]):
        address = as_address(host)
        if address is None:
            raise refused(
                "ADDRESS_INVALID", field, f"{text} is an address in an unusual form", "write four decimal numbers"
            )
        return str(address)
    if not all(LABEL.fullmatch(label) for label in labels):
        raise refused("URL_INVALID", field, f"{text[:100]} is not a host's name", "use its ASCII name")
    return host


def as_address(text: str) -> Address | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def is_public(address: Address) -> bool:
    """Whether it is somebody else's on the internet."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return False
        if address.scope_id is not None or any(address in network for network in TRANSLATED):
            return False
    special = (
        not address.is_global
        or address.is_private
        or address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_reserved
        or address.is_unspecified
    )
    return not special and not any(address in network for network in ALWAYS_FORBIDDEN)


async def resolve_by_system(host: str, port: int) -> Sequence[str]:
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


async def permitted_addresses(url: Url, policy: AddressPolicy, resolve: Resolve, field: str) -> list[Address]:
    """All addresses of the host. Raises when there is none, or when one of them is not permitted."""
    literal = as_address(url.host)
    if literal is not None:
        addresses = [literal]
    else:
        try:
            async with asyncio.timeout(RESOLVE_TIMEOUT_SECONDS):
                texts = await resolve(url.host, url.port)
        except (OSError, UnicodeError, TimeoutError) as error:
            raise refused(
                "ADDRESS_INVALID", field, f"{url.host} has no address", "see that the name is right"
            ) from error
        addresses = [address for text in texts if (address := as_address(text)) is not None][:ADDRESSES_MAX]
        if not addresses or len(addresses) < min(len(texts), ADDRESSES_MAX):
            raise refused("ADDRESS_INVALID", field, f"{url.host} has no usable address", "see that the name is right")
    for address in addresses:
        if not policy.permits(url, address):
            raise refused(
                "ADDRESS_FORBIDDEN",
                field,
                # Not which: whoever sees the answer would learn the network's names from it.
                f"{url.host} is an address that hooks may not reach",
                "let the operator list the host in ORCHESTRATOR_HOOKS_HTTP_ALLOWED",
            )
    return addresses
