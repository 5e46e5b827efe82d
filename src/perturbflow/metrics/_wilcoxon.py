"""Mann-Whitney test of every gene of many conditions against the same controls."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import special

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.metrics._differential_expression import PSEUDOCOUNT, DifferentialExpression, log_fold_change
from perturbflow.screen._named_arrays import aligned, names_of

BITS = np.uint64(32)
SIGN = np.uint32(1 << 31)


class WilcoxonAgainst:
    """Mann-Whitney (Wilcoxon rank-sum) test of every gene against control cells that are sorted once.

    Of n cells of a condition and c control cells, N in all, with t the sizes of the groups of equal values in both::

        U = #{(x, y): x > y} + #{(x, y): x = y} / 2      over pairs of a cell and a control
        v = n c / 12 ( N + 1 - sum (t^3 - t) / (N (N - 1)) )
        z = sign(U - n c / 2) max(|U - n c / 2| - 1/2, 0) / sqrt(v)
        p = 2 P(Z > |z|)

    the normal approximation with corrections for ties and for continuity, two-sided; a gene that has the same value in
    all cells has p = 1. Agrees with ``scipy.stats.mannwhitneyu(..., method="asymptotic")`` in float64, and so with pdex
    and illico; scanpy has no correction for continuity, and none for ties unless asked.

    *Weakness*: the approximation needs more than some eight cells on a side. Cells are taken as independent, so that
    with many cells all that differs between two batches is significant; predicted cells without exact zeros differ from
    real ones in nearly every gene.

    Parameters
    ----------
    control
        Control cells (c, G), log1p-normalised, dense or sparse.
    pseudocount
        That of :func:`log_fold_change`; cell-eval has 0.
    base
        Base of the logarithm of the expression, as in :func:`log_fold_change`.

    Raises
    ------
    ValueError
        If there are no controls, values are not finite, or the pseudocount is negative.

    Notes
    -----
    One sort of all values that are not zero, as numbers that order by gene and then by value, and a search for them
    among those of the controls. Memory: three numbers for every distinct value that a gene has in the controls.

    References
    ----------
    Mann and Whitney (1947), *Ann. Math. Stat.* 18, 50-60; Lehmann (1975), *Nonparametrics*, section 1.4.

    Examples
    --------
    >>> import numpy as np
    >>> test = WilcoxonAgainst(np.array([[0.0, 1.0], [0.0, 2.0], [1.0, 3.0], [0.0, 4.0]]))
    >>> test(np.array([[2.0, 0.0], [3.0, 2.5]])).p_value.round(4)
    array([0.0852, 0.4875])
    """

    def __init__(self, control: Cells, *, pseudocount: float = PSEUDOCOUNT, base: float | None = None) -> None:
        self.gene_names = names_of(control)
        control = check_cells(control, name="control")
        self.shape = control.shape
        self.pseudocount, self.base = pseudocount, base
        self._mean = gene_means(control, name="control")
        log_fold_change(self._mean, self._mean, pseudocount=pseudocount, base=base)  # refuses both now
        self._distinct = _Distinct.of(control)
        self._negative = self._distinct.sums(self._distinct.count * (self._distinct.value < 0))
        self._ties = self._distinct.sums(_tied(self._distinct.count))
        self._below = np.append(0, np.cumsum(self._distinct.count))

    def __call__(self, cells: Cells) -> DifferentialExpression:
        """Test the cells of one condition (n, G); scores are z."""
        _, cells = aligned("genes", control=self, cells=cells)
        cells = check_cells(cells, name="cells")
        check_same_genes(cells=cells, control=self)
        mean = gene_means(cells, name="cells")
        changes = log_fold_change(mean, self._mean, pseudocount=self.pseudocount, base=self.base)
        score = self._score(cells)
        p_value = special.erfc(np.abs(score) / np.sqrt(2.0))
        return DifferentialExpression.of(changes, p_value, score, self.gene_names)

    def _score(self, cells: Cells) -> NDArray[np.float64]:
        (n_cells, n_genes), n_control = cells.shape, self.shape[0]
        own, others = _Distinct.of(cells), self._distinct
        kind = np.result_type(own.value, others.value)
        wanted, found = own.keys(kind), others.keys(kind)
        place = np.searchsorted(found, wanted)
        tied = np.flatnonzero(np.append(found, found[-1:])[place] == wanted) if len(found) else np.empty(0, np.intp)
        smaller = own.sums(own.count * self._below[place]) - own.stored * self._below[others.start[:-1]]
        smaller = smaller + own.sums(own.count * (own.value > 0)) * others.zeros
        gene, count, equal = own.gene[tied], own.count[tied], others.count[place[tied]]

        wins = smaller + np.bincount(gene, count * equal / 2, n_genes) + own.zeros * (self._negative + others.zeros / 2)
        more = np.bincount(gene, _tied(count + equal) - _tied(equal) - _tied(count), n_genes)
        ties = self._ties + own.sums(_tied(own.count)) + more + _tied(own.zeros + others.zeros)
        n_all = n_cells + n_control
        variance = n_cells * n_control / 12 * (n_all + 1 - ties / (n_all * (n_all - 1)))
        excess = wins - n_cells * n_control / 2
        distance = np.maximum(np.abs(excess) - 0.5, 0.0)
        return np.sign(excess) * np.divide(
            distance, np.sqrt(np.maximum(variance, 0)), out=np.zeros(n_genes), where=distance > 0
        )


@dataclass(frozen=True, eq=False)
class _Distinct:
    """Distinct values that are not zero, by gene and ascending, how many cells have each, and where genes start (G + 1,)."""

    gene: NDArray[np.intp]
    value: NDArray[np.floating]
    count: NDArray[np.intp]
    start: NDArray[np.intp]
    n_cells: int
    joined: NDArray

    @classmethod
    def of(cls, cells: Cells) -> _Distinct:
        gene, value = _not_zero(cells)
        kind = np.float32 if np.can_cast(value.dtype, np.float32) else np.float64
        keys = np.sort(_joined(gene, value.astype(kind, copy=False)))
        place = np.flatnonzero(np.append(True, keys[1:] != keys[:-1])[: len(keys)])
        count, keys = np.diff(np.append(place, len(keys))), keys[place]
        gene, value = _parted(keys)
        start = np.searchsorted(gene, np.arange(cells.shape[1] + 1))
        return cls(gene, value, count, start, cells.shape[0], keys)

    @cached_property
    def stored(self) -> NDArray[np.intp]:
        """Number of cells that express a gene (G,)."""
        return self.sums(self.count)

    @property
    def zeros(self) -> NDArray[np.intp]:
        """Number of cells that do not (G,)."""
        return self.n_cells - self.stored

    def sums(self, numbers: NDArray) -> NDArray:
        """Sums over the values of every gene (G,), of whole numbers: differences of running sums lose nothing of them."""
        return np.diff(np.append(0, np.cumsum(numbers))[self.start])

    def keys(self, kind: np.dtype) -> NDArray:
        """Numbers with the order of gene and value."""
        return self.joined if kind == self.value.dtype else _joined(self.gene, self.value.astype(kind))


def _not_zero(cells: Cells) -> tuple[NDArray[np.intp], NDArray]:
    """Gene and value of all entries that are not zero."""
    if isinstance(cells, np.ndarray):
        place = np.flatnonzero(cells != 0)  # of truth values, which is several times faster
        return place % cells.shape[1], cells.ravel()[place]
    stored = cells.tocsr(copy=True)
    stored.sum_duplicates()
    stored.eliminate_zeros()
    return stored.indices.astype(np.intp), stored.data


def _joined(gene: NDArray[np.intp], value: NDArray[np.floating]) -> NDArray:
    """Numbers that are ordered by gene and then by value: integers for values of 32 bits, else complex numbers."""
    if value.dtype != np.float32:
        return gene + 1j * value
    bits = value.view(np.uint32)
    # The bits of positive floating-point numbers are ordered as they are, those of negative ones the other way round.
    ordered = np.where(bits & SIGN, ~bits, bits | SIGN)
    return gene.astype(np.uint64) << BITS | ordered


def _parted(keys: NDArray) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    """Return gene and value of every key."""
    if keys.dtype != np.uint64:
        return keys.real.astype(np.intp), keys.imag.copy()
    ordered = keys.astype(np.uint32)
    bits = np.where(ordered & SIGN, ordered ^ SIGN, ~ordered)
    return (keys >> BITS).astype(np.intp), bits.view(np.float32)


def _tied(count: NDArray[np.integer]) -> NDArray[np.float64]:
    """t^3 - t, in floating point: it exceeds 64-bit integers for two million cells."""
    size = count.astype(np.float64)
    return size * (size**2 - 1)
