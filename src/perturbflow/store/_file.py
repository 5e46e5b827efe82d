"""Files with named arrays and plain values (safetensors with JSON in the header), replaced atomically; output folders."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

_KIND, _VALUES, _DIGEST = "perturbflow", "values", "sha256"
_TYPES = frozenset({"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64", "F16", "F32", "F64"})


def write_file(path: Path, arrays: Mapping[str, NDArray[Any]], values: Mapping[str, Any], *, kind: str) -> None:
    """Write arrays and values, which JSON can hold; an interruption leaves the earlier file, or none.

    The directory is made if there is none. Nothing else is taken for this ``kind`` of file.
    """
    # A copy in the order of C where needed; `ascontiguousarray` would turn a number into an array of one.
    arrays = {name: np.require(array, requirements="C") for name, array in arrays.items()}
    text = json.dumps(values)
    header = {_KIND: kind, _VALUES: text, _DIGEST: _digest(arrays, text, kind)}
    with replacing(path) as file:
        # Not `save_file`, which has a temporary file of its own: nothing would remove it after a kill.
        file.write(save(arrays, metadata=header))


def read_file(path: Path, *, kind: str, advice: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Read what :func:`write_file` wrote, to the last byte; nothing is allocated for what the file does not hold.

    Raises ValueError, with ``advice``, if the file is of another kind, or is not as it was written.
    """
    try:
        found = _read(path, kind)
    except OSError as error:
        msg = f"Expected {kind} in {str(path)!r}, found an unreadable file: {error.strerror or error}. {advice}"
        raise type(error)(msg) from error
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        msg = (
            f"Expected {kind} in {str(path)!r}, complete and as it was written, found a damaged file ({said}). {advice}"
        )
        raise ValueError(msg) from error
    if found is None:
        msg = (
            f"Expected {kind} in {str(path)!r}, found a file with other content, or from an earlier version of perturbflow. "
            f"{advice}"
        )
        raise ValueError(msg)
    return found


def _read(path: Path, kind: str) -> tuple[dict[str, NDArray[Any]], dict[str, Any]] | None:
    with path.open("rb"):  # whose errors say more
        pass
    with safe_open(path, framework="numpy") as file:
        header = file.metadata() or {}
        if header.get(_KIND) != kind:
            return None
        names = list(file.keys())
        types = {file.get_slice(name).get_dtype() for name in names}
        if not types <= _TYPES:
            msg = f"arrays of types {sorted(types - _TYPES)}"
            raise TypeError(msg)
        arrays = {name: file.get_tensor(name) for name in names}
    if header[_DIGEST] != _digest(arrays, header[_VALUES], kind):
        msg = "its bytes do not have the stored checksum"
        raise ValueError(msg)
    values = json.loads(header[_VALUES])
    if not isinstance(values, dict):
        msg = f"values of type {type(values).__name__}"
        raise TypeError(msg)
    return arrays, values


def _digest(arrays: Mapping[str, NDArray[Any]], text: str, kind: str) -> str:
    """Return the SHA-256 of everything, in hexadecimal digits."""
    known = hashlib.sha256(f"{kind}\0{text}".encode())
    for name in sorted(arrays):
        array = arrays[name]
        known.update(f"\0{name}\0{array.dtype.newbyteorder('<').str}{array.shape}\0".encode())
        known.update(array.reshape(-1).view(np.uint8).data)
    return known.hexdigest()


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


_PROBE = ".perturbflow-probe"
_N_BYTES = 4096  # a full disk takes an empty file


def check_folder(folder: str | Path, *, name: str) -> None:
    """Raise unless files can be written into a directory; it is not made if there is none.

    An empty name, which would be the current directory, is a ValueError.
    """
    if folder == "":
        msg = f"Expected `{name}` to be a directory, found ''. Use '.' for the current directory."
        raise ValueError(msg)
    folder = Path(folder)
    inside = next(part for part in (folder, *folder.absolute().parents) if os.path.lexists(part))
    if not inside.is_dir():
        msg = (
            f"Expected `{name}` to be an existing or new directory, found the file {str(inside)!r}"
            f"{'' if inside == folder else f' in the path {str(folder)!r}'}. Choose another `{name}`."
        )
        raise NotADirectoryError(msg)
    new = [part for part in (folder, *folder.parents) if not part.exists()]
    probe = folder / _PROBE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with probe.open("wb") as file:
            file.write(bytes(_N_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        msg = (
            f"Expected `{name}` to be a directory that can be written to, found {str(folder)!r}: "
            f"{error.strerror or error}. Choose another `{name}`, or free the location."
        )
        raise type(error)(msg) from error
    finally:
        with suppress(OSError):  # what is not there, or has got other content meanwhile
            probe.unlink()
        with suppress(OSError):
            for part in new:
                part.rmdir()
