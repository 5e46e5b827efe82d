"""What a stored fit has to be before anything is predicted with it: complete, finite, and as it was written."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

CHECKSUM = "checksum"


@dataclass(frozen=True)
class Array:
    """What an array has to be.

    Parameters
    ----------
    shape
        Sizes, or names of sizes that several arrays share.
    low, high
        Least and largest value.
    above
        What values are above of.
    finite
        Whether values have to be finite; where not, they are no NaN.
    or_empty
        Whether there may be none.
    """

    shape: tuple[int | str, ...]
    low: float = -np.inf
    high: float = np.inf
    above: float = -np.inf
    finite: bool = True
    or_empty: bool = False


def _probabilities(*shape: int | str) -> Array:
    return Array(shape, low=0, high=1)


def _variances(*shape: int | str) -> Array:
    return Array(shape, low=0)


# Arrays of `AdditiveHurdlePrior`. C contexts, K covariates, P components with F features, L dose levels, g groups, G genes.
PRIOR: Mapping[str, Array] = MappingProxyType(
    {
        "contexts": Array(("C", "K"), low=0),
        "n_controls": Array(("C",), above=0),
        "control_expressed": _probabilities("C", "G"),
        "control_mean": Array(("C", "G"), low=0),
        "control_profile": Array(("C", "G"), low=0),
        "distance_unit": Array((1,), above=0),
        "pool_expressed": _probabilities("G"),
        "all_expressed": _probabilities("G"),
        "all_mean": Array(("G",), low=0),
        "variance": Array(("G",), above=0),
        "level_components": Array(("L",), low=0),
        "level_doses": Array(("L",), above=0),
        "trained": _probabilities("P"),
        "shared": Array((2, "C", "G")),
        "effect_codes": Array((2, "L", "C", "G")),
        "effect_steps": Array((2, "L", "C"), above=0),
        "group_starts": Array(("g + 1",), low=0),
        "group_components": Array(("doses",), low=0),
        "group_amounts": Array(("doses",), above=0),
        "group_contexts": Array(("g",), low=0),
        "group_cells": Array(("g",), above=0),
        "interaction_codes": Array((2, "g", "G")),
        "interaction_steps": Array((2, "g"), above=0),
        "effect_sds": _variances(2, "L", "G"),
        "interaction_variances": _variances(2, "G"),
        "context_variances": _variances(2, "G"),
        "base_precisions": Array((2, "C", "G"), low=0),
        "features": Array(("P", "F")),
        "fraction": _probabilities(2, 1),
    }
)

# Fields of `Calibration`: kinds, strata and scales.
CALIBRATION: Mapping[str, Array] = MappingProxyType(
    {
        "scales": Array(("scales",), above=0),
        "edges": Array(("kinds", "strata - 1"), finite=False),
        "offsets": Array(("kinds", "strata")),
        "weights": _probabilities("kinds", "strata", "scales"),
        "factors": Array(("kinds", "strata"), low=0),
        "n_conditions": Array(("kinds",), low=0),
        "codependence": Array(("kinds",), low=0),
    }
)

# Of fitted dynamics: N trajectories and d genes with s states.
DYNAMICS: Mapping[str, Array] = MappingProxyType(
    {
        "scale": Array(("d",), above=0),
        "time_scale": Array((), above=0),
        "names": Array(("N",), finite=False),
        "start": Array(("N", "s")),
        "span": Array(("N", 2)),
        "clamped": _probabilities("N", "d"),
        "states": Array(("B", "s")),
        "rates": Array(("d + 1", "d"), or_empty=True),
        "evidence": Array(("d", "n"), finite=False, or_empty=True),
        "strength": Array((), low=0),
    }
)


class _Damage(ValueError):
    """What is wrong, as the words that follow "found" in a message."""


@contextmanager
def reading(what: str, *, where: str, advice: str) -> Iterator[None]:
    """Say of a stored fit that cannot be read where it is and what to do.

    Parameters
    ----------
    what
        What is read, for example "a fitted flow".
    where
        Its place, for example ``adata.uns['flow']``.
    advice
        What to do next.
    """
    try:
        yield
    except (AttributeError, IndexError, KeyError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        said = " ".join(str(error).split())
        if isinstance(error, KeyError):
            said = f"nothing under {said}"
        elif not isinstance(error, _Damage):
            said = f"what does not fit together ({said[:200]})"
        msg = f"Expected {what} in {where}, complete and as it was written, found {said}. {advice}"
        raise ValueError(msg) from error


def check_arrays(
    arrays: Mapping[str, Any], expected: Mapping[str, Array], *, part: str, sizes: Mapping[str, int] | None = None
) -> None:
    """Raise unless arrays have values that they can have and shapes that fit each other.

    Parameters
    ----------
    arrays
        Arrays by name; those that nothing is known of have to be finite.
    expected
        What they have to be. Those that are absent are not looked at.
    part
        What they are of; "" for the whole.
    sizes
        Sizes that are known.

    Raises
    ------
    ValueError
        If an array is not what it has to be.
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
                raise _Damage(msg)
        if array.dtype.kind in "biuf":
            _check_values(array, rule or Array(()), name=path)
    for name, size in sizes.items():
        base, _, offset = name.partition(" ")
        if offset and size != (wanted_size := sizes[base] + int(offset.replace(" ", ""))):
            msg = f"an array of `{part}` with {size} instead of {wanted_size} = {name}"
            raise _Damage(msg)


def _check_values(array: NDArray[Any], rule: Array, *, name: str) -> None:
    if not (np.isfinite(array).all() if rule.finite else not np.isnan(array).any()):
        msg = f"NaN or infinite values in `{name}`"
        raise _Damage(msg)
    if array.size and (array.min() < rule.low or array.max() > rule.high or array.min() <= rule.above):
        limits = [f"at least {rule.low:g}"] * (rule.low > -np.inf) + [f"above {rule.above:g}"] * (rule.above > -np.inf)
        limits += [f"at most {rule.high:g}"] * (rule.high < np.inf)
        msg = f"values from {array.min():g} to {array.max():g} in `{name}`, which should be {' and '.join(limits)}"
        raise _Damage(msg)


def check_equal(found: int, expected: int, *, what: str) -> None:
    """Raise unless something is there as often as it has to be."""
    if found != expected:
        msg = f"{found} {what} instead of {expected}"
        raise _Damage(msg)


def check_below(places: Any, size: int, *, what: str) -> None:
    """Raise unless all places are among so many."""
    if np.max(places, initial=-1) >= size:
        msg = f"the number {np.max(places)} of {what}, of which there are {size}"
        raise _Damage(msg)


def checksum(values: Mapping[str, Any], *, without: Iterable[str] = ()) -> str:
    """Hash everything that was stored, the same before and after a file.

    Lists are what arrays are, whole numbers are of one type, and so is text; what is empty is as good as absent.

    Parameters
    ----------
    values
        Arrays, tables and plain values, nested.
    without
        Paths that may change, such as ``config/guidance``; what is below them may, too.

    Returns
    -------
    Hexadecimal digits of the SHA-256.
    """
    known = hashlib.sha256()
    _feed(known.update, values, "", {CHECKSUM, *without})
    return known.hexdigest()


def check_unchanged(values: Mapping[str, Any], *, without: Iterable[str] = ()) -> None:
    """Raise if values are not those that were stored; earlier versions stored none to compare with."""
    if CHECKSUM in values and str(values[CHECKSUM]) != checksum(values, without=without):
        msg = "values that do not have the stored checksum: something was changed since"
        raise _Damage(msg)


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
