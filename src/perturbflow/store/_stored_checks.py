"""Checks of a stored fit before anything is predicted with it: complete, finite, and as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CHECKSUM = "checksum"


@dataclass(frozen=True)
class Array:
    """Specification of an array."""

    shape: tuple[int | str, ...]  # sizes, or names of sizes that several arrays share
    low: float = -np.inf  # least value
    high: float = np.inf  # largest value
    above: float = -np.inf  # what values are above of
    finite: bool = True  # whether values have to be finite; where not, they are no NaN
    or_empty: bool = False  # whether there may be none
    is_text: bool = False  # whether it has names and not numbers


def probabilities(*shape: int | str) -> Array:
    """Return what an array of probabilities has to be."""
    return Array(shape, low=0, high=1)


class Damage(ValueError):
    """Return what is wrong, as the words that follow "found" in a message."""


@contextmanager
def reading(what: str, *, where: str, advice: str) -> Iterator[None]:
    """Say of a stored fit that cannot be read where it is and what to do."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, KeyError):
            said = f"no entry {said}"
        elif not isinstance(error, Damage):
            said = f"inconsistent content ({said[:200]})"
        msg = f"Expected {what} in {where}, complete and as it was written, found {said}. {advice}"
        raise ValueError(msg) from error


def check_arrays(
    arrays: Mapping[str, Any], expected: Mapping[str, Array], *, part: str, sizes: Mapping[str, int] | None = None
) -> None:
    """Raise unless arrays have values that they can have, and shapes that fit each other and the known ``sizes``.

    Arrays that nothing is known of have to be finite numbers; absent ones are not looked at. Messages name the
    ``part``.
    """
    sizes = dict(sizes or {})
    for name, value in arrays.items():
        array, rule = np.asarray(value), expected.get(name)
        path = f"{part}/{name}" if part else name
        if rule is not None and not (rule.or_empty and not array.size):
            # The first array with a size decides; sums are of sizes that others have.
            wanted = tuple(
                each if isinstance(each, int) else sizes.setdefault(each, size)
                for each, size in zip(rule.shape, array.shape, strict=False)
            )
            if array.ndim != len(rule.shape) or array.shape != wanted:
                shape = ", ".join(map(str, rule.shape))
                known = {each: sizes[each] for each in rule.shape if each in sizes}
                msg = f"`{path}` of shape {array.shape} instead of ({shape}) with {known}"
                raise Damage(msg)
        if array.dtype.kind in "biuf":
            _check_values(array, rule or Array(()), name=path)
        elif rule is None or not rule.is_text:
            msg = f"`{path}` of type {array.dtype}, which is not numeric"
            raise Damage(msg)
    for name, size in sizes.items():
        base, _, offset = name.partition(" ")
        if offset and size != (wanted_size := sizes[base] + int(offset.replace(" ", ""))):
            msg = f"an array of `{part}` with {size} instead of {wanted_size} = {name}"
            raise Damage(msg)


def _check_values(array: NDArray[Any], rule: Array, *, name: str) -> None:
    if not (np.isfinite(array).all() if rule.finite else not np.isnan(array).any()):
        msg = f"NaN or infinite values in `{name}`"
        raise Damage(msg)
    if array.size and (array.min() < rule.low or array.max() > rule.high or array.min() <= rule.above):
        limits = [f"at least {rule.low:g}"] * (rule.low > -np.inf) + [f"above {rule.above:g}"] * (rule.above > -np.inf)
        limits += [f"at most {rule.high:g}"] * (rule.high < np.inf)
        msg = f"values from {array.min():g} to {array.max():g} in `{name}`, which should be {' and '.join(limits)}"
        raise Damage(msg)


def check_like(arrays: Mapping[str, Any], expected: Mapping[str, tuple[tuple[int, ...], str]], *, part: str) -> None:
    """Raise unless arrays are those that something is made of, by name, shape and name of their type."""
    if missing := sorted(expected.keys() - arrays.keys()):
        raise KeyError(f"{part}/" + missing[0])
    for name, value in arrays.items():
        array = np.asarray(value)
        found = (array.shape, array.dtype.name)
        if found != (wanted := expected.get(name)):
            msg = f"`{part}/{name}` of shape and type {found} instead of {wanted}"
            raise Damage(msg)


def check_equal(found: int, expected: int, *, what: str) -> None:
    """Raise unless something is there as often as it has to be."""
    if found != expected:
        msg = f"{found} {what} instead of {expected}"
        raise Damage(msg)


def check_below(places: Any, size: int, *, what: str) -> None:
    """Raise unless all places are among so many."""
    if np.max(places, initial=-1) >= size:
        msg = f"the number {np.max(places)} of {what}, of which there are {size}"
        raise Damage(msg)


def checksum(values: Mapping[str, Any], *, without: Iterable[str] = ()) -> str:
    """Hash everything that was stored, the same before and after a file.

    Lists are what arrays are, whole numbers are of one type, and so is text; what is empty is as good as absent. Paths
    in ``without``, such as ``config/guidance``, may change, and so may what is below them.
    """
    known = hashlib.sha256()
    _feed(known.update, values, "", {CHECKSUM, *without})
    return known.hexdigest()


def check_unchanged(values: Mapping[str, Any], *, without: Iterable[str] = ()) -> None:
    """Raise if values are not those that were stored; earlier versions stored none to compare with."""
    if CHECKSUM in values and str(values[CHECKSUM]) != checksum(values, without=without):
        msg = "values whose checksum differs from the stored one: they were changed since"
        raise Damage(msg)


def _feed(update: Callable[[bytes], None], value: Any, path: str, without: set[str]) -> None:
    if path in without or value is None:
        return
    if isinstance(value, pd.DataFrame):
        value = {str(name): column.to_numpy() for name, column in value.items()}
    if isinstance(value, Mapping):
        for name in sorted(value):
            _feed(update, value[name], f"{path}/{name}" if path else str(name), without)
        return
    array = np.asarray(value)
    if not array.size:
        return
    if array.dtype.kind in "iu":
        array = array.astype(np.int64)
    update(f"{path}{array.shape}".encode())
    if array.dtype.kind in "bif":
        update(f"{array.dtype.kind}{array.dtype.itemsize}".encode())
        update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    else:
        update("\0".join(map(str, array.ravel().tolist())).encode())
