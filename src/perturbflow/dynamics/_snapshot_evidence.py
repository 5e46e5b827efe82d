"""Evidence for edges from cells without a time: their covariation, and what interventions did."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._direct_correlations import mean_rate_correlations, partial_correlations
from perturbflow.dynamics._lyapunov import lyapunov_path
from perturbflow.dynamics._mean_rates import mean_rate_path, total_effect_probability
from perturbflow.dynamics._rate_moments import RateMoments
from perturbflow.dynamics._snapshot import Snapshot

Array = NDArray[np.float64]

STANDING_STRENGTHS = tuple(np.geomspace(1.0, 2e-3, 20))
MEAN_STRENGTHS = tuple(np.geomspace(0.5, 2e-3, 10))
RANKS_WEIGHT = 0.25  # of rates in normal scores
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
    """Pairs of a regulator, a row, and another gene that both vary (d, d)."""
    varies = np.diag(cells.within) > 0
    possible = varies & varies[:, None]
    possible[np.setdiff1d(np.arange(cells.n_genes), cells.regulators)] = False
    np.fill_diagonal(possible, val=False)
    return possible


def snapshot_evidence(cells: Snapshot) -> SnapshotEvidence:
    """Rank all pairs of a regulator and another gene.

    Along a path of strengths, the coefficients of every target are divided by their sum, so that an edge that enters
    early has more of it. Covariation has three parts, of which every target gives a share: paths of
    :func:`lyapunov_path` with what genes do as a saturating function of their levels, absolute partial correlations,
    half of them of levels and half of normal scores, and, with a quarter of the weight, paths of linear rates in normal
    scores. Without perturbations pairs are ranked by the sum of these shares.

    With perturbations they are ranked by a share times how sure an effect is. Of regulators that were held, the share
    is that of :func:`mean_rate_path`, and an effect is as sure as its :func:`mean_rate_correlations` and the
    probability that there is any total effect. Of the others it is as sure as a partial correlation within conditions,
    and the share, which is unknown, is the root mean square of all. Levels or their normal scores are used, whichever
    have the smaller partial correlations: on the right scale, regulators explain away more of what is indirect.

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
    possible = possible_edges(cells)
    if cells.held[:, list(cells.regulators)].any():
        never = np.flatnonzero(~cells.held.any(axis=0))
        moments = RateMoments(cells)
        shares = _shares(mean_rate_path(cells, MEAN_STRENGTHS, moments=moments), cells.n_genes)
        sure = np.abs(mean_rate_correlations(cells, moments=moments)) * total_effect_probability(cells)
        signed = shares * sure.T
        typical = np.sqrt((shares[possible] ** 2).sum() / max(possible.sum(), 1))
        signed[never] = typical * _clearest(cells).T[never]
        score = np.abs(signed)
    else:
        parts = _covariation(cells)
        score, signed = np.abs(parts).sum(axis=0), np.sum(parts, axis=0)
    return SnapshotEvidence(evidence=evidence_ranks(score, possible), sign=np.where(possible, np.sign(signed), 0.0))


def _clearest(cells: Snapshot) -> Array:
    """Partial correlations within conditions, of levels or of normal scores, whichever are smaller; rows are targets."""
    correlations = (_shrunken_correlations(each.within) for each in (cells, cells.scored()))
    return min((partial_correlations(each, cells.regulators) for each in correlations), key=np.linalg.norm)


def _covariation(cells: Snapshot) -> list[Array]:
    """Signed shares of every gene in what acts on a target, by all kinds of evidence (d, d), rows regulate columns."""
    d, few = cells.n_genes, cells.regulators
    spread = np.sqrt(np.diag(cells.within))
    saturating = (1 - SHRINKAGE) * cells.response_covariance / np.where(spread > 0, spread, 1.0)
    np.fill_diagonal(saturating, np.where(spread > 0, np.diag(saturating) / (1 - SHRINKAGE), 1.0))
    linear, monotone = (_shrunken_correlations(each.within) for each in (cells, cells.scored()))
    return [
        _shares(lyapunov_path(saturating, few, STANDING_STRENGTHS), d),
        _shares([partial_correlations(linear, few)], d) / 2,
        _shares([partial_correlations(monotone, few)], d) / 2,
        RANKS_WEIGHT * _shares(lyapunov_path(monotone, few, STANDING_STRENGTHS), d),
    ]


def _shrunken_correlations(covariance: Array) -> Array:
    spread = np.sqrt(np.diag(covariance))
    spread = np.where(spread > 0, spread, 1.0)
    correlation = (1 - SHRINKAGE) * covariance / spread / spread[:, None]
    np.fill_diagonal(correlation, 1.0)
    return correlation


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


def evidence_ranks(score: Array, possible: NDArray[np.bool_]) -> Array:
    """Rank evidence (d, d) of possible pairs from 0 to 1; 0 for others and without evidence. Ties share their mean."""
    values = score[possible]
    _, place, count = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(count)
    ranks = np.zeros(score.shape)
    ranks[possible] = ((last - (count - 1) / 2) / max(len(values), 1))[place] * (values > 0)
    return ranks
