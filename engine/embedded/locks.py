"""Locks on files that end with the processes that hold them, and so need no cleaning up after a crash."""

import asyncio
import fcntl
import os
from pathlib import Path
from typing import Final

from engine.errors import UnavailableError

POLL_SECONDS: Final = 0.02


class FileLock:
    """An exclusive lock. A child that inherits `descriptor` holds it too, until it and its own children have ended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.descriptor: int | None = None

    def try_acquire(self) -> bool:
        if self.descriptor is not None:
            return False
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self.descriptor = descriptor
        return True

    async def acquire(self, timeout_seconds: float) -> int:
        """Raises UnavailableError when someone else still holds it after that time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                while not self.try_acquire():  # noqa: ASYNC110 - the kernel tells nobody when such a lock is free
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise UnavailableError(f"{self.path} is still locked after {timeout_seconds:g} s") from error
        assert self.descriptor is not None  # noqa: S101 - for the type checker: try_acquire has set it
        return self.descriptor

    def release(self) -> None:
        """Give up this process's share; children that inherited it keep theirs."""
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None
