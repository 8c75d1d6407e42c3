"""Code of the working directory that attacks: it runs, in a sandbox, and reaches nothing.

Each piece of code says BREACH when it got what it wanted, and CONTAINED with what stopped it: so a test fails when the
attack works, and also when it does not even get to try.
"""

import asyncio
import os
import socket
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.hooks.actions.conftest import PWNED, Bench, sandbox_of

ATTEMPT = """
import ctypes, os, socket, subprocess, sys
from pathlib import Path

OUTSIDE = Path({outside!r})
LIBC = ctypes.CDLL(None, use_errno=True)

def called(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result

def foreign_pipes():
    named = {{}}
    for n in range(99):
        try:
            named[n] = os.readlink(f"/proc/self/fd/{{n}}")
        except OSError:
            pass
    own = {{named[n] for n in (0, 1, 2)}}
    return [name for name in named.values() if name.startswith(("pipe", "socket")) and name not in own]

def test_attack():
    try:
{code}
    except (OSError, AssertionError, ValueError) as error:
        print("CONTAINED", type(error).__name__, error)
        return
    print("BREACH")
"""

CODE = {
    "writes outside": "(OUTSIDE / 'pwned').write_text('x')",
    "overwrites the canary": "(OUTSIDE / 'canary.py').write_text('x')",
    "reads outside": "(OUTSIDE / 'canary.py').read_text()",
    "removes the canary": "(OUTSIDE / 'canary.py').unlink()",
    "links outwards and writes through": "os.symlink(OUTSIDE, 'way'); Path('way/pwned').write_text('x')",
    "links hard to the canary": "os.link(OUTSIDE / 'canary.py', 'hard')",
    "renames over the canary": "Path('x').write_text('x'); os.rename('x', OUTSIDE / 'canary.py')",
    "reads the users": "assert len(Path('/etc/passwd').read_text().splitlines()) > 5",
    "reads the passwords": "Path('/etc/shadow').read_text()",
    "reads keys": "Path('/root/.ssh').iterdir().__next__()",
    "reads private certificates": "os.listdir('/etc/ssl/private')",
    "writes to the system": "Path('/usr/pwned').write_text('x')",
    "writes to /etc": "Path('/etc/pwned').write_text('x')",
    "writes to the root": "Path('/pwned').write_text('x')",
    "writes to this Python": "Path(sys.prefix, 'pwned').write_text('x')",
    "writes to installed packages": "Path(os.__file__).with_name('pwned.py').write_text('x')",
    "writes to /dev": "assert 'pwned' in os.listdir('/dev') or Path('/dev/sda').write_text('x')",
    "reads the disk": "open('/dev/vda', 'rb').read(1)",
    "reads the kernel's memory": "open('/dev/mem', 'rb').read(1)",
    "makes a device": "os.mknod('disk', 0o60660, os.makedev(254, 0))",
    "reads the kernel's log": "os.open('/dev/kmsg', os.O_RDONLY)",
    "changes what a crash runs": "Path('/proc/sys/kernel/core_pattern').write_text('|/x')",
    "asks for a reboot": "Path('/proc/sysrq-trigger').write_text('h')",
    "lifts the limit of namespaces": "Path('/proc/sys/user/max_user_namespaces').write_text('100')",
    "releases a control group": "Path('/sys/fs/cgroup/release_agent').write_text('x')",
    "looks through process 1's root": "os.listdir('/proc/1/root/home')",
    "reads process 1's environment": "Path('/proc/1/environ').read_bytes()",
    "reads process 1's memory": "open('/proc/1/mem', 'rb').read(1)",
    "finds the engine": f"os.kill({os.getpid()}, 0)",
    "kills process 1": "os.kill(1, 9); raise ValueError('the signal is ignored')",
    "follows process 1": "called(LIBC.ptrace(16, 1, 0, 0))",
    "becomes root": "os.setuid(0); os.seteuid(0); Path('/usr/pwned').write_text('x')",
    "becomes root by a program": "assert not subprocess.run(['su', '-c', 'true'], input=b'', timeout=5).returncode",
    "makes a program for root": "open('s', 'w'); os.chown('s', 0, 0); os.chmod('s', 0o4755); open('/usr/pwned', 'w')",
    "mounts": "called(LIBC.mount(b'none', b'/tmp', b'tmpfs', 0, None))",
    "makes a mount writable": "called(LIBC.mount(b'none', b'/usr', None, 4096 | 32, None))",
    "unmounts": "called(LIBC.umount2(b'/hookwork', 2))",
    "changes the root": "os.chroot('/hookwork')",
    "makes a user namespace": "called(LIBC.unshare(0x10000000))",
    "enters a namespace": "called(LIBC.setns(os.open('/proc/1/ns/mnt', os.O_RDONLY), 0))",
    "renames the host": "socket.sethostname('pwned')",
    "sets the clock": "import time; time.clock_settime(time.CLOCK_REALTIME, 0)",
    "lifts its limits": "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (-1, -1))",
    "raises its priority": "os.setpriority(os.PRIO_PROCESS, 0, -20)",
    "writes to the terminal": "import fcntl, termios; fcntl.ioctl(0, termios.TIOCSTI, b'x')",
    "opens the terminal": "open('/dev/tty')",
    "keeps the engine's descriptors": "assert foreign_pipes()",
    "reads the engine's environment": "assert [k for k in os.environ if k.startswith(('HOOK_TEST', 'DATABASE'))]",
    "reaches a server of this machine": "socket.create_connection(('127.0.0.1', {port}), 2)",
    "reaches a server over IPv6": "socket.create_connection(('::1', {port}), 2)",
    "reaches the internet": "socket.create_connection(('1.1.1.1', 53), 2)",
    "reaches the metadata": "socket.create_connection(('169.254.169.254', 80), 2)",
    "asks for a name": "socket.getaddrinfo('example.com', 80)",
    "reaches a socket outside": "s = socket.socket(socket.AF_UNIX); s.connect(str(OUTSIDE.parent / 's'))",
    "reaches a socket without a path": "s = socket.socket(socket.AF_UNIX); s.connect('\\0hook-test-{port}')",
    "sends raw packets": "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)",
    "listens to packets": "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3)",
    "speaks to the kernel": "socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 15)",
    "speaks to the hypervisor": "socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)",
    "loads a program into the kernel": "called(LIBC.syscall(321, 5, ctypes.create_string_buffer(128), 128))",
    "reads the keyring": "called(LIBC.syscall(250, 0, -4, 1))",
    "makes a ring for system calls": "called(LIBC.syscall(425, 4, ctypes.create_string_buffer(120)))",
    "counts events of the processor": "called(LIBC.syscall(298, ctypes.create_string_buffer(112), 0, -1, -1, 0))",
    "opens by handle": "called(LIBC.open_by_handle_at(-100, ctypes.create_string_buffer(16), 0))",
}


