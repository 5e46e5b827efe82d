"""Agreement of the edges of a network with a known one; :mod:`._edge_pairs` says what is ranked."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from perturbflow._checks import check_one_of
from perturbflow.metrics._edge_pairs import Network, edge_pairs
from perturbflow.metrics._families import of_networks


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

    Returns
    -------
    The area.

    References
    ----------
    Hanley and McNeil (1982), *Radiology* 143, 29-36.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> auroc(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.875
    """
    check_one_of(within, ("all", "regulator", "target"), name="within")
    pairs = edge_pairs(edge_scores, truth, candidates)
    pairs.check_both_kinds()
    groups = {"all": np.zeros_like(pairs.regulator), "regulator": pairs.regulator, "target": pairs.target}[within]
    concordant = comparisons = 0.0
    for group in np.unique(groups[pairs.is_edge]):
        members = groups == group
        is_edge = pairs.is_edge[members]
        n_edges = int(is_edge.sum())
        rank = stats.rankdata(pairs.strength[members])
        concordant += rank[is_edge].sum() - n_edges * (n_edges + 1) / 2
        comparisons += n_edges * (len(is_edge) - n_edges)
    if comparisons == 0:
        msg = f"Expected an edge and a non-edge of the same {within}, found none. Compare within 'all'."
        raise ValueError(msg)
    return float(concordant / comparisons)


@of_networks
def average_precision(edge_scores: Network, truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Area under the precision-recall curve of the edges, as average precision.

    ``sum over thresholds t of (recall_t - recall_(t-1)) precision_t``, over the distinct values of ``|s|`` from the
    highest, without interpolation; pairs of equal score enter together.

    *Direction*: higher is better. *Range*: above 0, to 1. Chance is the :func:`edge_density`, so values of networks of
    different density do not compare; read it beside that.

    *Weakness*: dominated by the first few pairs of the ranking, so its variance is large with few edges. Blind to signs.

    Returns
    -------
    The area.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> average_precision(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.8333333333333333
    """
    pairs = edge_pairs(edge_scores, truth, candidates)
    pairs.check_both_kinds()
    precision, recall = pairs.precision_and_recall()
    return float((np.diff(recall, prepend=0) * precision).sum())


@of_networks
def early_precision(edge_scores: Network, truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Precision among the k pairs of highest score, with k the number of true edges.

    ``(number of true edges among them) / k``; at this k it equals the recall. Of pairs that tie with the k-th, the
    expectation over a random order is taken, so that scores without any order have the value of chance.

    *Direction*: higher is better. *Range*: 0 to 1. Chance is the :func:`edge_density`.

    *Weakness*: sees one point of the ranking only, and needs the number of true edges, which no user of a method knows.
    Blind to signs.

    Returns
    -------
    The precision.

    References
    ----------
    Pratapa et al. (2020), *Nature Methods* 17, 147-154.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> early_precision(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.5
    """
    pairs = edge_pairs(edge_scores, truth, candidates)
    pairs.check_both_kinds()
    return float(pairs.share_in_top()[pairs.is_edge].sum() / pairs.is_edge.sum())


@of_networks
def sign_accuracy(edge_scores: Network, truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Share of recovered edges whose sign is right.

    A true edge is recovered if its score is not 0 and among the k highest, with k the number of true edges (as in
    :func:`early_precision`, ties with the k-th counting in part). The value is
    ``(recovered edges with sign(s) = sign(truth)) / (recovered edges)``.

    *Direction*: higher is better. *Range*: 0 to 1. Chance is not 0.5 where one sign is more frequent: a score that is
    positive everywhere gets the share of activating edges.

    *Weakness*: says nothing about how many edges were recovered; a method that recovers the single easiest edge may
    score 1.

    Parameters
    ----------
    edge_scores
        Signed scores (r, d).
    truth
        Known signed network (r, d).

    Returns
    -------
    The share; NaN if no edge is recovered, or if no edge among the candidates is negative, since such a truth may just
    as well have no signs.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> sign_accuracy(np.array([[0, 3.0, 0.1], [0, 0, 0.5], [0, 0, 0]]), truth)
    0.5
    """
    pairs = edge_pairs(edge_scores, truth, candidates)
    pairs.check_both_kinds()
    recovered = np.where(pairs.is_edge & (pairs.strength > 0), pairs.share_in_top(), 0.0)
    if recovered.sum() == 0 or not (pairs.truth < 0).any():
        return float("nan")
    return float(recovered[np.sign(pairs.score) == np.sign(pairs.truth)].sum() / recovered.sum())


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

    Returns
    -------
    The error.

    Examples
    --------
    >>> import numpy as np
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> support_error(np.array([[0, 3.0, 1.0], [0, 0, -0.5], [0, 0, 0]]), truth)
    0.5
    """
    pairs = edge_pairs(edge_scores, truth, candidates)
    pairs.check_both_kinds()
    return float((pairs.predicted(threshold) != pairs.is_edge).sum() / pairs.is_edge.sum())


@of_networks
def edge_density(truth: Network, *, candidates: NDArray[np.bool_] | None = None) -> float:
    """Share of the candidate pairs that are edges: the prevalence, and the chance level of precision.

    ``#{truth != 0} / #candidates``. *Range*: 0 to 1. Not a score; also what to call on a predicted network to learn how
    dense it is.

    Parameters
    ----------
    truth
        Network (r, d), signed or not.

    Returns
    -------
    The share.

    Examples
    --------
    >>> import numpy as np
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
    >>> import numpy as np
    >>> truth = np.array([[0, 1, 0], [0, 0, -1], [0, 0, 0]])
    >>> scores = network_scores(truth, truth)
    >>> scores["auroc"], scores["average_precision"], scores["sign_accuracy"], scores["structural_hamming_distance"]
    (1.0, 1.0, 1.0, 0)
    """
    pairs = edge_pairs(edge_scores, truth, candidates)
    return {
        "auroc": auroc(edge_scores, truth, candidates=candidates),
        "average_precision": average_precision(edge_scores, truth, candidates=candidates),
        "early_precision": early_precision(edge_scores, truth, candidates=candidates),
        "sign_accuracy": sign_accuracy(edge_scores, truth, candidates=candidates),
        "structural_hamming_distance": int((pairs.predicted(threshold) != pairs.is_edge).sum()),
        "support_error": support_error(edge_scores, truth, candidates=candidates, threshold=threshold),
        "edge_density": float(pairs.is_edge.mean()),
        "n_edges": int(pairs.predicted(threshold).sum()),
        "n_true_edges": int(pairs.is_edge.sum()),
        "n_candidates": len(pairs.is_edge),
    }
