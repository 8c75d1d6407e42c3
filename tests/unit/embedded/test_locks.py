import os
import subprocess
import sys
from pathlib import Path

import pytest

from engine.embedded.locks import FileLock
from engine.errors import UnavailableError


def test_only_one_has_it_until_it_is_released(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "lock"), FileLock(tmp_path / "lock")
    assert first.try_acquire()
    assert not first.try_acquire()
    assert not second.try_acquire()
    first.release()
    first.release()
    assert second.try_acquire()
    second.release()


async def test_waiting_for_it_ends_with_an_error_that_names_the_file(tmp_path: Path) -> None:
    holder = FileLock(tmp_path / "lock")
    assert holder.try_acquire()
    with pytest.raises(UnavailableError, match=r"lock is still locked after 0\.05 s"):
        await FileLock(tmp_path / "lock").acquire(timeout_seconds=0.05)
    holder.release()


def test_a_child_that_inherited_it_holds_it_until_it_ends(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.try_acquire()
    assert lock.descriptor is not None
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", "input()"], stdin=subprocess.PIPE, pass_fds=(lock.descriptor,)
    )
    lock.release()
    other = FileLock(tmp_path / "lock")
    assert not other.try_acquire()
    child.communicate(b"\n", timeout=10)
    assert other.try_acquire()
    other.release()


def test_other_programs_do_not_inherit_it(tmp_path: Path) -> None:
    lock = FileLock(tmp_path / "lock")
    assert lock.try_acquire()
    assert lock.descriptor is not None
    assert not os.get_inheritable(lock.descriptor)
    lock.release()
