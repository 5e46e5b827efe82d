"""How well a score tells positives from others: areas under its curves."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata


def auroc_of(
    score: NDArray[np.float64], is_positive: NDArray[np.bool_], group: NDArray[np.intp] | None = None
) -> float:
    """Share of the pairs of a positive and another (n,) in which the positive has the higher score; equal ones count half.

    With groups (n,) pairs are those of one group; NaN where there is none.
    """
    concordant = comparisons = 0.0
    groups = np.zeros(len(score), dtype=np.intp) if group is None else group
    for one in np.unique(groups[is_positive]):
        members = groups == one
        positive = is_positive[members]
        n = int(positive.sum())
        concordant += rankdata(score[members])[positive].sum() - n * (n + 1) / 2
        comparisons += n * (len(positive) - n)
    return float(concordant / comparisons) if comparisons else float("nan")


def precision_and_recall(
    score: NDArray[np.float64], is_positive: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both after every distinct score, from the highest: equal ones enter together (t,), (t,)."""
    order = np.argsort(-score, kind="stable")
    last_of_ties = np.append(np.diff(score[order]) != 0, True)
    found = np.cumsum(is_positive[order])[last_of_ties]
    return found / (np.flatnonzero(last_of_ties) + 1), found / found[-1]


def average_precision_of(score: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> float:
    """Sum over distinct scores of the gain in recall times the precision."""
    precision, recall = precision_and_recall(score, is_positive)
    return float((np.diff(recall, prepend=0) * precision).sum())