@pytest.fixture
def servers(bench: Bench) -> Iterator[int]:
    """What an attack would like to reach, on a port, a path and an abstract name."""
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as path,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        port = int(tcp.getsockname()[1])
        os.chdir(bench.outside.parent)
        path.bind("s")
        path.listen()
        abstract.bind(f"\0hook-test-{port}")
        abstract.listen()
        yield port


@pytest.fixture(autouse=True)
def engine_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOOK_TEST_PASSWORD", "not-for-hooks")
    monkeypatch.setenv("DATABASE_URL", "postgresql://not-for-hooks@nowhere/")
    monkeypatch.chdir("/")


@pytest.mark.parametrize("title", CODE)
async def test_code_of_a_test_is_contained(title: str, bench: Bench, servers: int) -> None:
    code = textwrap.indent(CODE[title].replace("{port}", str(servers)), " " * 8)
    bench.write("test_attack.py", ATTEMPT.format(outside=str(bench.outside), code=code))
    outcome = await bench.run("pytest -s -q test_attack.py")
    assert "BREACH" not in outcome.output
    assert "not-for-hooks" not in outcome.output
    sandbox = await sandbox_of("auto")
    if sandbox is None or not sandbox.isolates:
        assert (outcome.error_code, outcome.refused) == ("SANDBOX_REQUIRED", True)
        return
    assert "CONTAINED" in outcome.output
    assert PWNED not in os.listdir("/usr")


ROOT = Path(__file__).resolve().parents[4]
STARTERS = {
    "conftest": ("conftest.py", "open({pwned!r}, 'w')"),
    "conftest of a directory": ("a/conftest.py", "open({pwned!r}, 'w')"),
    "plugin in conftest": ("conftest.py", "pytest_plugins = ['evil']"),
    "option for a plugin": ("pytest.ini", "[pytest]\naddopts = -p evil"),
    "option for a temporary directory": ("pytest.ini", "[pytest]\naddopts = --basetemp={outside}"),
    "option for a report": ("pytest.ini", "[pytest]\naddopts = --junitxml={pwned}"),
    "option for a cache": ("pytest.ini", "[pytest]\ncache_dir = {outside}/cache"),
    "option for a log": ("tox.ini", "[pytest]\nlog_file = {pwned}"),
    "option in pyproject": ("pyproject.toml", "[tool.pytest.ini_options]\naddopts = '--junitxml={pwned}'"),
    "another root": ("setup.cfg", "[tool:pytest]\naddopts = --rootdir={outside}"),
    "shadowing a module": ("json.py", "open({pwned!r}, 'w')"),
    "customization of Python": ("sitecustomize.py", "open({pwned!r}, 'w')"),
}


