"""Predicted cells in other units: counts, and the expression that the Virtual Cell Challenge asks for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_between, check_one_of
from perturbflow.screen._expression import Expression

OUTPUTS = ("log_normalised", "counts", "challenge")
REPRESSING_TYPES = frozenset(
    {"crispr", "crisprcas9", "crispri", "crisprko", "kd", "knockdown", "knockout", "ko", "rnai", "shrna", "sirna"}
)
"""Types of perturbations that lower the gene they are named after, without case and signs."""

_MOST_COUNTS_OF_THE_LOWEST = 6
_LARGEST_TOTAL = 1e9
_CELLS_AT_ONCE = 4096


def counts_per_unit(x: Any) -> NDArray[np.float64]:
    """Return how many counts one unit of normalised expression stands for, in every cell.

    Values of a cell that are log1p-normalised counts, ``x = log(1 + T k / n)`` for counts k, their total n and the
    target T, are whole multiples of one number, T / n, once the logarithm is undone. It is the smallest value of the
    cell, or a half to a sixth of it where the cell has no gene with a single count. Counts are ``expm1(x) *
    counts_per_unit``, also where only some of the genes are present. It is NaN where the values are not multiples of
    one number, and where all are 0.
    """
    matrix = sparse.csr_matrix(x)
    starts = range(0, matrix.shape[0], _CELLS_AT_ONCE)
    return np.concatenate([_counts_per_unit(matrix[first : first + _CELLS_AT_ONCE]) for first in starts])


def _counts_per_unit(matrix: sparse.csr_matrix) -> NDArray[np.float64]:
    values = np.expm1(matrix.data.astype(np.float64))
    cells = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    cells, values = cells[values > 0], values[values > 0]
    lowest = np.full(matrix.shape[0], np.inf)
    np.minimum.at(lowest, cells, values)
    found = np.full(matrix.shape[0], np.nan)
    for n_counts in range(1, _MOST_COUNTS_OF_THE_LOWEST + 1):
        scale = n_counts / lowest
        counts = values * scale[cells]
        # Single precision leaves an error of about 1e-6 in the logarithm, and as much relative to a count.
        is_whole = np.abs(counts - np.rint(counts)) < 0.02 + 1e-5 * counts
        fits = np.bincount(cells, weights=~is_whole, minlength=len(found)) == 0
        found = np.where(np.isnan(found) & fits & np.isfinite(lowest), scale, found)
    return found


def to_counts(x: NDArray[np.floating], scale: NDArray[np.floating], *, rng: np.random.Generator) -> NDArray[np.float32]:
    """Turn expression into whole counts, rounded at random: the nearest would be 0 for all lowly expressed genes."""
    expected = np.expm1(x.astype(np.float64)) * np.asarray(scale)[:, None]
    whole = np.floor(expected)
    return (whole + (rng.random(expected.shape) < expected - whole)).astype(np.float32)


def scaled_to_total(values: NDArray[np.floating], total: float) -> NDArray[np.float64]:
    """Scale every cell (row) to a total; a cell of zeros stays one."""
    totals = values.sum(axis=1, keepdims=True, dtype=np.float64)
    return values * np.divide(total, totals, out=np.zeros_like(totals), where=totals > 0)


def renormalised(x: Any, total: float) -> sparse.csr_matrix:
    """Normalise log1p-normalised expression to another total before the logarithm: CSR (n, G) of float32."""
    scaled = sparse.csr_matrix(x, dtype=np.float64).expm1()
    totals = np.asarray(scaled.sum(axis=1))
    scale = np.divide(total, totals, out=np.zeros_like(totals), where=totals > 0)
    return sparse.csr_matrix(scaled.multiply(scale).log1p(), dtype=np.float32)


def to_challenge(x: NDArray[np.floating], total: float, *, targets: Sequence[int] = ()) -> NDArray[np.float32]:
    """Turn expression into what the Virtual Cell Challenge asks for, by the recipe of PRiMeFlow (arXiv 2604.13986)."""
    counts = np.rint(scaled_to_total(np.expm1(x.astype(np.float64)), total))
    result = np.log1p(scaled_to_total(counts, total)).astype(np.float32)
    result[:, list(targets)] = 0
    return result


@dataclass(frozen=True, eq=False)
class OutputSpace:
    """The units of predicted cells."""

    name: str  # one of `OUTPUTS`
    total: float = 0.0  # of counts of every cell; 0 where it has none, or that of its control cell
    scale: NDArray[np.float64] | None = None  # counts that one unit of every control cell stands for (n,), where wanted
    unit: float = 1.0  # natural logarithms in one of the expression

    @classmethod
    def from_controls(cls, name: str, x: Expression, *, total: float | None, unit: float = 1.0) -> Self:
        """Choose units from control cells, read a chunk at a time; a total of counts is by default that of these."""
        check_one_of(name, OUTPUTS, name="output")
        if total is not None:
            check_between(total, 1, _LARGEST_TOTAL, name="target_total")
            if name == "log_normalised":
                msg = (
                    "Expected `target_total` together with `output` 'counts' or 'challenge', found it with "
                    "'log_normalised', for which cells keep the total of the fitted cells. Omit it."
                )
                raise ValueError(msg)
            return cls(name, total=float(total), unit=unit)
        if name == "log_normalised":
            return cls(name)
        scale, totals = map(np.concatenate, zip(*(_depths(block * unit) for _, block in x.chunks()), strict=True))
        unknown = np.isnan(scale) & (totals > 0)
        if unknown.any() or not (totals > 0).any():
            msg = (
                f"Expected control cells whose expression is log1p-normalised counts, found {unknown.sum()} of "
                f"{len(scale)} cells whose values are not integer multiples of one number. Set `target_total` to the total "
                "counts of a predicted cell."
            )
            raise ValueError(msg)
        median = float(np.median((totals * scale)[totals > 0]))
        # A control cell of zeros says nothing about its depth.
        typical = float(np.median(scale[totals > 0]))
        if name == "challenge":
            return cls(name, total=median, unit=unit)
        return cls(name, scale=np.nan_to_num(scale, nan=typical), unit=unit)

    def convert(
        self,
        cells: NDArray[np.float32],
        *,
        members: NDArray[np.intp],
        targets: Sequence[int],
        rng: np.random.Generator,
    ) -> NDArray[np.float32]:
        """Express predicted cells (m, G), whose control cells are at the places ``members`` (m,), in these units."""
        if self.name == "log_normalised":
            return cells
        cells = cells * np.float32(self.unit)
        if self.name == "challenge":
            return to_challenge(cells, self.total, targets=targets)
        if self.scale is not None:
            return to_counts(cells, self.scale[members], rng=rng)
        totals = np.expm1(cells.astype(np.float64)).sum(axis=1)
        scale = np.divide(self.total, totals, out=np.zeros_like(totals), where=totals > 0)
        return to_counts(cells, scale, rng=rng)


def _depths(x: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Counts that one unit stands for, and the total of normalised expression, of every cell (n,)."""
    totals = np.asarray(sparse.csr_matrix(x).expm1().sum(axis=1, dtype=np.float64)).ravel()
    return counts_per_unit(x), totals


def repressed_genes(components: Sequence[str], genes: Sequence[str], *, type_mark: str | None) -> list[int]:
    """Places of the genes that a perturbation represses; without types all are taken to."""
    places = {gene: place for place, gene in enumerate(genes)}
    found = []
    for component in components:
        gene, kind = component, None
        if type_mark is not None:
            gene, _, kind = component.rpartition(type_mark)
        represses = kind is None or "".join(filter(str.isalnum, kind)).casefold() in REPRESSING_TYPES
        if represses and gene in places:
            found.append(places[gene])
    return found
