"""The program that makes a sandbox and watches over what runs in it. Needs the standard library only.

It is started as `python -I -S inside.py CONTROL STATUS` (two file descriptors), reads one line of JSON from CONTROL,
and ends when the command has ended, when a limit is passed, or when CONTROL is closed (the engine died or gives up).
What it found goes to STATUS as one line of JSON. With `mode` "namespaces" it makes the sandbox itself:

    outer (the engine's child)    writes the user mapping, waits
      entered (new namespaces)    waits, so that the next one is process 1 of the new process namespace
        watcher (process 1)       mounts, then watches: memory, processes, time; its end kills everything
          command                 no privileges, limits, `execve`

With "bubblewrap" the namespaces are there already, and with "limits" there are none: then only the watcher is used,
which takes in orphans (subreaper) and kills what is left.
"""

import base64
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import resource
import select
import signal
import socket
import stat
import struct
import sys
import time
from typing import Any, Final, NoReturn

MS_RDONLY: Final = 1
MS_NOSUID: Final = 2
MS_NODEV: Final = 4
MS_NOEXEC: Final = 8
MS_BIND: Final = 4096
MS_REC: Final = 16384
MS_PRIVATE: Final = 1 << 18
MNT_DETACH: Final = 2
ATTR_RDONLY: Final = 1
ATTR_NOSUID: Final = 2
ATTR_NODEV: Final = 4
AT_FDCWD: Final = -100
AT_RECURSIVE: Final = 0x8000
SYS_MOUNT_SETATTR: Final = 442
SYS_PIVOT_ROOT: Final = {"x86_64": 155, "aarch64": 41, "ppc64le": 203, "s390x": 217, "riscv64": 41}
CLONE_NEWNS: Final = 0x00020000
CLONE_NEWCGROUP: Final = 0x02000000
CLONE_NEWUTS: Final = 0x04000000
CLONE_NEWIPC: Final = 0x08000000
CLONE_NEWUSER: Final = 0x10000000
CLONE_NEWPID: Final = 0x20000000
CLONE_NEWNET: Final = 0x40000000
PR_SET_PDEATHSIG: Final = 1
PR_SET_DUMPABLE: Final = 4
PR_SET_KEEPCAPS: Final = 8
PR_SET_SECCOMP: Final = 22
SECCOMP_MODE_FILTER: Final = 2
PR_CAPBSET_DROP: Final = 24
PR_SET_CHILD_SUBREAPER: Final = 36
PR_SET_NO_NEW_PRIVS: Final = 38
PR_CAP_AMBIENT: Final = 47
PR_CAP_AMBIENT_RAISE: Final = 2
PR_CAP_AMBIENT_CLEAR_ALL: Final = 4
CAP_DAC_OVERRIDE: Final = 1
CAP_FOWNER: Final = 3
CAPABILITY_VERSION_3: Final = 0x20080522
SIOCSIFFLAGS: Final = 0x8914
IFF_UP: Final = 1
ID_INSIDE: Final = 1000
WATCH_INTERVAL_SECONDS: Final = 0.05
NICENESS: Final = 5
"""The engine goes before its hooks' commands."""

KILL_ROUNDS_MAX: Final = 200
DEVICES: Final = ("null", "zero", "full", "random", "urandom")

Spec = dict[str, Any]


class SetupError(Exception):
    """The sandbox cannot be made."""