@pytest.mark.parametrize("title", STARTERS)
async def test_what_pytest_finds_before_tests_is_contained(title: str, bench: Bench) -> None:
    path, text = STARTERS[title]
    pwned = str(bench.outside / PWNED)
    bench.write("evil.py", f"open({pwned!r}, 'w')")
    bench.write(path, text.format(pwned=pwned, outside=bench.outside))
    bench.write("a/test_a.py", "import json\n\ndef test_a(tmp_path):\n    (tmp_path / 'x').write_text('x')\n")
    outcome = await bench.run("pytest -q")
    sandbox = await sandbox_of("auto")
    if sandbox is None or not sandbox.isolates:
        assert outcome.error_code == "SANDBOX_REQUIRED"
    else:
        assert outcome.error_code in (None, "EXIT_STATUS")


async def test_nothing_lives_on_after_the_end(bench: Bench) -> None:
    """Two forks and a session of its own: what daemons do."""
    mark = f"hook-test-{os.getpid()}-{os.urandom(4).hex()}"
    bench.write(
        "test_daemon.py",
        "import os, subprocess, sys\n\n"
        "def test_daemon():\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0:\n"
        f"            os.execv(sys.executable, [sys.executable, '-c', 'import time; time.sleep(600)', {mark!r}])\n"
        "        os._exit(0)\n",
    )
    bench.settings = {"hooks_unsandboxed_code": True}
    for bench.setting in ("auto", "off"):
        outcome = await bench.run("pytest -q")
        assert outcome.status == "completed", outcome
        assert mark not in _command_lines()


def _write_sleeping_test(bench: Bench) -> str:
    """What its process can be told by."""
    mark = f"hook-test-{os.getpid()}-{os.urandom(4).hex()}"
    bench.write(
        "test_sleep.py",
        "import subprocess, sys\n\n"
        "def test_sleep():\n"
        f"    subprocess.run([sys.executable, '-c', 'import time; time.sleep(600)', {mark!r}])\n",
    )
    return mark


async def test_nothing_lives_on_after_cancellation(bench: Bench) -> None:
    mark = _write_sleeping_test(bench)
    bench.settings = {"hooks_unsandboxed_code": True}
    for bench.setting in ("auto", "off"):
        task = asyncio.create_task(bench.run("pytest -q", timeout_seconds=60.0))
        await _until(lambda: mark in _command_lines())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert mark not in _command_lines()


async def test_a_command_dies_with_the_engine(bench: Bench) -> None:
    """The engine is killed: it cannot clean up."""
    mark = _write_sleeping_test(bench)
    engine = (
        "import asyncio, sys\nfrom pathlib import Path\n"
        "from tests.integration.hooks.actions.conftest import Bench\n"
        f"bench = Bench(Path({str(bench.work_dir)!r}), Path({str(bench.outside)!r}), sys.argv[1])\n"
        "bench.settings = {'hooks_unsandboxed_code': True}\n"
        "asyncio.run(bench.run('pytest -q', timeout_seconds=60.0))\n"
    )
    for setting in ("auto", "off"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            engine,
            setting,
            cwd=ROOT,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'sdk' / 'src'}", "TMPDIR": str(bench.work_dir.parent)},
        )
        try:
            await _until(lambda: mark in _command_lines())
        finally:
            process.kill()
            await process.wait()
        await _until(lambda: mark not in _command_lines())


async def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def _command_lines() -> str:
    """Of processes, not of those who look for them."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if any(word == b"import time; time.sleep(600)" for word in words):
            lines.append(b" ".join(words).decode(errors="replace"))
    return "\n".join(lines)


async def test_cancellation_at_any_moment_leaves_neither_processes_nor_descriptors(bench: Bench) -> None:
    bench.write("a.py", "x = 1\n")
    await bench.run("ruff format a.py")
    before = len(os.listdir("/proc/self/fd"))
    for delay_ms in range(0, 60, 3):
        task = asyncio.create_task(bench.run("ruff format a.py"))
        await asyncio.wait({task}, timeout=delay_ms / 1000)
        task.cancel()
        await asyncio.wait({task}, timeout=20)
        assert task.done()
    await _until(lambda: _children() == [])
    assert len(os.listdir("/proc/self/fd")) == before


def _children() -> list[str]:
    """This process's, but servers that other tests share."""
    found = []
    for path in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for pid in path.read_text().split():
            try:
                line = Path(f"/proc/{pid}/cmdline").read_text()
            except OSError:
                continue
            found += [line] if "inside.py" in line else []
    return found
