"""What cells without a time say of every edge: their covariation, and what interventions did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._lyapunov import lyapunov_path
from perturbflow.dynamics._mean_rates import mean_rate_path, total_effect_probability
from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

STANDING_STRENGTHS = tuple(np.geomspace(1.0, 2e-3, 20))
MEAN_STRENGTHS = tuple(np.geomspace(0.5, 2e-3, 10))
SHRINKAGE = 0.02  # of correlations, for what cells of a finite number cannot tell apart


@dataclass(frozen=True)
class SnapshotEvidence:
    """Evidence for all pairs, matrices (d, d) whose rows regulate columns.

    Attributes
    ----------
    evidence
        Between 0 and 1; higher is more likely. The diagonal and genes that are no regulators have 0.
    sign
        Sign of the effect.

    Examples
    --------
    >>> import numpy as np
    >>> found = SnapshotEvidence(evidence=np.array([[0.0, 0.9], [0.4, 0.0]]), sign=np.array([[0.0, -1.0], [1.0, 0.0]]))
    >>> float((found.evidence * found.sign)[0, 1])  # gene 0 represses gene 1
    -0.9
    """

    evidence: Array
    sign: Array


def possible_edges(cells: Snapshot) -> NDArray[np.bool_]:
    """Pairs of a regulator and another gene that both vary.

    Parameters
    ----------
    cells
        Cells.

    Returns
    -------
    True for these (d, d), rows regulate columns.

    Examples
    --------
    >>> import numpy as np
    >>> levels, none = np.array([[1.0, 2.0], [0.0, 2.5]]), np.zeros(2, dtype=int)
    >>> possible_edges(Snapshot(levels, none, ("control",), np.zeros((1, 2), dtype=bool), (0,), none)).tolist()
    [[False, True], [False, False]]
    """
    varies = np.diag(cells.within) > 0
    possible = varies & varies[:, None]
    possible[np.setdiff1d(np.arange(cells.n_genes), cells.regulators)] = False
    np.fill_diagonal(possible, val=False)
    return possible


def snapshot_evidence(cells: Snapshot) -> SnapshotEvidence:
    """Rank all pairs of a regulator and another gene.

    Along a path of strengths, the coefficients of every target are divided by their sum: each target has the same to give,
    and an edge that enters early has more of it. Paths are those of :func:`lyapunov_path` without interventions. The more
    regulators have been held, the more counts :func:`mean_rate_path` instead, times the probability that there is any total
    effect: from a half on, it alone. Ranks of the two are averaged.

    Parameters
    ----------
    cells
        Cells.

    Returns
    -------
    The evidence.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> first = rng.normal(size=500)
    >>> levels = np.column_stack([first, 0.8 * first + 0.6 * rng.normal(size=500), rng.normal(size=500)])
    >>> free = np.zeros((1, 3), dtype=bool)
    >>> cells = Snapshot(levels, np.zeros(500, dtype=int), ("control",), free, (0, 1, 2), np.zeros(500, dtype=int))
    >>> found = snapshot_evidence(cells)
    >>> bool(found.evidence[0, 1] > found.evidence[0, 2]), found.sign[0, 1]
    (True, np.float64(1.0))
    """
    d = cells.n_genes
    possible = possible_edges(cells)
    varies = np.diag(cells.within) > 0
    held = cells.held[:, list(cells.regulators)].any(axis=0)
    trust = min(1.0, 2 * float(np.mean(held)))
    evidence, signed = np.zeros((d, d)), np.zeros((d, d))
    if trust < 1:
        spread = np.sqrt(np.where(varies, np.diag(cells.within), 1.0))
        correlation = (1 - SHRINKAGE) * cells.within / spread / spread[:, None]
        np.fill_diagonal(correlation, 1.0)
        shares = _shares(lyapunov_path(correlation, cells.regulators, STANDING_STRENGTHS), d)
        evidence += (1 - trust) * _ranks(np.abs(shares), possible)
        signed += (1 - trust) * shares
    if trust > 0:
        shares = _shares(mean_rate_path(cells, MEAN_STRENGTHS), d) * total_effect_probability(cells).T
        evidence += trust * _ranks(np.abs(shares), possible)
        signed += trust * shares
    return SnapshotEvidence(evidence=evidence, sign=np.where(possible, np.sign(signed), 0.0))


def _shares(path: Iterable[Array], d: int) -> Array:
    """Mean share of every gene in what acts on a target, signed, rows regulate columns."""
    total, n = np.zeros((d, d)), 0
    for coefficients in path:
        off = coefficients.T.copy()
        np.fill_diagonal(off, 0.0)
        size = np.abs(off).sum(axis=0)
        total += off / np.where(size > 0, size, 1.0)
        n += 1
    return total / n


def _ranks(score: Array, possible: NDArray[np.bool_]) -> Array:
    """Ranks of the possible pairs from 0 to 1, 0 where there is no evidence at all; ties share their mean."""
    values = score[possible]
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = np.zeros(score.shape)
    ranks[possible] = ((last - (count - 1) / 2) / max(len(values), 1))[place] * (values > 0)
    return ranks