class Libc:
    """The few calls that Python 3.11 has no functions for."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)

    def _check(self, name: str, result: int) -> None:
        if result != 0:
            code = ctypes.get_errno()
            raise SetupError(f"{name}: {os.strerror(code)}")

    def unshare(self, flags: int) -> None:
        self._check("unshare", self._libc.unshare(flags))

    def mount(self, source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
        result = self._libc.mount(
            source.encode(),
            target.encode(),
            None if kind is None else kind.encode(),
            ctypes.c_ulong(flags),
            None if data is None else data.encode(),
        )
        self._check(f"mount {target}", result)

    def restrict(self, target: str, attributes: int) -> None:
        """Set flags on a mount and on all below it; flags that are there stay."""
        attr = struct.pack("QQQQ", attributes, 0, 0, 0)
        path = ctypes.c_char_p(target.encode())
        flags = ctypes.c_uint(AT_RECURSIVE)
        result = self._libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, flags, attr, ctypes.c_size_t(len(attr)))
        self._check(f"mount_setattr {target}", result)

    def detach(self, target: str) -> None:
        self._check(f"umount {target}", self._libc.umount2(target.encode(), MNT_DETACH))

    def pivot_root(self, new: str, old: str) -> None:
        number = SYS_PIVOT_ROOT.get(os.uname().machine)
        if number is None:
            raise SetupError(f"pivot_root: unknown machine {os.uname().machine}")
        arguments = ctypes.c_char_p(new.encode()), ctypes.c_char_p(old.encode())
        self._check("pivot_root", self._libc.syscall(number, *arguments))

    def prctl(self, option: int, value: int, third: int = 0) -> None:
        zero = ctypes.c_ulong(0)
        result = self._libc.prctl(option, ctypes.c_ulong(value), ctypes.c_ulong(third), zero, zero)
        self._check(f"prctl {option}", result)

    def filter_calls(self, program: bytes) -> None:
        """From here on the kernel refuses what the filter says, to children too."""
        kept = ctypes.create_string_buffer(program, len(program))
        described = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(kept))
        result = self._libc.prctl(PR_SET_SECCOMP, ctypes.c_ulong(SECCOMP_MODE_FILTER), described, 0, 0)
        self._check("seccomp", result)

    def drop_bounding_set(self, kept: tuple[int, ...]) -> None:
        for capability in range(64):
            if capability not in kept and self._libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) != 0:
                if ctypes.get_errno() == errno.EINVAL:
                    return
                raise SetupError("capabilities cannot be dropped")

    def set_capabilities(self, kept: tuple[int, ...]) -> None:
        mask = sum(1 << capability for capability in kept)
        header = struct.pack("Ii", CAPABILITY_VERSION_3, 0)
        data = struct.pack("IIIIII", mask, mask, mask, 0, 0, 0)
        self._check("capset", self._libc.capset(header, data))


def main(arguments: list[str]) -> NoReturn:
    control, status = int(arguments[0]), int(arguments[1])
    for descriptor in (control, status):
        os.set_inheritable(descriptor, False)
    spec: Spec = json.loads(_line(control))
    libc = Libc()
    # The command may be the same user's, and could interrupt who watches over it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
        file.write("900")
    try:
        if spec["mode"] == "namespaces":
            _namespaces(spec, libc, control, status)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
        _watch(spec, libc, control, status)
    except (SetupError, OSError) as error:
        _report(status, {"setup": str(error)})
    os._exit(1)


def _line(descriptor: int) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = os.read(descriptor, 65536)
        if not part:
            os._exit(1)
        data += part
    return data


def _report(status: int, found: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(status, json.dumps(found).encode() + b"\n")


def _namespaces(spec: Spec, libc: Libc, control: int, status: int) -> NoReturn:
    entered_r, entered_w = os.pipe()
    mapped_r, mapped_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
            libc.unshare(flags if spec["network"] else flags | CLONE_NEWNET)
            os.write(entered_w, b"x")
            if os.read(mapped_r, 1) != b"y":
                raise SetupError("the user mapping was refused")
            _enter(spec, libc, control, status)
        except (SetupError, OSError) as error:
            _report(status, {"setup": str(error)})
        os._exit(1)
    os.close(entered_w)
    if os.read(entered_r, 1) == b"x":
        try:
            _map_users(pid, spec)
            os.write(mapped_w, b"y")
        except OSError as error:
            _report(status, {"setup": f"user mapping: {error}"})
            os.kill(pid, signal.SIGKILL)
    os.close(mapped_w)
    os.close(control)
    os.waitpid(pid, 0)
    os._exit(0)


def _map_users(pid: int, spec: Spec) -> None:
    """As root: root's files stay readable, and the command runs as another; otherwise just oneself."""
    own, group = os.geteuid(), os.getegid()
    if own == 0:
        users = f"0 0 1\n{ID_INSIDE} {spec['uid']} 1\n"
        groups = f"0 0 1\n{ID_INSIDE} {spec['gid']} 1\n"
    else:
        users, groups = f"{ID_INSIDE} {own} 1\n", f"{ID_INSIDE} {group} 1\n"
        _write(f"/proc/{pid}/setgroups", "deny")
    _write(f"/proc/{pid}/uid_map", users)
    _write(f"/proc/{pid}/gid_map", groups)


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def _enter(spec: Spec, libc: Libc, control: int, status: int) -> NoReturn:
    if spec["root"]:
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    pid = os.fork()
    if pid == 0:
        try:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            libc.prctl(PR_SET_DUMPABLE, 0)
            socket.sethostname("hook")
            if not spec["network"]:
                _loopback_up()
            _build_root(spec, libc)
            _watch(spec, libc, control, status)
        except (SetupError, OSError) as error:
            _report(status, {"setup": str(error)})
        os._exit(1)
    os.close(control)
    os.close(status)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    os.waitpid(pid, 0)
    os._exit(0)


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        fcntl.ioctl(probe, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))


