"""Ports on the loopback interface, and keeping them from the choice until the end.

A port that is only looked at may be taken a moment later, and a server binds seconds after it was chosen for it. So a
chosen port is *held*: bound, without listening. No other engine of this machine can choose it then, and the system
gives it to no outgoing connection; the server itself can listen on it, as servers allow an address to be used again
(SO_REUSEADDR). Held past the start, it is still there when a server that ended is started again.
"""

import secrets
import socket
import sys
from typing import Final

from engine.errors import UnavailableError

LOOPBACK: Final = "127.0.0.1"
# Below the range from which Linux takes ports for outgoing connections.
FIRST_PORT: Final = 20000
LAST_PORT: Final = 32700
ATTEMPTS_MAX: Final = 1000
TAKEN: Final = ("address already in use", "could not bind")


class HeldPort:
    """One port, until `release`, or the end of this process."""

    def __init__(self, port: int, holder: socket.socket) -> None:
        self.port = port
        self._holder = holder

    def hand_over(self) -> None:
        """A server is about to listen on it. Elsewhere than on Linux it could not while somebody holds the port."""
        if sys.platform != "linux":
            self._holder.close()

    def release(self) -> None:
        self._holder.close()


def hold_free_port() -> HeldPort:
    """One that nobody listens on, holds, or has connections from that still linger."""
    for _ in range(ATTEMPTS_MAX):
        port = FIRST_PORT + secrets.randbelow(LAST_PORT - FIRST_PORT)
        holder = _bound(port, reuse=False)
        if holder is not None:
            # Set only now: it was bound as the only one, and whoever binds for listening, as servers do, may follow.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            return HeldPort(port, holder)
    raise UnavailableError(f"no free port between {FIRST_PORT} and {LAST_PORT} in {ATTEMPTS_MAX} attempts")


def hold_port(port: int) -> HeldPort | None:
    """This very one; None when somebody listens on it. Its old connections may linger, as after a restart."""
    holder = _bound(port, reuse=True)
    return None if holder is None else HeldPort(port, holder)


def is_free(port: int) -> bool:
    """Whether nobody listens on it now."""
    held = hold_port(port)
    if held is None:
        return False
    held.release()
    return True


def says_port_taken(message: str) -> bool:
    """Whether a server's last words are that somebody has its port."""
    return any(sign in message.lower() for sign in TAKEN)


def _bound(port: int, *, reuse: bool) -> socket.socket | None:
    holder = socket.socket()
    try:
        if reuse:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind((LOOPBACK, port))
    except OSError:
        holder.close()
        return None
    return holder
