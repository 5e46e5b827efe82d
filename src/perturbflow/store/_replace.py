"""Files that are replaced as a whole: a reader finds the old one or the new one, also while it is written."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

_SUFFIX = ".new"


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file beside another, which it replaces once it is on the disk.

    Nothing is left of it where writing fails; what a killed process has left is removed by the next writer. Of two
    writers the last one wins, whole. The directory is made if there is none.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path)
    fresh, held = _held(path)
    try:
        with held:
            yield held
            held.flush()
            os.fsync(held.fileno())
            fresh.replace(path)
        _sync_names(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove new files that no living process is writing, as after a kill."""
    for left in path.parent.glob(f".{path.name}.*{_SUFFIX}"):
        with suppress(OSError), left.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fails while its writer lives
            left.unlink()


def _held(path: Path) -> tuple[Path, BinaryIO]:
    """Return a new file, locked so that others see that its writer lives."""
    while True:
        fresh = path.with_name(f".{path.name}.{uuid4().hex}{_SUFFIX}")
        file = fresh.open("xb")
        try:
            with suppress(OSError):  # a file system without locks, where leftovers stay
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:  # none if another has removed it before it was locked
                return fresh, file
        except BaseException:
            file.close()
            fresh.unlink(missing_ok=True)
            raise
        file.close()


def _sync_names(folder: Path) -> None:
    """Put the names in a directory on the disk; not every file system can."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