def _build_root(spec: Spec, libc: Libc) -> None:
    """A root of its own, in memory: read-only pieces of the system, the working directory, a small /tmp."""
    libc.mount("none", "/", None, MS_REC | MS_PRIVATE)
    libc.mount("tmpfs", "/tmp", "tmpfs", MS_NOSUID | MS_NODEV, "size=2m,mode=755")  # noqa: S108 - private mount
    os.chdir("/tmp")  # noqa: S108
    os.mkdir("new", 0o755)
    os.mkdir("old", 0o755)
    libc.mount("new", "new", None, MS_BIND | MS_REC)
    libc.pivot_root(".", "old")
    os.chdir("/")
    # Before what is bound: this Python may lie below /tmp.
    os.makedirs("/new/tmp", exist_ok=True)
    size = f"size={spec['tmp_bytes']},nr_inodes=20000,mode=1777"
    libc.mount("tmpfs", "/new/tmp", "tmpfs", MS_NOSUID | MS_NODEV, size)
    os.mkdir("/new/tmp/home", 0o777)
    os.chmod("/new/tmp/home", 0o777)  # noqa: S103 - the command is another user, and this directory is its own
    for path, source in spec["readonly"].items():
        _bind(libc, f"/old{source}", f"/new{path}")
        libc.restrict(f"/new{path}", ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV)
    for path, target in spec["links"].items():
        _parent(f"/new{path}")
        os.symlink(target, f"/new{path}")
    for path, text in spec["files"].items():
        _parent(f"/new{path}")
        _write(f"/new{path}", text)
        os.chmod(f"/new{path}", 0o644)
    _devices(libc)
    os.makedirs("/new/proc", 0o755, exist_ok=True)
    # Containers that cover parts of /proc may not mount a new one: then there is none.
    with contextlib.suppress(SetupError):
        libc.mount("proc", "/new/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC)
        with contextlib.suppress(OSError):
            _write("/new/proc/sys/user/max_user_namespaces", "0")
        libc.restrict("/new/proc", ATTR_RDONLY)
    if spec["work_dir"] is None:
        os.mkdir(f"/new{spec['work_inside']}", 0o755)
    else:
        _bind(libc, f"/old{spec['work_dir']}", f"/new{spec['work_inside']}")
        libc.restrict(f"/new{spec['work_inside']}", ATTR_NOSUID | ATTR_NODEV)
    for path, content in spec["masks"].items():
        _mask(libc, f"/new{spec['work_inside']}", path, base64.b64decode(content))
    libc.detach("/old")
    os.chdir("/new")
    libc.pivot_root(".", ".")
    libc.detach(".")
    os.chdir("/")
    libc.mount("none", "/", None, MS_BIND | 32 | MS_RDONLY | MS_NOSUID | MS_NODEV)


def _parent(path: str) -> None:
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)


def _bind(libc: Libc, source: str, target: str) -> None:
    if os.path.isdir(source):
        os.makedirs(target, 0o755, exist_ok=True)
    else:
        _parent(target)
        with open(target, "a"):
            pass
    libc.mount(source, target, None, MS_BIND | MS_REC)


