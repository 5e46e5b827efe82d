"""Mean and variance of every gene, of one condition or of several, and what is pooled over conditions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, dense, gene_means
from perturbflow.screen._named_arrays import aligned, names_of


@dataclass(frozen=True)
class Moments:
    """Number of cells, and mean and variance of every gene.

    Metrics of means accept it in the place of cells, so that cells are read once for all of them.

    Parameters
    ----------
    n_cells
        Number of cells.
    mean
        Mean of every gene, shape (G,).
    variance
        Unbiased variance of every gene (ddof 1), shape (G,); NaN for a single cell.
    gene_names
        Names of the genes, where the cells had them: metrics put two moments in order by these.

    Examples
    --------
    >>> Moments.of(np.array([[0.0, 1.0], [2.0, 1.0]])).variance
    array([2., 0.])
    """

    n_cells: int
    mean: NDArray[np.float64]
    variance: NDArray[np.float64]
    gene_names: pd.Index | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells and of genes, as of a matrix of cells."""
        return self.n_cells, len(self.mean)

    @classmethod
    def of(cls, cells: Cells, *, name: str = "cells") -> Moments:
        """Read cells (n, G), dense or sparse.

        Parameters
        ----------
        cells
            Cells by genes.
        name
            What errors call them.

        Returns
        -------
        Their moments.

        Raises
        ------
        ValueError
            If there are no cells, or values are not finite.
        """
        names = names_of(cells)
        cells = check_cells(cells, name=name)
        mean, n_cells = gene_means(cells, name=name), cells.shape[0]
        if n_cells == 1:
            return cls(1, mean, np.full(len(mean), np.nan), names)
        if isinstance(cells, np.ndarray):
            total = np.zeros(len(mean))
            for start in range(0, n_cells, ROWS):  # centred, so that a large mean costs no digits
                part = cells[start : start + ROWS] - mean
                total += np.einsum("ij,ij->j", part, part)
        else:
            # Centred values of the entries that are stored, and the mean itself for those that are not.
            stored = cells.tocsr()
            part = (stored.data - mean[stored.indices]) ** 2
            absent = n_cells - np.bincount(stored.indices, minlength=len(mean))
            total = np.bincount(stored.indices, part, len(mean)) + absent * mean**2
        return cls(n_cells, mean, total / (n_cells - 1), names)

    def reordered(self, places: NDArray[np.intp]) -> Moments:
        """Return the moments with genes in another order.

        Parameters
        ----------
        places
            Place of every gene in the present order (G,).

        Returns
        -------
        The moments.
        """
        names = None if self.gene_names is None else self.gene_names[places]
        return Moments(self.n_cells, self.mean[places], self.variance[places], names)

    @classmethod
    def pooled(cls, *parts: Moments) -> Moments:
        """Return the moments of the cells of several parts together.

        Parameters
        ----------
        parts
            Moments of each, over the same genes.

        Returns
        -------
        The moments of all.
        """
        names = names_of(*parts)
        parts = tuple(aligned("genes", **{f"parts[{k}]": part for k, part in enumerate(parts)}))
        sizes = np.array([part.n_cells for part in parts], dtype=np.float64)
        n_cells = int(sizes.sum())
        means = np.stack([part.mean for part in parts])
        mean = sizes @ means / n_cells
        squares = sizes @ (means - mean) ** 2
        for part in parts:
            if part.n_cells > 1:
                squares = squares + (part.n_cells - 1) * part.variance
        return cls(n_cells, mean, squares / (n_cells - 1) if n_cells > 1 else np.full(len(mean), np.nan), names)


CellsOrMoments: TypeAlias = Cells | Moments
ROWS = 4096


def moments_of(cells: CellsOrMoments, *, name: str) -> Moments:
    """Return the moments of cells, or moments as they are, of at least two cells."""
    found = cells if isinstance(cells, Moments) else Moments.of(cells, name=name)
    if found.n_cells < 2:
        msg = f"Expected at least 2 cells in `{name}`, found {found.n_cells}. Leave out conditions with too few cells."
        raise ValueError(msg)
    return found


