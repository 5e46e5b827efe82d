"""Damage: bytes of files and entries of nested dictionaries, changed at random."""

from __future__ import annotations

import copy
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

NUMBERS = (0, 1, -1, 2, 10**12, -(10**12), 2**62, float("nan"), float("inf"), "text", None, [], {}, True)
LENGTHS = (0, 1, 8, 2**20, 10**8, 2**31, 2**40, 2**63, 2**64 - 1)


def damaged_bytes(whole: bytes, rng: np.random.Generator) -> tuple[str, bytes]:
    """Return what was done to the bytes of a file, and the bytes."""
    changed, n = bytearray(whole), len(whole)
    start, length = int(rng.integers(n)), int(rng.choice([1, 4, 64, 1024, n]))
    kind = str(rng.choice(["zeros", "random", "cut", "more", "swap", "number"]))
    part = slice(start, min(n, start + length))
    if kind == "zeros":
        changed[part] = bytes(part.stop - part.start)
    elif kind == "random":
        changed[part] = rng.bytes(part.stop - part.start)
    elif kind == "cut":
        del changed[slice(start, n) if rng.random() < 0.5 else part]
    elif kind == "more":
        changed[start:start] = rng.bytes(length % 4096)
    elif kind == "swap":
        other = int(rng.integers(n))
        changed[start : start + 64], changed[other : other + 64] = whole[other : other + 64], whole[start : start + 64]
    else:  # a length or a size, at the beginning of a file or anywhere in it
        place = 0 if rng.random() < 0.3 else start
        changed[place : place + 8] = struct.pack("<Q", int(LENGTHS[rng.integers(len(LENGTHS))]))
    return kind, bytes(changed)


def damaged_entry(entry: Mapping[str, Any], rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """Return what was done to a nested dictionary, and the dictionary."""
    changed = copy.deepcopy(dict(entry))
    path, parent = "", changed
    while True:
        name = sorted(parent)[rng.integers(len(parent))]
        path = f"{path}/{name}"
        if not isinstance(parent[name], dict) or not parent[name] or rng.random() < 0.05:
            break
        parent = parent[name]
    value = parent[name]
    kind = str(rng.choice(["remove", "rename", "replace", "swap", "more", "array"]))
    if kind == "remove":
        del parent[name]
    elif kind == "rename":
        parent[f"{name}_"] = parent.pop(name)
    elif kind == "replace":
        parent[name] = copy.deepcopy(NUMBERS[rng.integers(len(NUMBERS))])
    elif kind == "swap":
        other = sorted(parent)[rng.integers(len(parent))]
        parent[name], parent[other] = parent[other], value
    elif kind == "more":
        parent["another"] = value
    elif isinstance(value, np.ndarray) and value.size:
        kind, parent[name] = _damaged_array(value, rng)
    return f"{kind} {path}", changed


def _damaged_array(value: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    kind = str(rng.choice(["nan", "infinite", "negative", "large", "type", "text", "flat", "fewer", "huge shape"]))
    numbers = {"nan": np.nan, "infinite": np.inf, "negative": -1, "large": 10**9}
    if kind in numbers:
        changed = value.astype(float) if value.dtype.kind in "biuf" and kind in {"nan", "infinite"} else value.copy()
        changed.flat[rng.integers(value.size)] = numbers[kind]
        return kind, changed
    if kind == "type":
        return kind, value.astype(
            object if value.dtype.kind == "f" else float
        ) if value.dtype.kind in "biuf" else value[:0]
    if kind == "text":
        return kind, value.astype(str)
    if kind == "flat":
        return kind, value.reshape(-1)[: max(1, value.size - 1)]
    if kind == "fewer":
        return kind, value[1:] if value.ndim else value[None]
    return kind, np.broadcast_to(value.reshape(-1)[:1], (2**20, 2**10))  # of a stride of 0: no memory
