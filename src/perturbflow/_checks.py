"""Checks of what users hand in, and the wording of errors: what was expected, what was found, what to do next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from difflib import SequenceMatcher, get_close_matches
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

LARGEST_LOGGED = 20.0  # log1p of 5e8: no count of a cell is as large, unless it was divided by a tiny size factor
LARGEST_SCALED = 40.0  # of base 2, with a size factor of a millionth
LARGEST_RANGE = 17.0  # log2 of 1e5: within a cell logarithms differ by no more than those of its counts


def listing(items: Iterable[Any], *, limit: int = 10) -> str:
    """Write items as a list that stays readable: ``['a', 'b'] and 7 more``."""
    items = list(items)
    rest = f" and {len(items) - limit} more" if len(items) > limit else ""
    return f"{items[:limit]}{rest}"


def nearest(word: str, options: Iterable[str], *, n: int | None = None) -> list[str]:
    """Sort options by similarity to a word, whatever the case; the first n of them."""
    target = word.casefold()
    ratio = {option: SequenceMatcher(None, target, option.casefold()).ratio() for option in options}
    return sorted(ratio, key=lambda option: (-ratio[option], option))[:n]


def position_of(gene: str, genes: list[str]) -> int:
    """Position of a gene among those of a fit; KeyError, with those of similar names, if it is none of them."""
    if gene not in genes:
        msg = f"Expected one of the {len(genes)} genes of the fit, found {gene!r}. Similar names: {nearest(gene, genes, n=3)}."
        raise KeyError(msg)
    return genes.index(gene)


def check_type(value: object, kind: type | tuple[type, ...], *, name: str, expected: str) -> None:
    """Raise TypeError unless ``value`` is an instance of ``kind``."""
    if not isinstance(value, kind):
        msg = f"Expected `{name}` to be {expected}, found {value!r} of type {type(value).__name__}."
        raise TypeError(msg)


def check_text(value: object, *, name: str) -> None:
    """Raise unless ``value`` is a string with something in it."""
    check_type(value, str, name=name, expected="a string")
    if value == "":
        msg = f"Expected `{name}` to be a string of at least one character, found ''."
        raise ValueError(msg)


def check_one_of(value: object, options: Collection[str], *, name: str) -> None:
    """Raise ValueError unless ``value`` is one of the options."""
    if value not in options:
        msg = f"Expected `{name}` to be one of {sorted(options)}, found {value!r}."
        raise ValueError(msg)


def check_options(
    given: Mapping[str, Any] | None, known: Collection[str], *, name: str, elsewhere: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return options that were given as a mapping; TypeError unless all are known."""
    if given is None:
        return {}
    check_type(given, Mapping, name=name, expected="a dictionary of options")
    unknown = [option for option in given if option not in known]
    if unknown:
        hints = []
        for option in map(str, unknown):
            if option in (elsewhere or {}):
                hints.append(f"{option!r} is {(elsewhere or {})[option]}")
            elif near := get_close_matches(option, known, n=1):
                hints.append(f"instead of {option!r} use {near[0]!r}")
        advice = f" {'; '.join(hints)}.".replace(" instead", " Instead", 1) if hints else ""
        msg = f"Expected keys of `{name}` among {sorted(known)}, found {unknown}.{advice}"
        raise TypeError(msg)
    return dict(given)


def check_whole_number(value: object, *, name: str, least: int = 0) -> None:
    """Raise unless ``value`` is an integer of at least ``least``."""
    check_type(value, () if isinstance(value, bool) else Integral, name=name, expected="a whole number")
    if value < least:  # type: ignore[operator]
        msg = f"Expected `{name}` to be at least {least}, found {value!r}."
        raise ValueError(msg)


def check_n_jobs(value: object) -> None:
    """Raise unless ``value`` is a number of processes, as of joblib."""
    check_whole_number(value, name="n_jobs", least=-(2**15))
    if value == 0:
        msg = "Expected `n_jobs` to be a number of processes, or -1 for all cores, found 0. Pass 1 to use a single process."
        raise ValueError(msg)


