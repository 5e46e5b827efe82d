"""Candidate pairs of a scored and a known network, which every network metric compares.

``edge_scores`` and ``truth`` have one row per regulator and one column per target, dense or sparse: entry (j, i) is
about the edge from j to i. Scores are ranked by their absolute value, and their sign is the sign of the effect; an
entry of ``truth`` other than 0 is an edge, and its sign is the sign of the edge. ``candidates`` marks the pairs that
count, by default all pairs of a square matrix except the diagonal (self edges), and all pairs of any other matrix.
Tables are put in order by their names, which then also tell self edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.screen._named_arrays import aligned, names_of

Network: TypeAlias = NDArray | sparse.spmatrix | sparse.sparray
"""Regulators by targets (r, d): an array or any SciPy sparse container."""


@dataclass(frozen=True)
class EdgePairs:
    """The candidate pairs of genes as flat arrays."""

    score: NDArray[np.float64]
    truth: NDArray[np.float64]
    regulator: NDArray[np.intp]
    target: NDArray[np.intp]

    @property
    def strength(self) -> NDArray[np.float64]:
        return np.abs(self.score)

    @property
    def is_edge(self) -> NDArray[np.bool_]:
        return self.truth != 0

    def check_both_kinds(self) -> None:
        n_edges, n_pairs = int(self.is_edge.sum()), len(self.truth)
        if not 0 < n_edges < n_pairs:
            msg = (
                f"Expected true edges and other pairs among the candidates, found {n_edges} edges in {n_pairs} pairs. "
                "Choose other `candidates`, or leave out this network."
            )
            raise ValueError(msg)

    def share_in_top(self) -> NDArray[np.float64]:
        """Chance of every pair to be among the k highest when ties are broken at random, k the number of edges."""
        k = int(self.is_edge.sum())
        limit = np.partition(self.strength, -k)[-k]
        above, tied = self.strength > limit, self.strength == limit
        return above + tied * ((k - above.sum()) / tied.sum())

    def precision_and_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both after every distinct strength, from the highest: pairs of equal strength enter together (t,), (t,)."""
        order = np.argsort(-self.strength, kind="stable")
        last_of_ties = np.append(np.diff(self.strength[order]) != 0, True)
        found = np.cumsum(self.is_edge[order])[last_of_ties]
        return found / (np.flatnonzero(last_of_ties) + 1), found / found[-1]

    def predicted(self, threshold: float) -> NDArray[np.bool_]:
        if not threshold >= 0:
            msg = (
                f"Expected `threshold` to be at least 0, as absolute scores are compared with it, found {threshold!r}."
            )
            raise ValueError(msg)
        return self.strength > threshold


def edge_pairs(edge_scores: Network, truth: Network, candidates: NDArray[np.bool_] | None) -> EdgePairs:
    """Check and flatten the networks."""
    regulators, targets = (names_of(edge_scores, truth, candidates, place=place) for place in (-2, -1))
    edge_scores, truth, candidates = aligned(
        "regulators", "targets", edge_scores=edge_scores, truth=truth, candidates=candidates
    )
    known, scores = _dense(truth, name="truth"), _dense(edge_scores, name="edge_scores")
    if candidates is None:
        chosen = np.ones(known.shape, dtype=np.bool_)
        if known.shape[0] == known.shape[1]:
            if regulators is None or targets is None:
                np.fill_diagonal(chosen, val=False)
            else:
                chosen = regulators.to_numpy()[:, None] != targets.to_numpy()
    else:
        chosen = np.asarray(candidates)
        if chosen.dtype != bool:
            msg = f"Expected `candidates` to hold booleans, found dtype {chosen.dtype}. Compare it with 0 first."
            raise TypeError(msg)
    if not scores.shape == known.shape == chosen.shape:
        msg = (
            "Expected edge scores, truth and candidates of one shape (regulators, targets), "
            f"found {scores.shape}, {known.shape} and {chosen.shape}."
        )
        raise ValueError(msg)
    if not chosen.any():
        msg = f"Expected at least one candidate pair, found none in shape {chosen.shape}."
        raise ValueError(msg)
    regulator, target = np.nonzero(chosen)
    return EdgePairs(scores[chosen], known[chosen], regulator, target)


def _dense(network: Network, *, name: str) -> NDArray[np.float64]:
    matrix = (
        np.asarray(network) if isinstance(network, np.ndarray) or not sparse.issparse(network) else network.toarray()
    )
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        msg = f"Expected `{name}` to hold numbers, regulators by targets, found shape {matrix.shape} of {matrix.dtype}."
        raise ValueError(msg)
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        msg = f"Expected finite values in `{name}`, found {matrix[row, column]} at row {row}, column {column}."
        raise ValueError(msg)
    return matrix.astype(np.float64)
