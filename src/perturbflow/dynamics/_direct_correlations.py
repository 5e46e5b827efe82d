"""Correlations of targets with regulators beyond all other regulators: in cells, and where genes were held."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._rate_moments import RateMoments
from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

RIDGE = 0.02  # of the mean variance of regulators


def partial_correlations(correlation: Array, regulators: Sequence[int]) -> Array:
    """Correlations (d, d) of every gene, a row, with every regulator, given all other regulators.

    They are 0 on the diagonal and in columns of other genes. ``correlation`` (d, d) is invertible among regulators.
    """
    few = np.asarray(regulators, dtype=np.intp)
    found = np.zeros(correlation.shape)
    inverse = np.linalg.inv(correlation[np.ix_(few, few)])
    own = np.diag(inverse)
    found[np.ix_(few, few)] = -inverse / np.sqrt(own * own[:, None])
    others = np.setdiff1d(np.arange(len(correlation)), few)
    towards = correlation[np.ix_(others, few)]
    slope = towards @ inverse
    left = np.maximum(1 - (slope * towards).sum(axis=1), 1e-12)[:, None]
    found[np.ix_(others, few)] = slope / np.sqrt(left * own + slope**2)
    np.fill_diagonal(found, 0.0)
    return found


def mean_rate_correlations(cells: Snapshot, *, moments: RateMoments | None = None) -> Array:
    """Part correlations in the moments that :func:`mean_rate_path` balances (d, d), rows are targets.

    A part correlation is that of a target with what all other regulators leave of a regulator: how sure an effect is,
    where a coefficient says how large. As means of conditions count more than cells, it may exceed 1.
    """
    few = np.asarray(cells.regulators, dtype=np.intp)
    place = np.full(cells.n_genes, -1)
    place[few] = np.arange(len(few))
    found = np.zeros((cells.n_genes, cells.n_genes))
    moments = RateMoments(cells) if moments is None else moments
    for targets, gram, product in moments.by_target():
        inner = gram[:: moments.size, :: moments.size]
        ridge = RIDGE * max(float(np.diag(inner).mean()), 1e-12) if len(few) else 0.0
        inverse = np.linalg.inv(inner + ridge * np.eye(len(few)))
        slope = product[:, :: moments.size] @ inverse
        left = np.tile(np.diag(inverse), (len(targets), 1))
        for row in np.flatnonzero(place[targets] >= 0):  # a regulator does not explain itself
            own = place[targets[row]]
            column = inverse[own]
            slope[row] -= (product[row, :: moments.size] @ column) * column / column[own]
            left[row] -= column**2 / column[own]
        found[np.ix_(targets, few)] = slope / np.sqrt(np.maximum(left, 1e-12))
    found[few, few] = 0.0
    return found
