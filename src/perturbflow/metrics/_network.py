"""Agreement of the edges of a network with a known one.

``edge_scores`` and ``truth`` have one row per regulator and one column per target, dense or sparse: entry (j, i) is
about the edge from j to i. Scores are ranked by their absolute value, and their sign is the sign of the effect; an
entry of ``truth`` other than 0 is an edge, and its sign is the sign of the edge. ``candidates`` marks the pairs that
count, by default all pairs of a square matrix except the diagonal (self edges), and all pairs of any other matrix.
Tables are put in order by their names, which then also tell self edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perturbflow._checks import check_one_of
from perturbflow.metrics._families import of_networks
from perturbflow.metrics._ranking import auroc_of, average_precision_of, precision_and_recall
from perturbflow.screen._named_arrays import aligned, names_of

Network: TypeAlias = NDArray | sparse.spmatrix | sparse.sparray
"""Regulators by targets (r, d): an array or any SciPy sparse container."""


@of_networks
def auroc(
    edge_scores: Network,
    truth: Network,
    *,
    candidates: NDArray[np.bool_] | None = None,
    within: Literal["all", "regulator", "target"] = "all",
) -> float:
    """Area under the receiver operating characteristic of the edges.

    ``P(|s(edge)| > |s(non-edge)|) + P(|s(edge)| = |s(non-edge)|) / 2`` over all pairs of an edge and a non-edge
    (the Mann-Whitney statistic), or over those pairs that share their regulator or their target.

    *Direction*: higher is better. *Range*: 0 to 1; 0.5 is chance.

    *Weakness*: a rare edge counts as much as all non-edges, so a network of few edges has a high value long before its
    highest scores are edges; see :func:`average_precision`. Over all pairs, scores that know nothing but which genes
    have many edges exceed chance; pairs within a target (regulator) cannot be told apart by any score that depends on
    the target (regulator) alone. Blind to signs.

    Parameters
    ----------
    within
        ``"all"``: any edge against any non-edge. ``"regulator"``: against non-edges of the same regulator (stratified
        by row, as is due where regulators differ in how well they are known). ``"target"``: of the same target.

    References
    ----------
    Hanley and McNeil (1982), *Radiology* 143, 29-36.

    Examples
    --------
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> auroc(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.875
    """
    check_one_of(within, ("all", "regulator", "target"), name="within")
    pairs = _judged(edge_scores, truth, candidates)
    groups = {"all": None, "regulator": pairs.regulator, "target": pairs.target}[within]
    area = auroc_of(pairs.strength, pairs.is_edge, groups)
    if np.isnan(area):
        msg = f"Expected an edge and a non-edge of the same {within}, found none. Use `within='all'`."
        raise ValueError(msg)
    return area


@of_networks
def average_precision(edge_scores: Network, truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Area under the precision-recall curve of the edges, as average precision.

    ``sum over thresholds t of (recall_t - recall_(t-1)) precision_t``, over the distinct values of ``|s|`` from the
    highest, without interpolation; pairs of equal score enter together.

    *Direction*: higher is better. *Range*: above 0, to 1. Chance is the :func:`edge_density`, so values of networks of
    different density do not compare; read it beside that.

    *Weakness*: dominated by the first few pairs of the ranking, so its variance is large with few edges. Blind to signs.

    Examples
    --------
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> average_precision(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.8333333333333333
    """
    pairs = _judged(edge_scores, truth, candidates)
    return average_precision_of(pairs.strength, pairs.is_edge)


@of_networks
def early_precision(edge_scores: Network, truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Precision among the k pairs of highest score, with k the number of true edges.

    ``(number of true edges among them) / k``; at this k it equals the recall. Of pairs that tie with the k-th, the
    expectation over a random order is taken, so that scores without any order have the value of chance.

    *Direction*: higher is better. *Range*: 0 to 1. Chance is the :func:`edge_density`.

    *Weakness*: sees one point of the ranking only, and needs the number of true edges, which no user of a method knows.
    Blind to signs.

    References
    ----------
    Pratapa et al. (2020), *Nature Methods* 17, 147-154.

    Examples
    --------
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> early_precision(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.5
    """
    return _judged(edge_scores, truth, candidates).early_precision()


@of_networks
def sign_accuracy(edge_scores: Network, truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Share of recovered edges whose sign is right.

    A true edge is recovered if its score is not 0 and among the k highest, with k the number of true edges (as in
    :func:`early_precision`, ties with the k-th counting in part). The value is
    ``(recovered edges with sign(s) = sign(truth)) / (recovered edges)``.

    *Direction*: higher is better. *Range*: 0 to 1. Chance is not 0.5 where one sign is more frequent: a score that is
    positive everywhere gets the share of activating edges. NaN if no edge is recovered, or if no edge among the
    candidates is negative, since such a truth may just as well have no signs.

    *Weakness*: says nothing about how many edges were recovered; a method that recovers the single easiest edge may
    score 1.

    Parameters
    ----------
    edge_scores
        Signed scores (r, d).
    truth
        Known signed network (r, d).

    Examples
    --------
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> sign_accuracy(np.array([[0, 3.0, 0.1], [0, 0, 0.5], [0, 0, 0]]), truth)
    0.5
    """
    return _judged(edge_scores, truth, candidates).sign_accuracy()


@of_networks
def support_error(
    edge_scores: Network,
    truth: Network,
    *,
    candidates: NDArray[np.bool_] | None = None,
    threshold: float = 0.0,
) -> float:
    """Pairs on which the predicted and the known network disagree, relative to the number of true edges.

    ``(missing edges + superfluous edges) / (true edges)``, with an edge predicted where ``|s| > threshold``.

    *Direction*: lower is better. *Range*: 0 (the support is exact) to infinity; a network without any edge has 1.

    The numerator is the structural Hamming distance; the two directions between two genes are two pairs, so a reversed
    edge counts twice.

    *Weakness*: depends on the threshold, and rewards caution: in a sparse network, predicting no edge at all has an error of
    no more than 1. Blind to signs.

    Examples
    --------
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> support_error(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.5
    """
    pairs = _judged(edge_scores, truth, candidates)
    return float(pairs.n_errors(threshold) / pairs.is_edge.sum())


@of_networks
def edge_density(truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Share of the candidate pairs that are edges: the prevalence, and the chance level of precision.

    ``#{truth != 0} / #candidates``. *Range*: 0 to 1. Not a score; also what to call on a predicted network to learn how
    dense it is.

    Parameters
    ----------
    truth
        Network (r, d), signed or not.

    Examples
    --------
    >>> edge_density(np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])).__round__(6)
    0.333333
    """
    return float(edge_pairs(truth, truth, candidates).is_edge.mean())


@of_networks
def network_scores(
    edge_scores: Network,
    truth: Network,
    *,
    candidates: NDArray[np.bool_] | None = None,
    threshold: float = 0.0,
) -> dict[str, float]:
    """All metrics of a scored network at once.

    Parameters
    ----------
    threshold
        Absolute score above which a pair is predicted to be an edge; enters ``structural_hamming_distance``,
        ``support_error`` and ``n_edges`` only.

    Returns
    -------
    By name: ``auroc``, ``average_precision``, ``early_precision``, ``sign_accuracy``, ``structural_hamming_distance``,
    ``support_error``, ``edge_density`` (chance of the two precisions), and the numbers ``n_edges`` (predicted),
    ``n_true_edges`` and ``n_candidates``.

    Examples
    --------
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> scores = network_scores(truth, truth)
    >>> scores["auroc"], scores["average_precision"], scores["sign_accuracy"], scores["structural_hamming_distance"]
    (1.0, 1.0, 1.0, 0)
    """
    pairs = _judged(edge_scores, truth, candidates)
    n_true_edges, n_errors = int(pairs.is_edge.sum()), pairs.n_errors(threshold)
    return {
        "auroc": auroc_of(pairs.strength, pairs.is_edge),
        "average_precision": average_precision_of(pairs.strength, pairs.is_edge),
        "early_precision": pairs.early_precision(),
        "sign_accuracy": pairs.sign_accuracy(),
        "structural_hamming_distance": n_errors,
        "support_error": n_errors / n_true_edges,
        "edge_density": float(pairs.is_edge.mean()),
        "n_edges": int(pairs.predicted(threshold).sum()),
        "n_true_edges": n_true_edges,
        "n_candidates": len(pairs.is_edge),
    }


@dataclass(frozen=True)
class EdgePairs:
    """The candidate pairs of genes as flat arrays."""

    score: NDArray[np.float64]
    truth: NDArray[np.float64]
    regulator: NDArray[np.intp]
    target: NDArray[np.intp]

    @cached_property
    def strength(self) -> NDArray[np.float64]:
        return np.abs(self.score)

    @cached_property
    def is_edge(self) -> NDArray[np.bool_]:
        return self.truth != 0

    def precision_and_recall(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both after every distinct strength, from the highest (t,), (t,)."""
        return precision_and_recall(self.strength, self.is_edge)

    def early_precision(self) -> float:
        return float(self._share_in_top[self.is_edge].sum() / self.is_edge.sum())

    def sign_accuracy(self) -> float:
        recovered = np.where(self.is_edge & (self.strength > 0), self._share_in_top, 0.0)
        if recovered.sum() == 0 or not (self.truth < 0).any():
            return float("nan")
        return float(recovered[np.sign(self.score) == np.sign(self.truth)].sum() / recovered.sum())

    def predicted(self, threshold: float) -> NDArray[np.bool_]:
        if not threshold >= 0:
            msg = (
                f"Expected `threshold` to be at least 0, as absolute scores are compared with it, found {threshold!r}."
            )
            raise ValueError(msg)
        return self.strength > threshold

    def n_errors(self, threshold: float) -> int:
        return int((self.predicted(threshold) != self.is_edge).sum())

    @cached_property
    def _share_in_top(self) -> NDArray[np.float64]:
        """Chance of every pair to be among the k highest when ties are broken at random, k the number of edges."""
        k = int(self.is_edge.sum())
        limit = np.partition(self.strength, -k)[-k]
        above, tied = self.strength > limit, self.strength == limit
        return above + tied * ((k - above.sum()) / tied.sum())


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
    given: Any = network
    matrix = given.toarray() if sparse.issparse(given) else np.asarray(given)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiub":
        msg = f"Expected `{name}` to hold numbers, regulators by targets, found shape {matrix.shape} of {matrix.dtype}."
        raise ValueError(msg)
    if not np.isfinite(matrix).all():
        row, column = np.argwhere(~np.isfinite(matrix))[0]
        msg = f"Expected finite values in `{name}`, found {matrix[row, column]} at row {row}, column {column}."
        raise ValueError(msg)
    return matrix.astype(np.float64)


def _judged(edge_scores: Network, truth: Network, candidates: NDArray[np.bool_] | None) -> EdgePairs:
    pairs = edge_pairs(edge_scores, truth, candidates)
    n_edges, n_pairs = int(pairs.is_edge.sum()), len(pairs.truth)
    if not 0 < n_edges < n_pairs:
        msg = (
            f"Expected true edges and other pairs among the candidates, found {n_edges} edges in {n_pairs} pairs. "
            "Choose other `candidates`, or omit this network."
        )
        raise ValueError(msg)
    return pairs