def check_between(value: object, low: float, high: float, *, name: str) -> None:
    """Raise unless ``value`` is a number from ``low`` to ``high``, both included."""
    check_type(value, () if isinstance(value, bool) else Real, name=name, expected="a number")
    if not low <= value <= high:  # type: ignore[operator]
        msg = f"Expected `{name}` to be from {low:g} to {high:g}, found {value!r}."
        raise ValueError(msg)


def check_key(key: str, available: Iterable[object], *, where: str, hint: str = "") -> None:
    """Raise KeyError unless ``key`` is available in ``where``, which is for example ``adata.obs``."""
    names = [name for name in available if isinstance(name, str)]  # `None` stands for X among the layers
    if key not in names:
        advice = hint or ("Name one of these." if names else f"Add {key!r} first.")
        msg = f"Expected {key!r} in `{where}`, found {listing(nearest(key, names))}. {advice}"
        raise KeyError(msg)


def check_none(wrong: Iterable[Any], expected: str, *, hint: str, found: str = "", which: str = "") -> None:
    """Raise ValueError if there is anything wrong; the message lists it after ``found`` and before ``which`` it is."""
    wrong = list(wrong)
    if wrong:
        msg = f"Expected {expected}, found {found}{listing(wrong)}{which}. {hint}"
        raise ValueError(msg)


def check_genes_of_fit(genes: Sequence[str], available: Iterable[str], *, where: str) -> None:
    """Raise KeyError unless all genes that dynamics were fitted to are among those of the cells."""
    missing = sorted({*genes} - {*available}, key=list(genes).index)
    if missing:
        msg = (
            f"Expected the {len(genes)} genes that the dynamics were fitted to in `{where}`, found {len(missing)} missing: "
            f"{listing(missing)}. Pass cells in which they were measured, or fit again without these genes."
        )
        raise KeyError(msg)


def check_no_slash(names: Iterable[str], *, what: str, hint: str) -> None:
    """Raise ValueError if a name contains the separator of paths within h5ad and zarr files."""
    wrong = [name for name in names if "/" in name]
    check_none(wrong, f"{what} without '/', which h5ad and zarr files read as a folder", hint=hint)


def check_unique_names(names: Sequence[str], *, what: str, hint: str) -> None:
    """Raise ValueError if a name occurs twice."""
    values, counts = np.unique(np.asarray(names, dtype=str), return_counts=True)
    check_none(values[counts > 1].tolist(), f"{what} to be unique", found="repeated ", hint=hint)


def check_matrix(x: Any, *, where: str) -> None:
    """Raise unless ``x`` is an array or a CSR or CSC matrix of real numbers, of at least one cell and one gene.

    Arrays with a mask are refused, since nothing here would look at it, and so are half precision, in
    which totals of cells overflow, and a foreign order of bytes: SciPy takes neither.
    """
    is_array = isinstance(x, np.ndarray) and not isinstance(x, np.ma.MaskedArray)
    is_matrix = is_array or (sparse.issparse(x) and x.format in {"csr", "csc"})
    if not is_matrix or x.dtype.kind not in "fiu" or x.dtype == np.float16 or not x.dtype.isnative:
        found = f"{type(x).__name__} of {x.dtype}" if hasattr(x, "dtype") else type(x).__name__
        msg = (
            f"Expected `{where}` to be a NumPy array or a SciPy CSR or CSC matrix of numbers in memory, found {found}. "
            "Convert it first, for example to float32."
        )
        raise TypeError(msg)
    if 0 in x.shape:
        msg = f"Expected at least one cell and one gene in `{where}`, found shape {x.shape}."
        raise ValueError(msg)
    if sparse.issparse(x) and _has_repeated_entries(x):
        msg = (
            f"Expected one entry per cell and gene in the sparse matrix `{where}`, found several, whose sum is the value. "
            f"Add them up first: `{where}.sum_duplicates()`."
        )
        raise ValueError(msg)


