"""Variances of effects of combinations and of effects in other contexts, gene by gene."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from perturbflow.flow._measurements import Measurements

_LARGEST_LEVERAGE = 0.9  # beyond it a condition says nothing of its interaction
_PSEUDO_MEASUREMENTS = 4.0  # at the level that all genes have, added where a variance is estimated gene by gene
# Shares of the mean square of an effect, where no condition tells: of the interaction of two, and of what an effect
# in one context differs from that in others.
INTERACTION_SHARE = 0.1
CONTEXT_SHARE = 0.25
_GROUPS_AT_ONCE = 1000


def interaction_variances(
    measured: Measurements,
    remaining: NDArray[np.float32],
    leverages: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Variance of the interaction of a pair (G,), from what remains in combinations (g, G).

    The fit leaves ``1 - leverage`` of a variance; a combination of k components has k - 1 times that of a pair.
    """
    n_active = measured.n_active
    telling = np.flatnonzero((n_active > 1) & (leverages < _LARGEST_LEVERAGE))
    squares = (
        (np.square(remaining[rows], dtype=np.float64) / (1 - leverages[rows, None]) - measured.variances[rows])
        / (n_active[rows, None] - 1)
        for rows in np.array_split(telling, max(1, len(telling) // _GROUPS_AT_ONCE))
    )
    return _gene_variances(squares, scale, share=INTERACTION_SHARE)


def context_variances(measured: Measurements, scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance of an effect between contexts (G,), from perturbations that were measured in several."""
    design, which = measured.design, measured.which
    rows_of: dict[tuple[bytes, bytes], list[int]] = {}
    for row, (first, last) in enumerate(zip(design.indptr[:-1], design.indptr[1:], strict=True)):
        name = design.indices[first:last].tobytes(), design.data[first:last].tobytes()
        rows_of.setdefault(name, []).append(row)
    effects, variances = measured.per_unit()
    squares = (
        (effects[rows].var(axis=0, ddof=1, dtype=np.float64) - variances[rows].mean(axis=0, dtype=np.float64))[None]
        for rows in rows_of.values()
        if len(np.unique(which[rows])) > 1
    )
    return _gene_variances(squares, scale, share=CONTEXT_SHARE)


def _gene_variances(
    squares: Iterable[NDArray[np.float64]], scale: NDArray[np.float64], *, share: float
) -> NDArray[np.float64]:
    """Variance of every gene (G,) from noisy estimates (n, G), steadied by a common proportion to ``scale`` (G,).

    Where there are no estimates the proportion is ``share``.
    """
    n, total = 0, np.zeros(len(scale))
    for part in squares:
        n += len(part)
        total += part.sum(axis=0)
    if n == 0 or not scale.any():
        return share * scale
    common = max(float(total.mean()) / n, 0.0) / float(scale.mean()) * scale
    return np.maximum((total + _PSEUDO_MEASUREMENTS * common) / (n + _PSEUDO_MEASUREMENTS), 0)
