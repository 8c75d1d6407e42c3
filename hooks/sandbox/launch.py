"""Starts a command in a sandbox, reads what it prints up to a limit, and sees that nothing of it stays behind.

The program inside (`inside.py`) is told what to do by a pipe. Closing that pipe ends the sandbox, so that an engine
that dies takes its commands with it. Where the program inside does not obey, its process group is killed.
"""

import asyncio
import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from engine.errors import EngineError
from engine.observability.log import get_logger
from hooks.sandbox.filesystem import RootLayout, root_layout
from hooks.sandbox.seccomp import system_call_filter
from hooks.sandbox.spec import TMP_BYTES, WORK_INSIDE, Command, Ended, SandboxMode, StopReason

INSIDE: Final = Path(__file__).with_name("inside.py")
INSIDE_TARGET: Final = "/.hook/inside.py"
NOBODY: Final = 65534
GRACE_SECONDS: Final = 3.0
"""How long a sandbox that was told to end may take before its process group is killed."""

READ_BYTES: Final = 64 * 1024
STATUS_BYTES_MAX: Final = 64 * 1024
ADDRESS_BYTES_MIN: Final = 4 * 1024**3
"""Runtimes reserve addresses that they never use: what is really used is watched and limited apart from this."""

log = get_logger(__name__)


class SandboxFailedError(EngineError):
    """The sandbox could not be made; nothing ran."""

    code = "SANDBOX_FAILED"


@dataclass(slots=True)
class _Reader:
    """Keeps the head of an output and counts the rest."""

    keep_bytes: int
    kept: bytearray = field(default_factory=bytearray)
    read_bytes: int = 0

    def take(self, part: bytes) -> None:
        self.read_bytes += len(part)
        self.kept += part[: max(0, self.keep_bytes - len(self.kept))]


class Sandbox:
    """One way of running commands. Which one this system has is found out by `hooks.sandbox.probe`."""

    def __init__(self, mode: SandboxMode, bubblewrap: Path | None = None) -> None:
        self.mode = mode
        self._bubblewrap = bubblewrap

    @property
    def isolates(self) -> bool:
        """Whether a command sees nothing but what it was given."""
        return self.mode != "limits"

    async def run(self, command: Command) -> Ended:
        """Raises SandboxFailedError when nothing could run. On cancellation all of it is killed first."""
        started_at = time.monotonic()
        temporary = None if self.mode == "namespaces" else await asyncio.to_thread(_private_directory)
        try:
            with contextlib.ExitStack() as open_pipes:
                process, control, status = await self._start(command, temporary, open_pipes)
                return await _supervise(process, control, status, command, started_at)
        finally:
            if temporary is not None:
                await asyncio.to_thread(shutil.rmtree, temporary, ignore_errors=True)

    async def _start(
        self, command: Command, temporary: Path | None, pipes: contextlib.ExitStack
    ) -> "tuple[asyncio.subprocess.Process, _Control, int]":
        layout = root_layout(command.program)
        specification = _specification(self.mode, command, layout, temporary)
        if self.mode == "limits" and temporary is not None and os.geteuid() == 0:
            _give_away(temporary, specification["uid"], specification["gid"])
        masks: dict[str, Path] = {}
        if self.mode == "bubblewrap" and temporary is not None:
            masks = await asyncio.to_thread(_mask_files, command, temporary)
        with contextlib.ExitStack() as theirs:
            control_r, control_w = os.pipe()
            theirs.callback(os.close, control_r)
            control = _Control(control_w)
            pipes.callback(control.close)
            status_r, status_w = os.pipe()
            theirs.callback(os.close, status_w)
            pipes.callback(os.close, status_r)
            os.set_blocking(status_r, False)
            argv = [sys.executable, "-I", "-S", str(INSIDE), str(control_r), str(status_w)]
            if self.mode == "bubblewrap":
                inside = [argv[0], *argv[1:3], INSIDE_TARGET, *argv[4:]]
                argv = [*bubblewrap_arguments(str(self._bubblewrap), command, layout, masks), "--", *inside]
            process = await _spawn(argv, bool(command.stdin), (control_r, status_w), control)
        try:
            await asyncio.to_thread(control.send, json.dumps(specification).encode() + b"\n")
        except BaseException:
            control.close()
            await _end(process)
            raise
        return process, control, status_r


