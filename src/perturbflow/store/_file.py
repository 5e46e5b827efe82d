"""One file with named arrays and plain values: safetensors with JSON in its header, replaced as a whole."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from perturbflow.store._replace import replacing

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
        msg = f"Expected {kind} in {str(path)!r}, found what cannot be read: {error.strerror or error}. {advice}"
        raise type(error)(msg) from error
    except (SafetensorError, ValueError, TypeError, KeyError, RecursionError) as error:
        said = " ".join(str(error).split())[:200]
        msg = (
            f"Expected {kind} in {str(path)!r}, complete and as it was written, found a damaged file ({said}). {advice}"
        )
        raise ValueError(msg) from error
    if found is None:
        msg = (
            f"Expected {kind} in {str(path)!r}, found a file of something else, or of an earlier version of perturbflow. "
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
            msg = f"arrays of {sorted(types - _TYPES)}"
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
