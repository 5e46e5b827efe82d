"""The direction in which the cells of a condition differ from controls, and where cells are along it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._cells import Cells, check_cells, check_same_genes
from perturbflow.metrics._moments import Moments

if TYPE_CHECKING:
    from typing import Self

LEAST_T = 2.0
LEAST_GENES = 5


@dataclass(frozen=True, eq=False)
class ResponseAxis:
    """Genes by how much they change, in units of their standard deviation.

    Parameters
    ----------
    t
        Welch's t of every gene (G,): 0 where it varies on neither side.
    deviation
        Standard deviation of every gene within the two groups (G,).
    weights
        Weights of the genes in a score, which is 0 on average over controls and 1 over the real cells (G,).
    origin
        Score of the controls before it is subtracted.
    """

    t: NDArray[np.float64]
    deviation: NDArray[np.float64]
    weights: NDArray[np.float64]
    origin: float

    @classmethod
    def of(cls, y: Cells, control: Cells) -> Self:
        """Find the direction of real cells (m, G) from controls (c, G).

        The genes with a t beyond 2, or the five most changed ones if they are fewer, count with their change over their
        variance: the best direction to tell cells apart by if genes varied independently (Fisher 1936).
        """
        real, reference = Moments.of(y, name="y"), Moments.of(control, name="control")
        change = real.mean - reference.mean
        error = np.sqrt(real.variance / real.n_cells + reference.variance / reference.n_cells)
        deviation = np.sqrt((real.variance + reference.variance) / 2)
        # A gene that is constant on both sides is no measure of cells.
        varies = deviation > 1e-9 * np.maximum(np.abs(real.mean), 1)
        t = np.divide(change, error, out=np.zeros_like(change), where=varies)
        threshold = min(LEAST_T, float(np.sort(np.abs(t))[-min(LEAST_GENES, len(t))]))
        counts = varies & (np.abs(t) >= threshold)
        weights = np.divide(change, deviation**2, out=np.zeros_like(change), where=counts)
        size = float(weights @ change)
        weights = weights / size if size > 0 else np.full_like(weights, np.nan)
        return cls(t, deviation, weights, float(weights @ reference.mean))

    def scores(self, cells: Cells) -> NDArray[np.float64]:
        """Return where cells (n, G) are between controls and what responds (n,)."""
        return np.asarray(cells @ self.weights, dtype=np.float64).ravel() - self.origin

    def most_changed(self, n_top: int) -> NDArray[np.intp]:
        """The most changed genes among those that vary, the most changed first."""
        order = np.argsort(-np.abs(self.t), kind="stable")[:n_top]
        return order[self.t[order] != 0]


def responding_share(scores: NDArray[np.float64], control: NDArray[np.float64], level: float) -> float:
    """Share of cells with scores (n,) beyond the ``level`` quantile of those of controls (c,), less that of controls."""
    if not 0 < level < 1:
        msg = f"Expected `level` between 0 and 1, found {level!r}. The usual one is 0.95."
        raise ValueError(msg)
    above = float((scores > np.quantile(control, level)).mean())
    return max((above - (1 - level)) / level, 0.0)


def checked(x: Cells, y: Cells, control: Cells, *, minimum: int = 2) -> tuple[Cells, Cells, Cells]:
    """Predicted, real and control cells of the same genes, finite."""
    x, y = check_cells(x, name="x", minimum=minimum), check_cells(y, name="y", minimum=minimum)
    control = check_cells(control, name="control", minimum=minimum)
    check_same_genes(x=x, y=y, control=control)
    Moments.of(x, name="x")
    return x, y, control


def dense(cells: Cells, genes: NDArray[np.intp]) -> NDArray[np.float64]:
    """Values of some genes (n, g)."""
    part = cells[:, genes]
    return np.asarray(part if isinstance(part, np.ndarray) else part.toarray(), dtype=np.float64)
