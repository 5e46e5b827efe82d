"""Sparse dynamics with given second moments at steady state: the Lyapunov equation, by proximal descent."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

N_STEPS = 800
TOLERANCE = 1e-6


def lyapunov_residual(rates: Array, covariance: Array, noise: Array | float = 2.0) -> Array:
    r"""Return :math:`A S + S A^\top + D` (d, d), which is 0 for the covariance S of rates A and noise D.

    Cells follow :math:`dx = A x\,dt + \sqrt{D}\,dW`; row i of A has what changes the rate of gene i.
    """
    product = rates @ covariance
    return product + product.T + np.diag(np.broadcast_to(noise, len(covariance)))


def lyapunov_path(
    covariance: Array, regulators: Sequence[int], strengths: Sequence[float], *, noise: float = 2.0
) -> list[Array]:
    r"""Sparse rates (d, d) that explain a covariance, from few edges to many; other columns are 0 off the diagonal.

    Among the r regulators, :math:`\min_A \tfrac12 \|A S + (A S)^\top + D\|_F^2 + \lambda \sum_{i \ne j} |A_{ij}|` by
    accelerated proximal gradients; each strength :math:`\lambda`, in units of the smallest that leaves no edge, starts
    from the rates before. A gene that regulates none has the same equation with every regulator, in which only its own
    row is unknown; what two such genes share beyond their regulators is left out. Costs :math:`O(r^3 + d r^2)` a step.

    Rates need not be linear: of :math:`\dot x = A\, g(x)`, S is the covariance of g, rows, and x, which is not
    symmetric. Dettling, Drton and Kolar (2024), *Proc. 3rd Conf. Causal Learning and Reasoning*.
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


def soft_threshold(values: Array, threshold: Array | float) -> Array:
    """Move values towards zero by a threshold, and no further: the proximal map of ``threshold * |values|``."""
    return np.sign(values) * np.maximum(np.abs(values) - threshold, 0.0)


def group_threshold(values: Array, threshold: Array | float) -> Array:
    """Shorten the vectors along the last axis by a threshold (..., 1): proximal map of ``threshold * ||values||``."""
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    return values * np.maximum(1 - threshold / np.where(norm > 0, norm, 1.0), 0.0)


def proximal_descent(
    start: Array,
    gradient: Callable[[Array], Array],
    proximal: Callable[[Array], Array],
    step: Array | float,
    *,
    n_steps: int,
    tolerance: float,
) -> Array:
    """Minimise a smooth convex function plus one whose proximal map, for a step of size ``step``, is known.

    Steps are accelerated after Beck and Teboulle (2009), *SIAM J. Imaging Sci.* 2, 183; momentum is dropped when it
    points uphill, after O'Donoghue and Candès (2015), *Found. Comput. Math.* 15, 715. The step is at most the inverse
    of the Lipschitz constant, and may differ between independent rows; ``tolerance`` is the largest change in the last
    one.
    """
    current, ahead, inertia = start, start, 1.0
    for _ in range(n_steps):
        found = proximal(ahead - step * gradient(ahead))
        change = found - current
        if ((ahead - found) * change).sum() > 0:
            inertia = 1.0
        following = (1 + np.sqrt(1 + 4 * inertia**2)) / 2
        ahead = found + (inertia - 1) / following * change
        current, inertia = found, following
        if np.abs(change).max(initial=0.0) < tolerance:
            break
    return current