def _devices(libc: Libc) -> None:
    os.makedirs("/new/dev/shm", 0o755, exist_ok=True)
    for name in DEVICES:
        _bind(libc, f"/old/dev/{name}", f"/new/dev/{name}")
    libc.mount("tmpfs", "/new/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "size=32m,mode=1777")
    for name, target in {"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}.items():
        os.symlink(f"/proc/self/{target}", f"/new/dev/{name}")


def _mask(libc: Libc, base: str, path: str, content: bytes) -> None:
    """Lay a file over one of the working directory. Links on the way are refused: they lead elsewhere."""
    directory = os.open(base, os.O_PATH | os.O_DIRECTORY)
    *parents, name = path.split("/")
    for parent in parents:
        directory = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
    target = os.open(name, os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    if not stat.S_ISREG(os.fstat(target).st_mode):
        raise SetupError(f"{path} is not a file")
    source = f"/mask-{target}"
    with open(source, "wb") as file:
        file.write(content)
    os.chmod(source, 0o644)
    libc.mount(source, f"/old/proc/self/fd/{target}", None, MS_BIND)


def _watch(spec: Spec, libc: Libc, control: int, status: int) -> NoReturn:
    """Start the command and see that it stays within its limits. Never returns: with process 1 all others end."""
    started_at = time.monotonic()
    woken = _woken_by_children()
    pid = os.fork()
    if pid == 0:
        _command(spec, libc, status)
    for descriptor in (0, 1, 2):
        os.close(descriptor)
    reason: str | None = None
    code: int | None = None
    poll = select.poll()
    poll.register(control, select.POLLIN | select.POLLHUP)
    poll.register(woken, select.POLLIN)
    while reason is None and code is None:
        ready = {descriptor for descriptor, _ in poll.poll(WATCH_INTERVAL_SECONDS * 1000)}
        if woken in ready:
            os.read(woken, 4096)
        code = _reap(pid)
        if code is None and control in ready:
            reason = "stopped"
        if code is None and reason is None:
            reason = _exceeded(spec, time.monotonic() - started_at)
    if spec["mode"] != "namespaces":
        _kill_descendants()
    _report(status, {"code": code, "reason": reason})
    os._exit(0)


def _woken_by_children() -> int:
    """A pipe that can be read when a child has ended, so that its end is not found out by the clock."""
    woken, wake = os.pipe()
    for descriptor in (woken, wake):
        os.set_blocking(descriptor, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    return woken


def _reap(command: int) -> int | None:
    """The command's exit code, negative for a signal, once it has ended; orphans are taken along."""
    while True:
        try:
            pid, state = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None
        if pid == 0:
            return None
        if pid == command:
            return os.waitstatus_to_exitcode(state)


def _exceeded(spec: Spec, elapsed_seconds: float) -> str | None:
    if elapsed_seconds > spec["timeout_seconds"]:
        return "time"
    pids = _descendants() if spec["mode"] == "limits" else _all_processes()
    if len(pids) > spec["processes_max"] + 2:
        return "processes"
    if sum(map(_held_bytes, pids)) > spec["memory_bytes_max"]:
        return "memory"
    if sum(map(_written_bytes, {*pids, os.getpid()})) > spec["written_bytes_max"]:
        return "disk"
    return None


def _all_processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
    except OSError:
        return []


def _descendants() -> list[int]:
    found: list[int] = []
    waiting = [os.getpid()]
    while waiting:
        parent = waiting.pop()
        children = _children(parent)
        found += children
        waiting += children
    return found


def _children(pid: int) -> list[int]:
    children: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{thread}/children") as file:
                children += [int(word) for word in file.read().split()]
    return children


def _held_bytes(pid: int) -> int:
    """Memory that is the process's own or shared without a file; what several share counts for each."""
    try:
        with open(f"/proc/{pid}/status") as file:
            lines = [line for line in file if line.startswith(("RssAnon:", "RssShmem:"))]
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines)


def _written_bytes(pid: int) -> int:
    """What went to disks; a process's count goes to its parent when it has ended."""
    try:
        with open(f"/proc/{pid}/io") as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("write_bytes:"))
    except OSError:
        return 0


def _kill_descendants() -> None:
    """Until none is left: one that forks while it is looked for is found in the next round."""
    for _ in range(KILL_ROUNDS_MAX):
        pids = _descendants()
        if not pids:
            return
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)


def _command(spec: Spec, libc: Libc, status: int) -> NoReturn:
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if spec["mode"] == "namespaces":
            _drop_privileges(spec, libc, ID_INSIDE, ID_INSIDE)
        elif os.geteuid() == 0:
            _drop_privileges(spec, libc, spec["uid"], spec["gid"])
        _limits(spec)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1)
        # Changing the user took the death signal away.
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.chdir(spec["cwd"])
        os.umask(0o022)
        os.nice(NICENESS)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        if spec["filter"] is not None:
            libc.filter_calls(base64.b64decode(spec["filter"]))
        os.execve(spec["program"], spec["argv"], spec["environment"])  # noqa: S606 - checked, and no shell is meant
    except (SetupError, OSError, ValueError) as error:
        _report(status, {"setup": str(error)})
    os._exit(127)


def _drop_privileges(spec: Spec, libc: Libc, user: int, group: int) -> None:
    kept = (CAP_DAC_OVERRIDE, CAP_FOWNER) if spec["root"] and spec["keep_file_access"] else ()
    libc.drop_bounding_set(kept)
    libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    if spec["root"]:
        libc.prctl(PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(group, group, group)
        os.setresuid(user, user, user)
    libc.set_capabilities(kept)
    for capability in kept:
        libc.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def _limits(spec: Spec) -> None:
    seconds = int(spec["timeout_seconds"]) + 2
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: spec["address_bytes_max"],
        resource.RLIMIT_FSIZE: spec["file_bytes_max"],
        resource.RLIMIT_NOFILE: 512,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    # Without a user namespace the limit counts all that this user runs anywhere; the watcher counts instead.
    if spec["mode"] == "namespaces":
        limits[resource.RLIMIT_NPROC] = spec["processes_max"]
    for kind, value in limits.items():
        hard = resource.getrlimit(kind)[1]
        wanted = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (wanted, wanted))


if __name__ == "__main__":
    main(sys.argv[1:])
