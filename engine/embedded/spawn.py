"""Becomes a server or a role that dies with its supervisor. Run as a script, by path, with the standard library only.

`spawn.py PARENT_PID DEATH_SIGNAL USER_ID PROGRAM ARGUMENTS...` gives up root if USER_ID is not "-", asks the kernel
for DEATH_SIGNAL when the parent dies, and then is PROGRAM: same process id, same open files.

A wrapper and not `preexec_fn`, which is unsafe in a process with threads. The order matters: changing the user clears
the parent-death signal, so it is set afterwards; and a parent that died before it was set is noticed by comparing the
parent's id.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1


def give_up_root(user_id: int) -> None:
    os.setgroups([])
    os.setgid(user_id)
    os.setuid(user_id)


def die_with_parent(parent_pid: int, death_signal: int) -> None:
    """The signal goes out when the *thread* that started this process ends: start from the main thread."""
    if sys.platform != "linux":
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent_pid:
        raise SystemExit(f"the supervisor {parent_pid} is gone")


def main(arguments: list[str]) -> None:
    parent_pid, death_signal, user_id, program = arguments[:4]
    if user_id != "-":
        give_up_root(int(user_id))
    die_with_parent(int(parent_pid), int(death_signal))
    os.execv(program, arguments[3:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main(sys.argv[1:])
