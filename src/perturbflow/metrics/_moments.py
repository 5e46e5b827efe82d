"""Mean and variance of every gene, which is all that many metrics need of cells, of one condition and of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, gene_means
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