def _has_repeated_entries(x: Any) -> bool:
    """Whether a CSR or CSC matrix stores a place more than once, which slices keep and functions of stored values miss."""
    if x.has_canonical_format or x.has_sorted_indices:
        return not x.has_canonical_format
    places = type(x)((np.ones(len(x.indices), dtype=bool), x.indices.copy(), x.indptr), shape=x.shape)
    places.sort_indices()
    return not places.has_canonical_format


def check_log_normalised(x: Any, *, where: str, layer: str | None = None) -> None:
    """Raise unless the values of a matrix can be log1p-normalised expression; time is linear in the stored values."""
    check_matrix(x, where=where)
    values = x.data if sparse.issparse(x) else np.asarray(x)
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    argument = "" if layer is None else f", layer={layer!r}"
    log1p = f"`sc.pp.log1p(adata{argument})`"
    calls = f"`sc.pp.normalize_total(adata, target_sum=1e4{argument})` and {log1p}"
    if not (np.isfinite(low) and np.isfinite(high)):
        found, advice = "NaN or infinite values", "Remove or replace them"
    elif low < 0:
        found, advice = (
            f"negative values down to {low:g}",
            f"Start from counts, run {calls}, and do not scale or correct them",
        )
    elif high == 0:
        found, advice = "only zeros", "Name the layer with the expression in `layer`"
    elif only_whole_numbers(values):
        found, advice = f"raw counts (only whole numbers, up to {high:g})", f"Run {calls} first"
    elif looks_unlogged(x):
        n_large, n_cells = int(np.count_nonzero(_has_large(x))), x.shape[0]
        some = "" if n_large == n_cells else f" in {n_large} of {n_cells} cells"
        found, advice = (
            f"values up to {high:g}{some}, which do not seem to be logged",
            f"Run {log1p} first (after `sc.pp.normalize_total`, if the counts are not normalised either)"
            + (", for these cells only if the others are logged" if some else ""),
        )
    else:
        return
    msg = f"Expected log1p-normalised expression in `{where}`, found {found}. {advice}."
    raise ValueError(msg)


def looks_unlogged(x: Any) -> bool:
    """Return whether expression has values above 20 that are no logarithms.

    Logarithms can be as large where counts were divided by tiny size factors, as scran has them. All of a cell are then
    large: they differ by no more than the logarithms of its counts do, while normalised counts go down to a few.
    """
    values = x.data if sparse.issparse(x) else x
    high = values.max() if values.size else 0.0
    if high <= LARGEST_LOGGED or high > LARGEST_SCALED:
        return bool(high > LARGEST_LOGGED)
    for row in np.flatnonzero(_has_large(x)):
        cell = x[[row]]
        cell = cell.data if sparse.issparse(cell) else cell[0]
        if cell.max() - np.quantile(cell[cell > 0], 0.1) > LARGEST_RANGE:
            return True
    return False


def _has_large(x: Any) -> NDArray[np.bool_]:
    """Cells with a value that is large for a logarithm (n,)."""
    return sparse.csr_matrix(x > LARGEST_LOGGED).getnnz(axis=1) > 0


def only_whole_numbers(values: NDArray[Any], *, block: int = 4096) -> bool:
    """Return whether all values are whole; block by block, since the first few tell for most data."""
    if values.dtype.kind in "iu":
        return True
    blocks = (values[start : start + block] for start in range(0, len(values), block))
    return all((part == np.rint(part)).all() for part in blocks)


def check_columns(columns: Collection[str], keys: Sequence[str]) -> None:
    """Raise unless every key is one of the columns of ``obs``, once, is used once, and can be stored."""
    for key in keys:
        check_key(key, columns, where="adata.obs")
    check_unique_names(keys, what="columns of `adata.obs`", hint="Use each column for one purpose only.")
    check_unique_names(
        [column for column in columns if column in keys],
        what="columns of `adata.obs`",
        hint="Remove or rename one of them.",
    )
    check_no_slash(keys, what="column names in `adata.obs`", hint="Rename them with `adata.obs.rename(columns=...)`.")
