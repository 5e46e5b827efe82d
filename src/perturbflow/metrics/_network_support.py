"""Agreement of the support of a network with a known one, and all network metrics at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics._edge_pairs import Network, edge_pairs
from perturbflow.metrics._families import of_networks
from perturbflow.metrics._network import auroc, average_precision, early_precision, sign_accuracy


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
