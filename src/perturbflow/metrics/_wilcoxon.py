"""Mann-Whitney test of every gene of many conditions against the same controls: of expression, and of counts."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse, special

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.screen._named_arrays import aligned, names_of
from perturbflow.screen._scale import natural_per_unit

PSEUDOCOUNT = 1e-9
LARGEST_LOG = 700.0  # of which the exponential is still finite
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
        Added to both sides of fold changes, ``log2((expm1(mean) + pseudocount) / (expm1(control mean) + pseudocount))``. As in
        scanpy and pdex it is 1e-9; cell-eval has 0, with which genes that one side alone expresses are infinite.
    base
        Base of the logarithm of the expression, as in ``adata.uns["log1p"]["base"]``: an array cannot tell.

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
        _log_fold_change(self._mean, self._mean, pseudocount=pseudocount, base=base)  # refuses both now
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
        changes = _log_fold_change(mean, self._mean, pseudocount=self.pseudocount, base=self.base)
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


def _log_fold_change(
    mean: NDArray[np.float64],
    control_mean: NDArray[np.float64],
    *,
    pseudocount: float,
    base: float | None,
) -> NDArray[np.float64]:
    """Log2 fold changes (G,) of log1p-normalised means: ratios of geometric means of ``1 + x``, less 1.

    A gene without expression on both sides has 0. A mean below 0, which only a prediction can have, counts as none.
    """
    if not (np.isfinite(pseudocount) and pseudocount >= 0):
        msg = f"Expected `pseudocount` to be 0 or a positive number, found {pseudocount!r}."
        raise ValueError(msg)
    unit = natural_per_unit(base)
    mean, control_mean = mean * unit, control_mean * unit
    largest = max(mean.max(initial=0), control_mean.max(initial=0))
    if largest > LARGEST_LOG:
        msg = f"Expected means of log1p-normalised expression, found {largest:.3g}. Normalise and log-transform first."
        raise ValueError(msg)
    expressed = [np.expm1(np.maximum(side, 0.0)) + pseudocount for side in (mean, control_mean)]
    with np.errstate(divide="ignore"):
        above, below = (np.log2(side) for side in expressed)
    return np.subtract(above, below, out=np.zeros_like(above), where=expressed[0] != expressed[1])


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


MILLION = 1e6


class WilcoxonOfCounts:
    """Mann-Whitney test of counts per million, of the genes that the controls express.

    As the 2026 challenge tests: counts of every cell per million; genes whose mean in the controls is above a minimum;
    ranks as in :class:`WilcoxonAgainst`; fold changes of arithmetic means,
    ``log2( (mean + pseudocount) / (mean of controls + pseudocount) )``; p-values adjusted per condition over the genes
    that are tested. The controls alone choose the genes: were a gene also tested where only the condition expresses it,
    its presence would tell that it goes up.

    *Weakness*: that of :class:`WilcoxonAgainst`. Counts per million of cells of few counts differ in a gene by the
    depth of the cells alone.

    Parameters
    ----------
    control
        Counts of the control cells (c, G), dense or sparse.
    minimum
        Mean counts per million above which a gene is tested.
    pseudocount
        What is added to both means, in counts per million.

    Attributes
    ----------
    genes
        Which genes are tested, shape (G,). Results hold these alone, in their order.

    Raises
    ------
    ValueError
        If there are no controls, counts are negative or not finite, or no gene is left.

    References
    ----------
    cell-eval2 0.20.0, preset ``vcc2026``.

    Examples
    --------
    >>> test = WilcoxonOfCounts(np.array([[5, 5, 0], [6, 4, 0], [4, 6, 0]]))
    >>> test.genes
    array([ True,  True, False])
    >>> test(np.array([[5, 0, 0], [7, 0, 1]])).log_fold_change.round(3)
    array([  0.907, -48.829])
    """

    def __init__(self, control: Cells, *, minimum: float = 5.0, pseudocount: float = PSEUDOCOUNT) -> None:
        names = names_of(control)
        per_million = _per_million(control, name="control")
        self.shape = per_million.shape
        self.pseudocount = pseudocount
        mean = gene_means(per_million, name="control")
        self.genes = mean > minimum
        if not self.genes.any():
            msg = (
                f"Expected a gene with more than {minimum} counts per million in `control`, found at most "
                f"{mean.max():.3g}. Lower `minimum`."
            )
            raise ValueError(msg)
        self.gene_names = names  # of all genes
        self._mean = mean[self.genes]
        self._test = WilcoxonAgainst(per_million[:, self.genes].log1p(), pseudocount=pseudocount)

    def __call__(self, counts: Cells) -> DifferentialExpression:
        """Test the cells of one condition (n, G); scores are z."""
        _, counts = aligned("genes", control=self, counts=counts)
        per_million = _per_million(counts, name="counts")
        check_same_genes(counts=per_million, control=self)
        per_million = per_million[:, self.genes]
        mean = gene_means(per_million, name="counts")
        tested = self._test(per_million.log1p())
        change = np.log2((mean + self.pseudocount) / (self._mean + self.pseudocount))
        names = None if self.gene_names is None else self.gene_names[self.genes]
        return DifferentialExpression.of(change, tested.p_value, tested.score, names)


def _per_million(counts: Cells, *, name: str) -> sparse.csr_array:
    """Counts per million of every cell; a cell without counts stays 0."""
    checked = check_cells(counts, name=name)
    gene_means(checked, name=name)  # refuses what is not finite
    scaled = sparse.csr_array(checked, dtype=np.float64)
    if scaled.nnz and scaled.data.min() < 0:
        msg = f"Expected counts in `{name}`, found a negative value: {scaled.data.min()}."
        raise ValueError(msg)
    total = np.asarray(scaled.sum(axis=1)).ravel()
    scale = np.divide(MILLION, total, out=np.zeros(len(total)), where=total > 0)
    return sparse.csr_array(scaled.multiply(scale[:, None]))