async def _spawn(
    argv: list[str], has_input: bool, descriptors: tuple[int, int], control: "_Control"
) -> asyncio.subprocess.Process:
    """Start the program inside. One that is half started when the caller is cancelled is ended, too."""
    spawning = asyncio.create_task(
        asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE if has_input else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=descriptors,
            start_new_session=True,
            env={},
            cwd="/",
            limit=READ_BYTES,
        )
    )
    try:
        return await asyncio.shield(spawning)
    except OSError as error:
        raise SandboxFailedError(f"the sandbox cannot be started: {error}") from error
    except asyncio.CancelledError:
        control.close()
        with contextlib.suppress(OSError):
            await _end(await spawning)
        raise


class _Control:
    """The pipe that tells the program inside what to do, and by its end to stop."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def send(self, data: bytes) -> None:
        # A program inside that ended already is seen by its status.
        with contextlib.suppress(BrokenPipeError):
            while data and self._descriptor is not None:
                data = data[os.write(self._descriptor, data) :]

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _private_directory() -> Path:
    """For temporary files where there is no sandbox, and for what bubblewrap lays over others."""
    directory = Path(os.path.realpath(os.environ.get("TMPDIR", "/tmp"))) / f"hook-{os.urandom(8).hex()}"  # noqa: S108
    directory.mkdir(mode=0o700)
    (directory / "home").mkdir(mode=0o700)
    return directory


def _give_away(directory: Path, user: int, group: int) -> None:
    """To whom the command runs as."""
    for path in (directory / "home", directory):
        os.chown(path, user, group)


def _mask_files(command: Command, directory: Path) -> dict[str, Path]:
    """The masks' contents as files, for bubblewrap to bind."""
    files: dict[str, Path] = {}
    for index, (path, content) in enumerate(command.masks.items()):
        files[path] = directory / f"mask-{index}"
        files[path].write_bytes(content)
        files[path].chmod(0o644)
    return files


def _specification(
    mode: SandboxMode, command: Command, layout: RootLayout, temporary: Path | None
) -> Mapping[str, Any]:
    user, group = _owner(command.work_dir)
    environment = dict(command.environment)
    if temporary is not None and mode == "limits":
        environment |= {"TMPDIR": str(temporary), "HOME": str(temporary / "home")}
    outside = command.work_dir or temporary
    return {
        "mode": mode,
        "root": os.geteuid() == 0,
        # A working directory of root's is reached by two capabilities that end at the sandbox's own files. Without
        # a sandbox they would open every file there is.
        "uid": user or NOBODY,
        "gid": group or NOBODY,
        "keep_file_access": user == 0 and mode == "namespaces",
        "network": command.network,
        "readonly": layout.readonly,
        "links": layout.links,
        "files": layout.files,
        "work_dir": None if command.work_dir is None else str(command.work_dir),
        "work_inside": WORK_INSIDE,
        "cwd": str(outside) if mode == "limits" else WORK_INSIDE,
        "masks": {path: base64.b64encode(content).decode() for path, content in command.masks.items()},
        "tmp_bytes": TMP_BYTES,
        "filter": None if (calls := system_call_filter()) is None else base64.b64encode(calls).decode(),
        "program": str(command.program),
        "argv": list(command.argv),
        "environment": environment,
        "timeout_seconds": command.limits.timeout_seconds,
        "memory_bytes_max": command.limits.memory_bytes_max,
        "address_bytes_max": max(4 * command.limits.memory_bytes_max, ADDRESS_BYTES_MIN),
        "processes_max": command.limits.processes_max,
        "file_bytes_max": command.limits.file_bytes_max,
        "written_bytes_max": command.limits.written_bytes_max,
    }


def _owner(work_dir: Path | None) -> tuple[int, int]:
    if work_dir is None:
        return NOBODY, NOBODY
    found = work_dir.stat()
    return found.st_uid, found.st_gid


