"""The scale of expression, cell by cell: base of the logarithm, raw counts among logged cells, totals of normalised cells."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_type, listing, looks_unlogged
from perturbflow._warnings import warn
from perturbflow.screen._expression import Expression

FACTOR = 5.0  # between totals of cells that are alike
FACTOR_OF_TYPES = (
    20.0  # of different covariates: where variable genes alone are kept, cell lines differ by 9 in real data
)
FACTOR_OF_CONSTANT = 1.5  # where all cells have one total, because all genes are kept
CONSTANT = 1.05  # largest ratio of totals that count as one
LEAST_GENES, LEAST_CELLS = 5, 10  # for a difference that no single gene or cell makes
LEAST_GAP = float(np.log(3.0))  # between the totals of cells of two scales
MOST_CELLS = 4000  # whose totals are looked at
_ROWS = 512


def natural_per_unit(base: float | None) -> float:
    """Natural logarithms in one of another base; None stands for natural ones, as in ``scanpy.pp.log1p``."""
    if base is None:
        return 1.0
    check_type(base, () if isinstance(base, bool) else Real, name="base", expected="a number or None")
    if not 1 < base < np.inf:
        msg = f"Expected `base` of the logarithm to be above 1, found {base!r}. Pass None for natural logarithms."
        raise ValueError(msg)
    return float(np.log(base))


def recorded_base(adata: AnnData) -> float | None:
    """Base of the logarithm that scanpy has recorded in ``uns["log1p"]``; None where it is natural or not known."""
    record = adata.uns.get("log1p")
    base = record.get("base") if isinstance(record, Mapping) else None
    if base is None or np.size(base) != 1:
        return None
    base = float(np.ravel(base)[0])
    natural_per_unit(base)
    return None if np.isclose(base, np.e, rtol=1e-6) else base


def check_base(adata: AnnData, base: float | None, *, where: str, advice: str) -> None:
    """Raise ValueError if ``uns["log1p"]`` records another base than ``base``."""
    if "log1p" in adata.uns and recorded_base(adata) != base:
        names = ["natural" if one is None else f"base {one:g}" for one in (base, recorded_base(adata))]
        msg = f"Expected {names[0]} logarithms in {where}, found {names[1]} in its `uns['log1p']`. {advice}"
        raise ValueError(msg)


def check_no_counts(x: Any, names: Sequence[str], *, where: str) -> None:
    """Raise ValueError if more of the cells, but not all, are raw counts than rounding makes whole by chance."""
    rows = _rows_of_whole_numbers(x)
    if len(rows) in {0, x.shape[0]}:
        return
    part = sparse.csr_matrix(x[rows])
    part.eliminate_zeros()
    sizes = np.diff(part.indptr)
    rows, part = rows[sizes >= 3], part[sizes >= 3]
    if not len(rows):
        return
    highest, lowest = (reduce.reduceat(part.data, part.indptr[:-1]) for reduce in (np.maximum, np.minimum))
    suspect = (highest >= 2) & (highest > lowest)
    rows, sizes = rows[suspect], np.diff(part.indptr)[suspect]
    others = np.setdiff1d(np.arange(x.shape[0]), rows)
    sample = sparse.csr_matrix(x[others[:: max(1, len(others) // MOST_CELLS)]]).data
    share = float((sample == np.rint(sample)).mean())
    if len(rows) <= FACTOR * x.shape[0] * (share**sizes).sum() / max(1, len(rows)):
        return
    if looks_unlogged(x[others]):  # which are no example to these
        return
    msg = (
        f"Expected log1p-normalised expression in every cell of `{where}`, found raw counts (only whole numbers, up to "
        f"{highest.max():g}) in {len(rows)} of {x.shape[0]} cells: {listing([names[row] for row in rows], limit=3)}. "
        "Normalise and log them like the others, or remove them."
    )
    raise ValueError(msg)


def _rows_of_whole_numbers(x: Any) -> NDArray[np.intp]:
    """Rows with no value that is not whole; most are told by their first few values."""
    if x.dtype.kind in "iu":
        return np.arange(x.shape[0])
    if not sparse.issparse(x):
        rows = np.arange(x.shape[0])
        for start in range(0, x.shape[1], 64):
            block = x[:, start : start + 64]
            block = block if len(rows) == len(x) else block[rows]
            rows = rows[(block == np.rint(block)).all(axis=1)]
            if not len(rows):
                break
        return rows
    broken = np.zeros(x.shape[0], dtype=bool)
    for start in range(0, len(x.data), 1 << 22):
        values = x.data[start : start + (1 << 22)]
        places = start + np.flatnonzero(values != np.rint(values))
        broken[np.searchsorted(x.indptr, places, side="right") - 1 if x.format == "csr" else x.indices[places]] = True
    return np.flatnonzero(~broken)


def totals_of(x: Any, unit: float = 1.0) -> NDArray[np.float64]:
    """Total of every cell (n,) once the logarithm is undone, in which ``unit`` natural ones are one of expression."""
    return np.concatenate([block.sum(axis=1) for block in _linear(x, unit)])


def _linear(x: Any, unit: float) -> Iterator[NDArray[np.float64]]:
    for start in range(0, x.shape[0], _ROWS):
        block = x[start : start + _ROWS]
        yield np.expm1((block.toarray() if sparse.issparse(block) else np.asarray(block)).astype(np.float64) * unit)


def summary_of_totals(x: Any, unit: float) -> list[float]:
    """5th, 50th and 95th percentile of the totals of cells, what :func:`warn_of_totals` compares with; empty without any."""
    if not x.shape[0]:
        return []
    totals = totals_of(_some(x), unit)
    return np.percentile(totals[totals > 0], [5, 50, 95]).tolist() if (totals > 0).any() else []


def _some(x: Any) -> Any:
    """Cells whose totals stand for those of all."""
    if isinstance(x, Expression):
        return x[x.some_rows(MOST_CELLS)]
    return x[:: max(1, x.shape[0] // MOST_CELLS)]


def warn_of_totals(x: Any, known: Sequence[float], *, unit: float, what: str, than: str) -> None:
    """Warn if cells (n, G) have another total than those that :func:`summary_of_totals` gave ``known`` of."""
    found = summary_of_totals(x, unit)
    if not len(found) or not len(known):
        return
    low, middle, high = known
    allowed = FACTOR_OF_CONSTANT if high <= CONSTANT * low else FACTOR  # beyond what the others have
    if low / allowed <= found[1] <= high * allowed:
        return
    warn(
        f"{what} are on a different scale from {than}: before the logarithm, their total over these genes is {found[1]:.3g} "
        f"instead of {middle:.3g}. Normalise them to the same `target_sum`, over the same genes, before `sc.pp.log1p`."
    )


def warn_of_mixed_totals(x: Any, contexts: pd.DataFrame, *, batch_key: str | None, unit: float) -> None:
    """Warn if part of the cells seem to be normalised to another total.

    Contexts are compared by mean expression without the logarithm, which does not depend on the depth of cells; within a
    context, the two sides of the widest gap between totals are.
    """
    looked_at = None if not isinstance(x, Expression) or x.is_in_memory else x.some_rows(MOST_CELLS)
    codes, distinct = _contexts(contexts if looked_at is None else contexts.iloc[looked_at])
    labels = [str(dict(each)) for each in distinct.to_dict("records")] or [""]
    kinds = list(map(tuple, distinct.drop(columns=batch_key or []).to_numpy())) or [()]
    order = np.argsort(codes, kind="stable")
    rows = np.sort(order[:: max(1, len(order) // MOST_CELLS)])  # of every context its share
    x, codes = x[rows if looked_at is None else looked_at[rows]], codes[rows]
    x = x.tocsr() if sparse.issparse(x) else x
    sizes = np.bincount(codes, minlength=len(labels))
    large = [code for code in np.argsort(-sizes, kind="stable") if sizes[code] >= LEAST_CELLS]
    totals, means = totals_of(x, unit), {code: _gene_means(x, codes == code, unit) for code in large}
    is_constant = all(_is_constant(totals[codes == code]) for code in large)
    found = []
    for place, code in enumerate(large[1:], start=1):
        alike = [other for other in large[:place] if kinds[other] == kinds[code]]
        other = (alike or large)[0]
        ratio = _ratio(means[code], means[other])
        more, less = (code, other) if ratio > 1 else (other, code)
        if max(ratio, 1 / ratio) > (FACTOR_OF_CONSTANT if is_constant else FACTOR if alike else FACTOR_OF_TYPES):
            times = f"{max(ratio, 1 / ratio):.3g} times"
            found.append(f"those of {labels[more]} have {times} the expression of those of {labels[less]}")
    for code in large:
        lower, upper = _sides(totals, codes == code)
        ratio = _ratio(_gene_means(x, upper, unit), _gene_means(x, lower, unit)) if lower.any() else 1.0
        if ratio > FACTOR:
            share = upper.sum() / (upper.sum() + lower.sum())
            of = f" of {labels[code]}" if len(labels) > 1 else ""
            found.append(f"{share:.0%} of the cells{of} have {ratio:.3g} times the expression of the others")
    if found:
        warn(
            f"Cells seem to be normalised to different totals: {'; '.join(found[:5])}. Normalise all "
            "counts to one `target_sum` before `sc.pp.log1p`; otherwise the difference is treated as biological."
        )


def _contexts(contexts: pd.DataFrame) -> tuple[NDArray[np.intp], pd.DataFrame]:
    """Number of the context of every cell (n,), and their covariates."""
    if not contexts.shape[1]:
        return np.zeros(len(contexts), dtype=np.intp), contexts.iloc[:0]
    codes, distinct = pd.factorize(pd.MultiIndex.from_frame(contexts))
    return codes, pd.DataFrame(list(distinct), columns=contexts.columns)


def _is_constant(totals: NDArray[np.float64]) -> bool:
    low, high = np.percentile(totals, [5, 95])
    return bool(high <= CONSTANT * low)


def _gene_means(x: Any, keep: NDArray[np.bool_], unit: float) -> NDArray[np.float64]:
    part = x[np.flatnonzero(keep)]
    return np.sum([block.sum(axis=0) for block in _linear(part, unit)], axis=0) / part.shape[0]


def _ratio(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    """Ratio of totals or, where that is nearer to 1, the median over genes: neither single genes nor rare ones count."""
    both = (one > 0) & (other > 0)
    if both.sum() < LEAST_GENES:
        return 1.0
    logs = np.array([np.log(one.sum() / other.sum()), np.median(np.log(one[both] / other[both]))])
    return float(np.exp(np.sign(logs[0]) * np.abs(logs).min())) if logs.prod() > 0 else 1.0


def _sides(totals: NDArray[np.float64], keep: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Cells below and above the widest gap between their totals; cells without counts are on neither side."""
    keep = keep & (totals > 0)
    values = np.sort(np.log(totals[keep]))
    least = max(LEAST_CELLS // 2, len(values) // 20)
    gaps = np.diff(values)[least - 1 : len(values) - least]
    if gaps.max(initial=0.0) < LEAST_GAP:
        return np.zeros_like(keep), np.zeros_like(keep)
    limit = values[least - 1 + int(gaps.argmax())]
    above = np.zeros_like(keep)
    above[keep] = np.log(totals[keep]) > limit
    return keep & ~above, above
