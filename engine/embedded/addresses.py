"""Free ports on the loopback interface."""

import secrets
import socket
from typing import Final

from engine.errors import UnavailableError

LOOPBACK: Final = "127.0.0.1"
# Below the range from which Linux takes ports for outgoing connections: a server that is restarted finds its port.
FIRST_PORT: Final = 20000
LAST_PORT: Final = 32700
ATTEMPTS_MAX: Final = 200


def free_ports(count: int) -> list[int]:
    """Different ports that nobody listens on now. Somebody may a moment later: callers must be ready to retry."""
    found: list[int] = []
    for _ in range(ATTEMPTS_MAX):
        if len(found) == count:
            return found
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)
        if port not in found and is_free(port):
            found.append(port)
    raise UnavailableError(f"no {count} free ports between {FIRST_PORT} and {LAST_PORT}")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As the servers do, so that a port whose old connections still linger counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
