"""Mann-Whitney test of every gene of many conditions against the same controls."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import special

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.metrics._differential_expression import PSEUDOCOUNT, DifferentialExpression, log_fold_change


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

    Raises
    ------
    ValueError
        If there are no controls, values are not finite, or the pseudocount is negative.

    Notes
    -----
    O(s log s) per gene for the s cells of a condition that express it, with a binary search in the controls. Memory:
    two numbers for every distinct value that a gene has in the controls.

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

    def __init__(self, control: Cells, *, pseudocount: float = PSEUDOCOUNT) -> None:
        control = check_cells(control, name="control")
        self.shape = control.shape
        self.pseudocount = pseudocount
        self._mean = gene_means(control, name="control")
        log_fold_change(self._mean, self._mean, pseudocount=pseudocount)  # refuses a pseudocount now
        n_genes = self.shape[1]
        self._value, count, self._start, self._zeros = _distinct_values(control)
        gene = np.repeat(np.arange(n_genes), np.diff(self._start))
        self._negative = np.bincount(gene, count * (self._value < 0), n_genes)
        self._ties = np.bincount(gene, _tied(count), n_genes)
        self._below = np.append(0, np.cumsum(count))

    def __call__(self, cells: Cells) -> DifferentialExpression:
        """Test the cells of one condition.

        Parameters
        ----------
        cells
            Cells of the condition (n, G), log1p-normalised, dense or sparse.

        Returns
        -------
        The differential expression; its scores are z.

        Raises
        ------
        ValueError
            If there are no cells, the numbers of genes differ, or values are not finite.
        """
        cells = check_cells(cells, name="cells")
        check_same_genes(cells=cells, control=self)
        changes = log_fold_change(gene_means(cells, name="cells"), self._mean, pseudocount=self.pseudocount)
        score = self._score(cells)
        return DifferentialExpression.of(changes, special.erfc(np.abs(score) / np.sqrt(2.0)), score)

    def _score(self, cells: Cells) -> NDArray[np.float64]:
        (n_cells, n_genes), n_control = cells.shape, self.shape[0]
        value, count, start, zeros = _distinct_values(cells)
        gene = np.repeat(np.arange(n_genes), np.diff(start))
        place = np.empty(len(value), dtype=np.intp)
        for first, last, own, end in zip(start[:-1], start[1:], self._start[:-1], self._start[1:], strict=True):
            if first < last:
                place[first:last] = own + np.searchsorted(self._value[own:end], value[first:last])
        # The place after the last value of a gene belongs to the next gene, and after the last gene to none.
        is_tied = place < self._start[gene + 1]
        is_tied[is_tied] = self._value[place[is_tied]] == value[is_tied]
        smaller = self._below[place] - self._below[self._start[gene]] + np.where(value > 0, self._zeros[gene], 0)
        equal = np.where(is_tied, self._below[place + is_tied] - self._below[place], 0)

        wins = np.bincount(gene, count * (smaller + equal / 2), n_genes) + zeros * (self._negative + self._zeros / 2)
        ties = self._ties + np.bincount(gene, _tied(count + equal) - _tied(equal), n_genes) + _tied(zeros + self._zeros)
        n_all = n_cells + n_control
        variance = n_cells * n_control / 12 * (n_all + 1 - ties / (n_all * (n_all - 1)))
        excess = wins - n_cells * n_control / 2
        distance = np.maximum(np.abs(excess) - 0.5, 0.0)
        return np.sign(excess) * np.divide(
            distance, np.sqrt(np.maximum(variance, 0)), out=np.zeros(n_genes), where=distance > 0
        )


def wilcoxon(cells: Cells, control: Cells, *, pseudocount: float = PSEUDOCOUNT) -> DifferentialExpression:
    """Mann-Whitney test of every gene of one condition against control cells.

    For many conditions with the same controls build :class:`WilcoxonAgainst` once, which has the formulas.

    Parameters
    ----------
    cells
        Cells of the condition (n, G), log1p-normalised, dense or sparse.
    control
        Control cells (c, G), log1p-normalised, dense or sparse.
    pseudocount
        That of :func:`log_fold_change`.

    Returns
    -------
    The differential expression; its scores are z.

    Raises
    ------
    ValueError
        If there are no cells, the numbers of genes differ, values are not finite, or the pseudocount is negative.

    Examples
    --------
    >>> import numpy as np
    >>> wilcoxon(np.array([[5.0], [6.0]]), np.zeros((2, 1))).log_fold_change > 30
    array([ True])
    """
    return WilcoxonAgainst(control, pseudocount=pseudocount)(cells)


def _distinct_values(
    cells: Cells,
) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Distinct non-zero values, ascending within genes, their counts, where genes start (G + 1,), zeros of genes (G,)."""
    n_cells, n_genes = cells.shape
    if isinstance(cells, np.ndarray):
        by_gene = np.array(cells.T, dtype=np.float64, order="C")
        by_gene.sort(axis=1)
        is_stored = by_gene != 0
        values, n_stored = by_gene[is_stored], is_stored.sum(axis=1)
        start = np.append(0, np.cumsum(n_stored))
    else:
        stored = cells.tocsc()
        stored.sum_duplicates()
        stored.eliminate_zeros()
        values, start = stored.data.astype(np.float64, copy=False), stored.indptr.astype(np.intp)
        for first, last in zip(start[:-1], start[1:], strict=True):
            values[first:last].sort()
        n_stored = np.diff(start)
    is_first = np.append(True, values[1:] != values[:-1])[: len(values)]
    is_first[start[:-1][n_stored > 0]] = True
    places = np.flatnonzero(is_first)
    return (
        values[places],
        np.diff(np.append(places, len(values))),
        np.searchsorted(places, start),
        n_cells - n_stored,
    )


def _tied(count: NDArray[np.integer]) -> NDArray[np.float64]:
    """t^3 - t, in floating point: it exceeds 64-bit integers for two million cells."""
    size = count.astype(np.float64)
    return size * (size**2 - 1)
