"""Stability of the edges of a snapshot: which come back in halves of the cells, seen in other ways."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.dynamics._snapshot import Snapshot
from perturbflow.dynamics._snapshot_evidence import possible_edges, snapshot_evidence

Array = NDArray[np.float64]

STABLE = 0.9  # share of halves from which an edge is called stable
# Share of stable edges from regulators that nothing held that are true: 36 of 59 in eleven simulated screens.
NEVER_HELD = 2 / 3


def edge_stability(cells: Snapshot, *, n_halves: int, rng: np.random.Generator, n_expected_false: float = 1.0) -> Array:
    r"""Share of halves of the cells in which an edge is among those of most evidence.

    Each half sees the levels in one of two ways, as they are or as normal scores of their ranks, in turn: an edge that
    depends on the scale comes back in half of them. Of p pairs the first :math:`q = \sqrt{(2 \cdot 0.9 - 1) p V}`
    count, so that if all pairs were alike no more than V would be expected to come back in 90 % of the halves.

    Cells in which a regulator was not held leave many graphs with the same covariance, and what all halves have in common
    cannot show which is the right one: its edges have two thirds of their share. Where others were held, the edge from one
    that never was to another regulator could as well point the other way: it has half of its share.

    Parameters
    ----------
    cells
        Cells.
    n_halves
        Number of halves.
    rng
        Random generator.
    n_expected_false
        V.

    Returns
    -------
    Shares (d, d), rows regulate columns.

    References
    ----------
    Meinshausen and Bühlmann (2010), *J. R. Stat. Soc. B* 72, 417.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> first = rng.normal(size=500)
    >>> levels = np.column_stack([first, 0.8 * first + 0.6 * rng.normal(size=500), rng.normal(size=500)])
    >>> none = np.zeros(500, dtype=int)
    >>> cells = Snapshot(levels, none, ("control",), np.zeros((1, 3), dtype=bool), (0,), none)
    >>> edge_stability(cells, n_halves=10, rng=rng)[0].tolist()
    [0.0, 0.6666666666666666, 0.0]
    """
    possible = possible_edges(cells)
    n_chosen = max(1, int(np.sqrt((2 * STABLE - 1) * possible.sum() * n_expected_false)))
    count = np.zeros(possible.shape)
    for half in range(n_halves):
        drawn = cells.resampled(rng)
        evidence = snapshot_evidence(drawn.scored() if half % 2 else drawn).evidence
        values = evidence[possible]
        limit = np.partition(values, -n_chosen)[-n_chosen] if len(values) > n_chosen else 0.0
        count += possible & (evidence >= limit) & (evidence > 0)
    return count / max(n_halves, 1) * _share_true(cells)


def _share_true(cells: Snapshot) -> Array:
    """Return how many of the edges are true that come back in all halves, at most (d, d)."""
    is_regulator = np.isin(np.arange(cells.n_genes), cells.regulators)
    was_held = cells.held.any(axis=0) & is_regulator
    share = np.where(np.repeat(was_held[:, None], cells.n_genes, axis=1), 1.0, NEVER_HELD)
    if was_held.any():
        share[np.ix_(~was_held, is_regulator)] = 0.5
    return share
