"""Arrays whose rows or columns have names: they are put in order by name, or refused, and never taken by position.

Names are those of pandas, and of objects with the attribute ``gene_names`` and the method ``reordered``. The numbers that
pandas gives to rows and columns of its own accord are no names, unless all others have whole numbers for names, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_unique_names, listing

Function = TypeVar("Function", bound=Callable[..., Any])


def without_names(value: Any, *, name: str) -> Any:
    """Return the array of a table, and other arrays as they are; AnnData, MuData and masked values are refused."""
    if isinstance(value, pd.DataFrame | pd.Series | pd.Index):
        return value.to_numpy()
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            msg = (
                f"Expected all values of `{name}`, found {np.ma.count_masked(value)} of {value.size} masked. "
                f"Remove these rows or columns, or pass `{name}.filled(...)`."
            )
            raise ValueError(msg)
        return np.asarray(value)
    if isinstance(value, np.matrix):
        return np.asarray(value)
    if hasattr(value, "obs_names"):
        msg = (
            f"Expected `{name}` to be an array, a sparse matrix or a pandas DataFrame, found {type(value).__name__}. "
            "Pass `adata.to_df()`, whose genes are matched by name, or `adata.X` with the genes in the same order."
        )
        raise TypeError(msg)
    return value


def real_numbers(value: Any, *, name: str) -> NDArray[np.float64]:
    """Dense array of numbers, in float64, without names; what holds anything else is refused."""
    array = without_names(value, name=name)
    try:
        array = array.toarray() if sparse.issparse(array) else np.asarray(array)
        array = array.astype(np.float64) if array.dtype.kind == "O" else array
    except (TypeError, ValueError) as error:  # rows of different lengths, or things that are no numbers
        msg = f"Expected `{name}` to be an array of real numbers, found {type(value).__name__} ({error}). Pass numbers only."
        raise TypeError(msg) from error
    if array.dtype.kind not in "fiub":
        msg = f"Expected `{name}` to hold real numbers, found dtype {array.dtype}."
        raise TypeError(msg)
    return array.astype(np.float64)


def aligned(*axes: str, **named: Any) -> list[Any]:
    """Arrays in the order of the first that has names, without the names; ``axes`` says what the last axes are."""
    arrays = {name: without_names(value, name=name) for name, value in named.items()}
    for place, what in zip(range(-1, -len(axes) - 1, -1), reversed(axes), strict=True):
        names = {name: _names(value, place) for name, value in named.items() if _n_axes(value) >= -place}
        for name, order in orders(names, what=what).items():
            array = arrays[name]
            arrays[name] = array.reordered(order) if hasattr(array, "reordered") else np.take(array, order, axis=place)
    return list(arrays.values())


def by_name(*axes: str, of: Sequence[str]) -> Callable[[Function], Function]:
    """Decorator: the arguments named in ``of`` reach the function as :func:`aligned` gives them."""

    def decorate(function: Function) -> Function:
        parameters = list(inspect.signature(function).parameters)

        @wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            given = dict(zip(parameters, args, strict=False)) | kwargs
            named = {name: given[name] for name in of if name in given}
            found = dict(zip(named, aligned(*axes, **named), strict=True))
            places = [found.get(name, value) for name, value in zip(parameters, args, strict=False)]
            keywords = {name: found.get(name, value) for name, value in kwargs.items()}
            return function(*places, *args[len(parameters) :], **keywords)

        return cast("Function", wrapper)

    return decorate


def names_of(*values: Any, place: int = -1) -> pd.Index | None:
    """Names along an axis, the last by default, of the first that has some: those of what :func:`aligned` gives."""
    names = (_names(value, place) for value in values)
    return next((index for index in names if index is not None and not _is_numbered(index)), None)


def orders(names: Mapping[str, pd.Index | None], *, what: str) -> dict[str, NDArray[np.intp]]:
    """Places that bring arrays into the order of the first with names, for those that are in another."""
    known = {name: index for name, index in names.items() if index is not None and not _is_numbered(index)}
    if all(index.dtype.kind in "iu" for index in known.values()):
        known = {name: index for name, index in names.items() if index is not None}
    if len(known) < 2 or all(map(_is_numbered, known.values())):
        return {}
    (first, reference), *others = known.items()
    found = {}
    for name, index in known.items():
        check_unique_names(list(map(str, index)), what=f"the {what} of `{name}`", hint="Keep each name once.")
    for name, index in others:
        only = [one.difference(other, sort=False).tolist() for one, other in ((reference, index), (index, reference))]
        if any(only):
            sides = [
                f"only in `{side}` {listing(each, limit=3)}"
                for side, each in zip((first, name), only, strict=True)
                if each
            ]
            msg = (
                f"Expected the same {what} in `{first}` and `{name}`, found {' and '.join(sides)}. "
                f"Keep the shared {what}."
            )
            raise ValueError(msg)
        order = index.get_indexer(reference)
        if not np.array_equal(order, np.arange(len(order))):
            found[name] = order
    unnamed = [name for name in names if name not in known]
    if found and unnamed:
        msg = (
            f"Expected names of the {what} in all of {list(names)}, since the DataFrames have them in different orders, found "
            f"none in {unnamed}. Pass these as DataFrames, too, or all as arrays in the same order."
        )
        raise ValueError(msg)
    return found


def same_on_both_sides(matrix: Any, *, name: str, what: str) -> Any:
    """Square array whose columns are in the order of its rows, where both have names."""
    array = without_names(matrix, name=name)
    if isinstance(matrix, pd.DataFrame):
        names = {f"{name}.{side}": getattr(matrix, side) for side in ("index", "columns")}
        for order in orders(names, what=what).values():
            array = array[:, order]
    return array


def chosen(value: Any, wanted: Sequence[str], *, name: str, what: str = "genes") -> Any:
    """Values along the last axis by name, in the order that is wanted; None where only positions are known."""
    array, index = without_names(value, name=name), _names(value, -1)
    if index is None or _is_numbered(index):
        return None
    if index.equals(pd.Index(wanted)):
        return array
    check_unique_names(list(map(str, index)), what=f"the {what} of `{name}`", hint="Keep each name once.")
    places = index.get_indexer(list(wanted))
    missing = [one for one, place in zip(wanted, places, strict=True) if place < 0]
    if missing:
        has_rows = isinstance(value, pd.DataFrame) and bool(value.index.isin(wanted).any())
        advice = f"They are its columns: pass `{name}.T`." if has_rows else "Add them, or pass an array."
        msg = (
            f"Expected all {len(wanted)} {what} in `{name}`, found that {len(missing)} are missing: {listing(missing)}. "
            f"{advice}"
        )
        raise ValueError(msg)
    return np.take(array, places, axis=-1)


def check_unnamed(value: Any, *, name: str, order: str) -> None:
    """Refuse tables with names where nothing is known that these could be compared with; arrays have the ``order``."""
    without_names(value, name=name)
    named = [index for index in (_names(value, -1), _names(value, -2)) if index is not None]
    if any(not _is_numbered(index) for index in named):
        msg = (
            f"Expected `{name}` to be an array in the order of {order}, found {type(value).__name__}, whose names cannot be "
            f"matched. Sort it in that order and pass `{name}.to_numpy()`."
        )
        raise TypeError(msg)


def _names(value: Any, place: int) -> pd.Index | None:
    """Names along an axis that is counted from the last one."""
    index = None
    if isinstance(value, pd.DataFrame):
        index = value.axes[place]
    elif place == -1:
        index = value.index if isinstance(value, pd.Series) else getattr(value, "gene_names", None)
    return index.astype(object) if isinstance(index, pd.CategoricalIndex) else index


def _n_axes(value: Any) -> int:
    if value is None:
        return 0
    if hasattr(value, "shape"):
        return len(value.shape)
    return 1 if hasattr(value, "gene_names") else np.ndim(value)


def _is_numbered(index: pd.Index) -> bool:
    """Return whether names are no more than the numbers that pandas gives."""
    return index.dtype.kind in "iu" and index.equals(pd.RangeIndex(len(index)))
