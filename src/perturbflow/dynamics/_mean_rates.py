"""Direct effects from interventions: where no gene holds it, the mean rate of a gene is zero in every condition."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._proximal import group_threshold, proximal_descent
from perturbflow.dynamics._rate_moments import RateMoments
from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

N_STEPS = 300
TOLERANCE = 1e-4
SIGNIFICANT = 4.0  # squared standard error, two of them


def mean_rate_path(cells: Snapshot, strengths: Sequence[float], *, moments: RateMoments | None = None) -> list[Array]:
    r"""Sparse production that balances the decay of every gene (d, d), in cells and in the means of conditions.

    At rest the mean rate of gene i is zero in every condition k that does not hold it, so that its level is :math:`x_i
    = \sum_j g_{ij}(x_j)` in the mean. Each g is a sum of the level and, for levels that are never negative, of
    :math:`x^2 / (x^2 + \bar x^2)`, which saturates. With groups of both,

    .. math::

        \min \tfrac12 \sum_{k: i \notin k} n_k \big( \operatorname{var}_k (x_i - g_i) + \omega
        (\bar x_{ik} - \bar g_{ik})^2 \big) + \lambda \sum_j \|w_{ij}\|,

    :math:`\lambda` in units of the smallest that leaves no edge. Means are known :math:`\sqrt{n}` times better than
    cells, but the equation does not hold that well: the weight :math:`\omega = \sqrt n` is half way.
    """
    few = np.asarray(cells.regulators, dtype=np.intp)
    d = cells.n_genes
    path = [np.zeros((d, d)) for _ in strengths]
    moments = RateMoments(cells) if moments is None else moments
    for targets, gram, product in moments.by_target():
        for found, weights in zip(path, _solve(gram, product, targets, few, moments.size, strengths), strict=True):
            strength = np.linalg.norm(weights, axis=2) * np.where(weights[:, :, 0] < 0, -1.0, 1.0)
            found[np.ix_(targets, few)] = strength
    return path


def total_effect_probability(cells: Snapshot) -> Array:
    """Return how sure it is that a gene has any effect on another, direct or not (d, d): what an edge needs.

    With z the difference of means against unperturbed cells over its standard error, ``z^2 / (z^2 + 4)``; the largest
    of the conditions that hold one gene only. For genes that nothing held alone, the mean of the others; 1 without any.
    """
    d = cells.n_genes
    known = np.zeros((d, d))
    measured = np.zeros(d, dtype=bool)
    error = cells.variance / np.maximum(cells.n_cells, 1)[:, None]
    for condition in np.flatnonzero(cells.held.sum(axis=1) == 1):
        source = int(np.flatnonzero(cells.held[condition])[0])
        square = cells.shift[condition] ** 2 / np.maximum(error[condition] + error[0], 1e-12)
        known[:, source] = np.maximum(known[:, source], square / (square + SIGNIFICANT))
        measured[source] = True
    known[:, ~measured] = known[:, measured].mean() if measured.any() else 1.0
    return known


def _solve(
    gram: Array, product: Array, targets: NDArray[np.intp], few: NDArray[np.intp], size: int, strengths: Sequence[float]
) -> list[Array]:
    """Return the coefficients (targets, r, size) of the group lasso for every strength."""
    shape = (len(targets), len(few), size)
    allowed = (targets[:, None] != few)[:, :, None]
    step = 1 / max(np.linalg.eigvalsh(gram)[-1], 1e-12)
    largest = np.linalg.norm(product.reshape(shape) * allowed, axis=2).max(axis=1)[:, None, None]

    def slope(weights: Array) -> Array:
        return (weights.reshape(len(targets), -1) @ gram - product).reshape(shape) * allowed

    weights = np.zeros(shape)
    path = []
    for strength in strengths:
        cut = strength * step * largest
        weights = proximal_descent(
            weights, slope, partial(group_threshold, threshold=cut), step, n_steps=N_STEPS, tolerance=TOLERANCE
        )
        path.append(weights)
    return path
