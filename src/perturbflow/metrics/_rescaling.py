"""Scores between a baseline and a replicate of the reference, as the 2026 Virtual Cell Challenge averages them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from perturbflow.metrics._dynamic_range import dynamic_range_fraction


@dataclass(frozen=True)
class Scale:
    """Scale of a metric on which the baseline is 0 and the replicate 1, within bounds.

    A prediction without a value gets ``worst``, the worst value of the metric; where that is None, the lower bound.
    """

    higher_is_better: bool
    low: float = -np.inf
    high: float = np.inf
    worst: float | None = None

    def __post_init__(self) -> None:
        if not self.low < self.high:
            msg = f"Expected `low` below `high`, found {self.low!r} and {self.high!r}."
            raise ValueError(msg)
        if self.worst is None and not np.isfinite(self.low):
            msg = "Expected `worst` or a finite `low`, found neither: a missing value needs a score."
            raise ValueError(msg)

    def score(self, value: float, *, baseline: float, replicate: float) -> float:
        """Rescale a value: the :func:`dynamic_range_fraction`, clipped.

        NaN where an end of the scale is not finite or the replicate is not better than the baseline: the metric does not tell
        them apart with this reference.
        """
        if not (np.isfinite(baseline) and np.isfinite(replicate)):
            return float("nan")
        if not np.isfinite(value):
            value = self.worst if self.worst is not None else -np.inf if self.higher_is_better else np.inf
        sign = -1.0 if self.higher_is_better else 1.0
        fraction = dynamic_range_fraction(sign * value, sign * baseline, sign * replicate)
        return float(np.clip(fraction, self.low, self.high))


_ERROR = Scale(higher_is_better=False, low=0.0, high=1.0)
_SHARE = Scale(higher_is_better=True, worst=0.0)

CHALLENGE_SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "pds_cosine": _SHARE,
        "expr_mse_unbiased_capped_norm": _ERROR,
        "de_wilcoxon_direction_fidelity_yield_raw": _SHARE,
        "de_wilcoxon_direction_reach_raw": _SHARE,
        "de_wilcoxon_sig_jaccard": _SHARE,
        "de_wilcoxon_lfc_nmae": Scale(higher_is_better=False, low=-6.0),
    }
)
"""Scales of the six metrics that the 2026 challenge scores, by their names in cell-eval2."""


def challenge_score(
    values: Mapping[str, float], baselines: Mapping[str, float], replicates: Mapping[str, float]
) -> dict[str, float]:
    """Rescale the six metrics of the 2026 challenge, and average them.

    Parameters
    ----------
    values
        Values of the prediction by the names of :data:`CHALLENGE_SCALES`, averaged over conditions.
    baselines
        The same of the mean response of all perturbations.
    replicates
        The same of one half of the reference cells judged by the other, averaged over splits.

    Returns
    -------
    The score of each metric, and their mean as ``"mean"``. 0 is the baseline and 1 the replicate. An undefined score
    makes the mean undefined, rather than one of fewer metrics.

    Raises
    ------
    ValueError
        If a metric is missing.

    References
    ----------
    cell-eval2 0.20.0, column ``from_replicate`` of the preset ``vcc2026``.

    Examples
    --------
    >>> ends = {metric: 1.0 - scale.higher_is_better for metric, scale in CHALLENGE_SCALES.items()}
    >>> best = {metric: 1.0 - end for metric, end in ends.items()}
    >>> challenge_score(best, ends, best)["mean"]
    1.0
    """
    for name, given in (("values", values), ("baselines", baselines), ("replicates", replicates)):
        missing = [metric for metric in CHALLENGE_SCALES if metric not in given]
        if missing:
            msg = f"Expected all six metrics in `{name}`, found none of {missing}."
            raise ValueError(msg)
    scores = {
        metric: scale.score(values[metric], baseline=baselines[metric], replicate=replicates[metric])
        for metric, scale in CHALLENGE_SCALES.items()
    }
    return scores | {"mean": float(np.mean(list(scores.values())))}
