"""Observations along time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Trajectory:
    """Observations of d genes at n times of one process.

    Parameters
    ----------
    name
        What it is called in results.
    time
        Times, strictly increasing, shape (n,).
    values
        Levels of the genes, means over the cells of a time, shape (n, d).
    weight
        Number of cells behind each row, shape (n,); the variance of its noise is taken to be inverse to it.
    clamped
        Genes that an intervention holds at what was observed, instead of leaving them to their dynamics, shape (d,).

    Raises
    ------
    ValueError
        If shapes disagree, or times do not rise.

    Examples
    --------
    >>> import perturbflow as pf
    >>> time, levels = np.arange(4.0), np.array([[8.0], [4.0], [2.0], [1.0]])
    >>> run = pf.dynamics.Trajectory("run", time, levels, np.ones(4), np.zeros(1, dtype=bool))
    >>> run.n_genes, run.rows(time > 1).values.tolist()
    (1, [[2.0], [1.0]])
    >>> run.binned(2).values.tolist(), run.binned(2).weight.tolist()  # means of two times each
    ([[6.0], [1.5]], [2.0, 2.0])
    """

    name: str
    time: FloatArray
    values: FloatArray
    weight: FloatArray
    clamped: NDArray[np.bool_]

    def __post_init__(self) -> None:
        n, d = self.values.shape
        if self.time.shape != (n,) or self.weight.shape != (n,) or self.clamped.shape != (d,):
            msg = (
                f"Expected time and weight of shape ({n},) and clamped of shape ({d},) for values of shape ({n}, {d}), "
                f"found {self.time.shape}, {self.weight.shape} and {self.clamped.shape}."
            )
            raise ValueError(msg)
        if n < 2 or not (np.diff(self.time) > 0).all():
            msg = f"Expected at least two strictly increasing times in trajectory {self.name!r}, found {n} rows."
            raise ValueError(msg)

    @property
    def n_genes(self) -> int:
        """Number of genes d."""
        return self.values.shape[1]

    def rows(self, chosen: NDArray[np.bool_] | slice) -> Trajectory:
        """Return the trajectory of some of its times.

        Parameters
        ----------
        chosen
            Rows to keep: a boolean each (n,), or a slice; at least two.

        Returns
        -------
        The trajectory of these rows.
        """
        return replace(self, time=self.time[chosen], values=self.values[chosen], weight=self.weight[chosen])

    def binned(self, n_bins: int) -> Trajectory:
        """Return means over consecutive times, in as many bins of nearly equal numbers of cells.

        Parameters
        ----------
        n_bins
            Number of bins; with no more times than that, the trajectory is returned as it is.

        Returns
        -------
        The trajectory of the bins, at their mean times, with their numbers of cells as weights.
        """
        if len(self.time) <= n_bins:
            return self
        share = (np.cumsum(self.weight) - self.weight / 2) / self.weight.sum()
        bins = np.unique(np.minimum((share * n_bins).astype(int), n_bins - 1), return_inverse=True)[1]
        weight = np.bincount(bins, self.weight).astype(np.float64)
        values = np.zeros((len(weight), self.n_genes))
        np.add.at(values, bins, self.weight[:, None] * self.values)
        return replace(
            self,
            time=np.bincount(bins, self.weight * self.time) / weight,
            values=values / weight[:, None],
            weight=weight,
        )