@dataclass(frozen=True)
class Panel:
    """Predicted and observed cells of P conditions and the controls that serve them all.

    Parameters
    ----------
    predicted, observed
        Moments of the cells of every condition.
    control
        Moments of the control cells.
    targets
        Which genes the perturbation of a condition acts on itself, shape (P, G); None where that is not known.
    components
        Predicted and observed cells of every condition in principal components; empty where no metric needs them.

    Examples
    --------
    >>> import perturbflow as pf
    >>> def cells(level):
    ...     return pf.metrics.Moments.of(np.full((5, 3), level))
    >>> panel = pf.metrics.Panel([cells(2.0), cells(4.0)], [cells(3.0), cells(5.0)], control=cells(1.0))
    >>> panel.predicted_effects.tolist(), panel.observed_effects.tolist()  # of two conditions on three genes
    ([[1.0, 1.0, 1.0], [3.0, 3.0, 3.0]], [[2.0, 2.0, 2.0], [4.0, 4.0, 4.0]])
    """

    predicted: Sequence[Moments]
    observed: Sequence[Moments]
    control: Moments
    targets: NDArray[np.bool_] | None = None
    components: tuple[Sequence[NDArray[np.float64]], ...] = ()

    def __post_init__(self) -> None:
        sides = {f"{side}[{i}]": one for side in ("predicted", "observed") for i, one in enumerate(getattr(self, side))}
        if names_of(self.control, *sides.values()) is None:
            return
        _, targets, *found = aligned("genes", control=self.control, targets=self.targets, **sides)
        values = (found[: len(self.predicted)], found[len(self.predicted) :], targets)  # in the order of the controls
        for name, value in zip(("predicted", "observed", "targets"), values, strict=True):
            object.__setattr__(self, name, value)

    def __len__(self) -> int:
        return len(self.observed)

    @cached_property
    def predicted_means(self) -> NDArray[np.float64]:
        """Means of the predicted cells, shape (P, G)."""
        return np.stack([one.mean for one in self.predicted])

    @cached_property
    def observed_means(self) -> NDArray[np.float64]:
        """Means of the observed cells, shape (P, G)."""
        return np.stack([one.mean for one in self.observed])

    @cached_property
    def observed_sizes(self) -> NDArray[np.float64]:
        """Numbers of observed cells, shape (P,)."""
        return np.array([one.n_cells for one in self.observed], dtype=np.float64)

    @cached_property
    def predicted_effects(self) -> NDArray[np.float64]:
        """Means of the predicted cells minus that of the controls, shape (P, G)."""
        return self.predicted_means - self.control.mean

    @cached_property
    def observed_effects(self) -> NDArray[np.float64]:
        """Means of the observed cells minus that of the controls, shape (P, G)."""
        return self.observed_means - self.control.mean


BLOCK_VALUES = 1 << 20


def pseudobulk_moments(counts: Cells, *, target_sum: float = 50_000.0) -> Moments:
    """Moments of the log-normalised sum of counts, which take the place of cells in metrics of means.

    ``b_g = log1p(target_sum * S_g / S)`` with ``S_g`` the counts of gene g in all cells and ``S`` their sum over
    genes. Normalised after summing, the profile depends on the composition alone, not on how unequal the cells are;
    the mean of log-normalised cells depends on both. It is no mean of cells, so its sampling variance is the
    jackknife's: with ``b_g^(i)`` the profile without cell i, ``(n - 1) / n * sum_i (b_g^(i) - mean_i b_g^(i))^2``.
    ``variance`` holds n times that, the variance of the pseudo-values ``n b_g - (n - 1) b_g^(i)``, so that
    ``variance / n_cells`` is the sampling variance as it is for a mean.

    *Weakness*: the jackknife overestimates on average (Efron and Stein), the more the larger ``target_sum`` is against
    the counts of a gene; the 2026 challenge chose 50,000 for that reason. It takes the cells for independent draws.

    Parameters
    ----------
    counts
        Counts of the cells of one condition (n, G).
    target_sum
        Counts of the normalised profile.

    Returns
    -------
    Number of cells, profile and variance of the pseudo-values (NaN for one cell). Without any counts the profile is 0.

    Raises
    ------
    ValueError
        If counts are negative or not finite, or ``target_sum`` is not positive.

    Notes
    -----
    O(n G) also for sparse counts: leaving out a cell changes the normalisation of every gene. Memory of one block.

    References
    ----------
    Efron and Stein (1981), The jackknife estimate of variance. *Ann. Statist.* 9, 586-596.
    cell-eval2 0.20.0, comparator ``bulk_lognorm``.

    Examples
    --------
    >>> pseudobulk_moments(np.array([[1, 3], [1, 3]]), target_sum=4.0).mean
    array([0.69314718, 1.38629436])
    """
    if not (np.isfinite(target_sum) and target_sum > 0):
        msg = f"Expected `target_sum` to be positive, found {target_sum!r}."
        raise ValueError(msg)
    counts = check_cells(counts, name="counts")
    sums = gene_means(counts, name="counts") * counts.shape[0]
    stored = counts if isinstance(counts, np.ndarray) else counts.data
    if stored.size and stored.min() < 0:
        msg = (
            f"Expected counts, found a negative value in `counts`: {stored.min()}. Pass counts, not scaled expression."
        )
        raise ValueError(msg)
    n_cells, total = counts.shape[0], float(sums.sum())
    if total == 0:
        return Moments(n_cells, np.zeros(len(sums)), np.full(len(sums), 0.0 if n_cells > 1 else np.nan))
    profile = np.log1p(target_sum * sums / total)
    if n_cells == 1:
        return Moments(1, profile, np.full(len(sums), np.nan))
    first, second = np.zeros(len(sums)), np.zeros(len(sums))
    size = max(1, BLOCK_VALUES // counts.shape[1])
    for start in range(0, n_cells, size):
        block = dense(counts[start : start + size])
        # Relative to the whole profile, so that the sum of squares keeps its digits.
        rest = total - block.sum(axis=1, keepdims=True)
        share = np.divide(sums - block, rest, out=np.zeros_like(block), where=rest > 0)
        deviation = np.log1p(target_sum * share) - profile
        first += deviation.sum(axis=0)
        second += np.einsum("ij,ij->j", deviation, deviation)
    return Moments(n_cells, profile, (n_cells - 1) * np.maximum(second - first**2 / n_cells, 0.0))
