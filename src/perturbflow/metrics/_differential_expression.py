"""Differential expression of one condition against the controls, and the t-test of it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from perturbflow.screen._named_arrays import aligned, by_name, names_of, real_numbers
from perturbflow.screen._scale import natural_per_unit

if TYPE_CHECKING:
    import pandas as pd

PSEUDOCOUNT = 1e-9
RELATIVE_ZERO = 1e-9
LARGEST_LOG = 700.0  # of which the exponential is still finite


@dataclass(frozen=True, eq=False)
class DifferentialExpression:
    """Result of a test of every gene of one condition against the controls.

    Parameters
    ----------
    log_fold_change
        Log2 fold change of every gene, shape (G,); infinite where only one side expresses the gene and no pseudocount
        was used.
    p_value
        p-value of every gene, shape (G,).
    adjusted
        p-values adjusted for the number of genes, shape (G,).
    score
        Signed statistic of every gene, shape (G,), if the test has one.
    gene_names
        Names of the genes, where they are known; by default those of the first Series among the values. Metrics put two
        results in order by these.

    Raises
    ------
    ValueError
        If shapes disagree, there is no gene, or values are NaN or out of range.

    Examples
    --------
    >>> import numpy as np
    >>> found = DifferentialExpression.of(np.array([2.0, -1.0, 0.1]), np.array([0.001, 0.02, 0.9]))
    >>> found.significant(fdr=0.05)
    array([ True,  True, False])
    """

    log_fold_change: NDArray[np.float64]
    p_value: NDArray[np.float64]
    adjusted: NDArray[np.float64]
    score: NDArray[np.float64] | None = None
    gene_names: pd.Index | None = None

    def __post_init__(self) -> None:
        parts = {name: getattr(self, name) for name in ("log_fold_change", "p_value", "adjusted", "score")}
        if self.gene_names is None:
            object.__setattr__(self, "gene_names", names_of(*parts.values()))
        for name, values in zip(parts, aligned("genes", **parts), strict=True):
            if values is None and name == "score":
                continue
            values = real_numbers(values, name=name)
            object.__setattr__(self, name, values)
            if values.ndim != 1 or values.shape != self.log_fold_change.shape or not values.size:
                msg = (
                    f"Expected one value of `{name}` for every gene, found shape {values.shape} beside "
                    f"{self.log_fold_change.shape}. Pass arrays of shape (genes,)."
                )
                raise ValueError(msg)
            if np.isnan(values).any():
                msg = f"Expected numbers in `{name}`, found NaN in {int(np.isnan(values).sum())} genes. Leave them out."
                raise ValueError(msg)
            if name in {"p_value", "adjusted"} and (values.min() < 0 or values.max() > 1):
                msg = (
                    f"Expected `{name}` between 0 and 1, found {values.min():.3g} to {values.max():.3g}. "
                    "Pass probabilities, not their logarithms."
                )
                raise ValueError(msg)

    @classmethod
    def of(
        cls,
        log_fold_change: NDArray[np.float64],
        p_value: NDArray[np.float64],
        score: NDArray[np.float64] | None = None,
        gene_names: pd.Index | None = None,
    ) -> DifferentialExpression:
        """Adjust p-values by the method of Benjamini and Hochberg over all genes.

        Parameters
        ----------
        log_fold_change
            Log2 fold changes (G,).
        p_value
            p-values (G,).
        score
            Signed statistics (G,), if there are.
        gene_names
            Names of the genes, if they are known.

        Returns
        -------
        The differential expression.

        Raises
        ------
        ValueError
            If shapes disagree, there is no gene, or values are NaN or out of range.

        References
        ----------
        Benjamini and Hochberg (1995), *J. R. Stat. Soc. B* 57, 289-300.
        """
        unadjusted = cls(log_fold_change, p_value, p_value, score, gene_names)  # refuses what cannot be adjusted
        return replace(unadjusted, adjusted=stats.false_discovery_control(unadjusted.p_value))

    @property
    def n_genes(self) -> int:
        """Number of genes."""
        return len(self.p_value)

    def reordered(self, places: NDArray[np.intp] | NDArray[np.bool_]) -> DifferentialExpression:
        """Return the same with some genes, or all in another order.

        Parameters
        ----------
        places
            Place of every gene that is wanted, or whether each is.

        Returns
        -------
        The differential expression.
        """
        parts = (self.log_fold_change, self.p_value, self.adjusted, self.score, self.gene_names)
        return DifferentialExpression(*(None if part is None else part[places] for part in parts))  # type: ignore[arg-type]

    def significant(self, fdr: float = 0.05) -> NDArray[np.bool_]:
        """Genes with an adjusted p-value below ``fdr``.

        Parameters
        ----------
        fdr
            False discovery rate.

        Returns
        -------
        Whether each gene is significant, shape (G,).

        Raises
        ------
        ValueError
            If ``fdr`` is not above 0 and at most 1.
        """
        if not 0 < fdr <= 1:
            msg = f"Expected `fdr` above 0 and at most 1, found {fdr!r}."
            raise ValueError(msg)
        return self.adjusted < fdr


@by_name("genes", of=("mean", "control_mean"))
def log_fold_change(
    mean: NDArray[np.float64],
    control_mean: NDArray[np.float64],
    *,
    pseudocount: float = PSEUDOCOUNT,
    base: float | None = None,
) -> NDArray[np.float64]:
    """Log2 fold change (G,) of log1p-normalised means, ``log2((expm1(mean) + pseudocount) / (expm1(control_mean) + pseudocount))``.

    That is the ratio of geometric means of ``1 + x``, less 1: the definition of scanpy and pdex, both of which have
    1e-9 for a pseudocount by default. At 0, as in cell-eval, genes that one side alone expresses are infinite and have no
    order among them. A gene without expression on both sides has 0. A mean below 0, which only a prediction can have, counts as
    no expression. ``base`` is that of the logarithm, as in ``adata.uns["log1p"]["base"]``: an array cannot tell.
    """
    if not (np.isfinite(pseudocount) and pseudocount >= 0):
        msg = f"Expected `pseudocount` to be 0 or a positive number, found {pseudocount!r}."
        raise ValueError(msg)
    mean, control_mean = real_numbers(mean, name="mean"), real_numbers(control_mean, name="control_mean")
    if mean.shape != control_mean.shape:
        msg = f"Expected the same genes in the condition and in the controls, found {mean.shape}, {control_mean.shape}."
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
