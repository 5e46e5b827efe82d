"""Differential expression of one condition against the controls, and the t-test of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from perturbflow.screen._named_arrays import aligned, names_of, real_numbers


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
                    f"Expected one value of `{name}` for every gene, found shape {values.shape} and "
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
        """Adjust p-values over all genes (Benjamini and Hochberg 1995, *J. R. Stat. Soc. B* 57, 289-300).

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
            False discovery rate, above 0 and at most 1.

        Returns
        -------
        Whether each gene is significant, shape (G,).
        """
        if not 0 < fdr <= 1:
            msg = f"Expected `fdr` above 0 and at most 1, found {fdr!r}."
            raise ValueError(msg)
        return self.adjusted < fdr
