"""Mann-Whitney test of counts of many conditions against the same controls."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes, gene_means
from perturbflow.metrics._differential_expression import PSEUDOCOUNT, DifferentialExpression
from perturbflow.metrics._wilcoxon import WilcoxonAgainst
from perturbflow.screen._named_arrays import aligned, names_of

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
    >>> import numpy as np
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