def bubblewrap_arguments(program: str, command: Command, layout: RootLayout, masks: Mapping[str, Path]) -> list[str]:
    """The same root as the engine's own sandbox has, told to bubblewrap."""
    arguments = [program, "--unshare-all", "--die-with-parent", "--cap-drop", "ALL", "--hostname", "hook", "--clearenv"]
    if command.network:
        arguments.append("--share-net")
    # Before what is bound: this Python may lie below /tmp.
    arguments += ["--size", str(TMP_BYTES), "--tmpfs", "/tmp"]  # noqa: S108
    for path, source in layout.readonly.items():
        arguments += ["--ro-bind", source, path]
    for path, target in layout.links.items():
        arguments += ["--symlink", target, path]
    arguments += ["--dev", "/dev", "--proc", "/proc"]
    arguments += ["--dir", "/tmp/home", "--ro-bind", str(INSIDE), INSIDE_TARGET]  # noqa: S108
    arguments += ["--dir", WORK_INSIDE] if command.work_dir is None else ["--bind", str(command.work_dir), WORK_INSIDE]
    for path, content in masks.items():
        arguments += ["--ro-bind", str(content), f"{WORK_INSIDE}/{path}"]
    return [*arguments, "--remount-ro", "/", "--chdir", "/"]


async def _supervise(
    process: asyncio.subprocess.Process, control: _Control, status: int, command: Command, started_at: float
) -> Ended:
    out, err = (_Reader(command.limits.output_bytes_max) for _ in range(2))
    reason: StopReason | None = None
    try:
        async with asyncio.timeout(command.limits.timeout_seconds + GRACE_SECONDS):
            reason = await _read(process, command, control, (out, err))
            await process.wait()
    except TimeoutError:
        reason = "time"
    finally:
        control.close()
        await _end(process)
    found = _found(status)
    if "setup" in found:
        raise SandboxFailedError(f"the sandbox cannot be made: {found['setup']}")
    if not found and reason is None:
        message = bytes(err.kept[:500]).decode(errors="replace").strip()
        raise SandboxFailedError(f"the sandbox ended without a word: {message or process.returncode}")
    reason = reason or found.get("reason")
    return Ended(
        exit_code=None if reason else found.get("code"),
        reason=reason,
        stdout=bytes(out.kept),
        stderr=bytes(err.kept),
        truncated=out.read_bytes > len(out.kept) or err.read_bytes > len(err.kept),
        duration_ms=round((time.monotonic() - started_at) * 1000),
    )


def _found(status: int) -> dict[str, Any]:
    """What the program inside reported, if it came to that."""
    try:
        first = os.read(status, STATUS_BYTES_MAX).partition(b"\n")[0]
    except BlockingIOError:
        return {}
    return dict(json.loads(first)) if first else {}


async def _read(
    process: asyncio.subprocess.Process, command: Command, control: _Control, readers: tuple[_Reader, _Reader]
) -> StopReason | None:
    reason: StopReason | None = None

    async def drain(stream: asyncio.StreamReader, reader: _Reader) -> None:
        nonlocal reason
        while part := await stream.read(READ_BYTES):
            reader.take(part)
            if reason is None and sum(each.read_bytes for each in readers) > command.limits.output_read_bytes_max:
                reason = "output"
                control.close()

    async def feed() -> None:
        if process.stdin is not None:
            # A command may end without reading its input.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(command.stdin)
                await process.stdin.drain()
                process.stdin.close()
                await process.stdin.wait_closed()

    if process.stdout is None or process.stderr is None:
        raise SandboxFailedError("the sandbox has no outputs")
    async with asyncio.TaskGroup() as group:
        group.create_task(feed())
        group.create_task(drain(process.stdout, readers[0]))
        group.create_task(drain(process.stderr, readers[1]))
    return reason


async def _end(process: asyncio.subprocess.Process) -> None:
    """Give the program inside a moment to clean up, then kill its process group; safe to call at any time."""
    draining = asyncio.create_task(_drained(process))
    try:
        await asyncio.wait({draining}, timeout=GRACE_SECONDS)
        if not draining.done():
            log.warning("sandbox.killed", pid=process.pid)
            _kill_group(process)
            await asyncio.wait({draining}, timeout=GRACE_SECONDS)
    finally:
        # Cancelled a second time: no more waiting.
        draining.cancel()
        _kill_group(process)


def _kill_group(process: asyncio.subprocess.Process) -> None:
    """Unless it is known to be gone: its number may be another's by then."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


async def _drained(process: asyncio.subprocess.Process) -> None:
    """Wait for its end while reading on: one whose pipe is full would never get there."""
    for stream in (process.stdout, process.stderr):
        while stream is not None and await stream.read(READ_BYTES):
            pass
    await process.wait()
