"""System calls that a command may not make, as a filter for the kernel.

What namespaces do not part: keys, rings of system calls that no filter sees, the hypervisor's sockets, programs for
the kernel. And what only makes sandboxes leak: mounts, namespaces, other processes' memory, modules, clocks.
A refused call fails as it would without the permission for it; a program of another machine type is killed.
"""

import os
import struct
from dataclasses import dataclass
from typing import Final

LOAD: Final = 0x20
JUMP_IF_EQUAL: Final = 0x15
JUMP_IF_AT_LEAST: Final = 0x35
JUMP_IF_BITS: Final = 0x45
RETURN: Final = 0x06
ALLOW: Final = 0x7FFF0000
KILL_PROCESS: Final = 0x80000000
ERRNO: Final = 0x00050000
EPERM: Final = 1
ENOSYS: Final = 38
EAFNOSUPPORT: Final = 97

NUMBER_AT: Final = 0
MACHINE_AT: Final = 4
FIRST_ARGUMENT_AT: Final = 16
SECOND_ARGUMENT_AT: Final = 24
X32_BIT: Final = 0x40000000
CLONE_NEWUSER: Final = 0x10000000
TIOCSTI: Final = 0x5412
SOCKET_FAMILIES: Final = (1, 2, 10)
"""Unix, IPv4, IPv6."""


@dataclass(frozen=True, slots=True)
class _Machine:
    audit: int
    clone: int
    socket: int
    ioctl: int
    refused: tuple[int, ...]


_CLONE3: Final = 435
_NEW: Final = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 442, 443, 447)
"""The same on all machines: io_uring, mounts by descriptor, pidfd_getfd, quotactl_fd, memfd_secret."""

_MACHINES: Final = {
    "x86_64": _Machine(
        audit=0xC000003E,
        clone=56,
        socket=41,
        ioctl=16,
        refused=(
            *(29, 101, 103, 155, 159, 161, 163, 164, 165, 166, 167, 168, 169, 170, 171, 172, 173, 175, 176, 179, 227),
            *(246, 248, 249, 250, 256, 272, 279, 298, 303, 304, 305, 308, 310, 311, 312, 313, 319, 320, 321, 323),
            *_NEW,
        ),
    ),
    "aarch64": _Machine(
        audit=0xC00000B7,
        clone=220,
        socket=198,
        ioctl=29,
        refused=(
            *(39, 40, 41, 51, 60, 89, 97, 104, 105, 106, 112, 116, 117, 142, 161, 162, 170, 171, 194, 217, 218, 219),
            *(224, 225, 238, 239, 241, 264, 265, 266, 268, 270, 271, 272, 273, 279, 280, 282, 294),
            *_NEW,
        ),
    ),
}
"""ptrace, syslog, pivot_root, adjtimex, chroot, acct, settimeofday, mount, umount2, swapon, swapoff, reboot,
sethostname, setdomainname, iopl, ioperm, modules, quotactl, clock_settime, kexec, keys, migrate_pages, unshare,
move_pages, perf_event_open, handles, clock_adjtime, setns, process_vm, kcmp, bpf, userfaultfd; and
shmget and memfd_create, whose memory is nobody's to the watcher."""


def system_call_filter(machine: str | None = None) -> bytes | None:
    """The filter's program, or None for machines that are not known here: the other walls stand there too."""
    known = _MACHINES.get(machine or os.uname().machine)
    if known is None:
        return None
    program = [
        (LOAD, 0, 0, MACHINE_AT),
        (JUMP_IF_EQUAL, 1, 0, known.audit),
        (RETURN, 0, 0, KILL_PROCESS),
        (LOAD, 0, 0, NUMBER_AT),
        (JUMP_IF_AT_LEAST, 0, 1, X32_BIT),
        (RETURN, 0, 0, ERRNO | ENOSYS),
    ]
    for number in sorted(known.refused):
        program += [(JUMP_IF_EQUAL, 0, 1, number), (RETURN, 0, 0, ERRNO | EPERM)]
    # Its flags cannot be seen by a filter; libraries fall back to clone.
    program += [(JUMP_IF_EQUAL, 0, 1, _CLONE3), (RETURN, 0, 0, ERRNO | ENOSYS)]
    program += [
        (JUMP_IF_EQUAL, 0, 4, known.clone),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
        (JUMP_IF_BITS, 0, 1, CLONE_NEWUSER),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
        (JUMP_IF_EQUAL, 0, 4, known.ioctl),
        (LOAD, 0, 0, SECOND_ARGUMENT_AT),
        (JUMP_IF_EQUAL, 0, 1, TIOCSTI),
        (RETURN, 0, 0, ERRNO | EPERM),
        (RETURN, 0, 0, ALLOW),
        (JUMP_IF_EQUAL, 0, len(SOCKET_FAMILIES) + 2, known.socket),
        (LOAD, 0, 0, FIRST_ARGUMENT_AT),
    ]
    for index, family in enumerate(SOCKET_FAMILIES):
        program.append((JUMP_IF_EQUAL, len(SOCKET_FAMILIES) - index, 0, family))
    program += [(RETURN, 0, 0, ERRNO | EAFNOSUPPORT), (RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
