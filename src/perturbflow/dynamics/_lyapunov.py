"""Sparse dynamics whose standing distribution has given second moments: the continuous Lyapunov equation."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._proximal import proximal_descent, soft_threshold

Array = NDArray[np.float64]

N_STEPS = 800
TOLERANCE = 1e-6


def lyapunov_residual(rates: Array, covariance: Array, noise: Array | float = 2.0) -> Array:
    r"""Return the residual of the Lyapunov equation, :math:`A S + S A^\top + D`.

    Cells that follow :math:`dx = A x\,dt + \sqrt{D}\,dW` have the covariance S if and only if this is 0.

    Parameters
    ----------
    rates
        A (d, d); row i has what changes the rate of gene i.
    covariance
        S (d, d).
    noise
        Diagonal of D, of every gene or one for all.

    Returns
    -------
    The residual (d, d).

    Examples
    --------
    >>> import numpy as np
    >>> lyapunov_residual(-np.eye(2), np.eye(2)).tolist()
    [[0.0, 0.0], [0.0, 0.0]]
    """
    product = rates @ covariance
    return product + product.T + np.diag(np.broadcast_to(noise, len(covariance)))


def lyapunov_path(
    covariance: Array, regulators: Sequence[int], strengths: Sequence[float], *, noise: float = 2.0
) -> list[Array]:
    r"""Sparse rates that explain a covariance, from few edges to many.

    Among the regulators, :math:`\min_A \tfrac12 \|A S + (A S)^\top + D\|_F^2 + \lambda \sum_{i \ne j} |A_{ij}|`, which is
    convex, by accelerated proximal gradients; each strength starts from the rates of the one before. Unlike a partial
    correlation, rates have a direction. A gene that regulates none has the same equation with every regulator, in which
    only its own row is unknown. What two such genes share beyond their regulators says nothing of either, and is
    left out. Costs :math:`O(r^3 + d r^2)` a step.

    Rates need not be linear. Of :math:`\dot x = A\, g(x)`, with what every gene does g, the second moments at rest are
    constant where :math:`A S + (A S)^\top + D = 0` with the covariance S of g and x, which is not symmetric.

    Parameters
    ----------
    covariance
        S (d, d), usually correlations: strengths penalise all genes alike. Rows are what genes do, columns their levels;
        the covariance of levels if rates are linear.
    regulators
        Positions of the r genes that may regulate others.
    strengths
        :math:`\lambda` in units of the smallest that leaves no edge, descending.
    noise
        Diagonal of D.

    Returns
    -------
    A (d, d) for every strength; columns of genes that are no regulators are 0 but for their diagonal.

    References
    ----------
    Dettling, Drton and Kolar (2024), *Proc. 3rd Conf. Causal Learning and Reasoning*, on the lasso for graphical
    continuous Lyapunov models.

    Examples
    --------
    Two genes that move together, and one that moves alone:

    >>> import numpy as np
    >>> covariance = np.array([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 1.0]])
    >>> rates = lyapunov_path(covariance, [0, 1, 2], [0.5, 0.1])[-1]
    >>> rates[2].round(2).tolist(), bool(abs(rates[0, 1]) + abs(rates[1, 0]) > 0.3)
    ([0.0, 0.0, -1.0], True)
    """
    d, few = len(covariance), np.asarray(regulators, dtype=np.intp)
    others = np.setdiff1d(np.arange(d), few)
    inner = covariance[np.ix_(few, few)]
    between = ~np.eye(len(few), dtype=bool)

    def slope(rates: Array) -> Array:
        return 2 * lyapunov_residual(rates, inner, noise) @ inner.T

    among, towards = -np.eye(len(few)), np.column_stack([np.zeros((len(others), len(few))), -np.ones(len(others))])
    first = _Rows(covariance, few, others, among, noise)
    largest = max(np.abs(slope(among)[between]).max(initial=0.0), np.abs(first.slope(towards)[:, :-1]).max(initial=0.0))
    norm = float(np.linalg.norm(inner, 2)) if len(few) else 1.0
    step = 1 / (4 * norm**2)
    path = []
    for strength in strengths:
        cut = strength * largest * step * between
        among = proximal_descent(
            among, slope, partial(soft_threshold, threshold=cut), step, n_steps=N_STEPS, tolerance=TOLERANCE
        )
        if len(others):
            rows = _Rows(covariance, few, others, among, noise)
            each = rows.step(norm)
            thresholds = np.column_stack([np.tile(strength * largest * each, len(few)), np.zeros(len(others))])
            towards = proximal_descent(
                towards,
                rows.slope,
                partial(soft_threshold, threshold=thresholds),
                each,
                n_steps=N_STEPS,
                tolerance=TOLERANCE,
            )
        found = np.zeros((d, d))
        found[np.ix_(few, few)] = among
        found[np.ix_(others, few)] = towards[:, :-1]
        found[others, others] = towards[:, -1]
        path.append(found)
    return path


class _Rows:
    """The equations of genes that regulate none, each with its own unknown row: rates by regulators, and its decay."""

    def __init__(
        self, covariance: Array, few: NDArray[np.intp], others: NDArray[np.intp], among: Array, noise: float
    ) -> None:
        self.inner, self.noise = covariance[np.ix_(few, few)], noise
        self.of_level = covariance[np.ix_(few, others)].T  # of every other gene, with what regulators do
        self.of_response = covariance[np.ix_(others, few)]  # of what it does itself, with their levels
        self.own = covariance[others, others]
        self.given = self.of_level @ among.T  # what the regulators' own rates contribute

    def slope(self, rows: Array) -> Array:
        rates, decay = rows[:, :-1], rows[:, -1]
        with_regulators = rates @ self.inner + decay[:, None] * self.of_response + self.given
        with_itself = 2 * ((rates * self.of_level).sum(axis=1) + decay * self.own) + self.noise
        by_rates = 2 * (with_regulators @ self.inner.T + with_itself[:, None] * self.of_level)
        by_decay = 2 * ((with_regulators * self.of_response).sum(axis=1) + with_itself * self.own)
        return np.column_stack([by_rates, by_decay])

    def step(self, norm: float) -> Array:
        one, other = (self.of_level**2).sum(axis=1), (self.of_response**2).sum(axis=1)
        return (1 / (2 * (norm**2 + other) + 4 * (one + self.own**2)))[:, None]
