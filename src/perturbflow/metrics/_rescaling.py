"""Position of a score between a baseline and the best that the real cells allow."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


def dynamic_range_fraction(model: float, control: float, ceiling: float) -> float:
    """Share of the way from the controls to the ceiling that a prediction covers, for a metric where lower is better.

    ::

        (control - model) / (control - ceiling)

    *Direction*: higher is better. *Range*: 0 is as far from the real cells as the controls are, 1 is as close as the
    real cells are to themselves. Below 0 the prediction is worse than predicting no effect; slightly above 1 is noise
    of the ceiling.

    *Weakness*: explodes where the effect is hardly measurable, with either sign; do not average it over conditions, but
    take that of the means, in which every condition counts with the size of its effect.

    Parameters
    ----------
    model
        Score of the prediction against the real cells.
    control
        Score of the control cells against the real cells.
    ceiling
        Score of one half of the real cells against the other.

    Returns
    -------
    The fraction; NaN where ``control <= ceiling`` (the effect is not measurable with these cells) or a score is NaN.

    Examples
    --------
    >>> dynamic_range_fraction(0.3, 2.1, 0.1)
    0.9
    >>> dynamic_range_fraction(0.3, 0.1, 0.1)
    nan
    """
    span = control - ceiling
    return float((control - model) / span) if span > 0 else float("nan")


class Scale(NamedTuple):
    """Scale of a metric on which the baseline is 0 and the replicate 1, within bounds.

    A prediction without a value gets ``missing``, the worst value of the metric.
    """

    higher_is_better: bool
    low: float
    high: float
    missing: float


_SHARE = Scale(higher_is_better=True, low=-np.inf, high=np.inf, missing=0.0)

CHALLENGE_SCALES: Mapping[str, Scale] = MappingProxyType(
    {
        "pds_cosine": _SHARE,
        "expr_mse_unbiased_capped_norm": Scale(higher_is_better=False, low=0.0, high=1.0, missing=np.inf),
        "de_wilcoxon_direction_fidelity_yield_raw": _SHARE,
        "de_wilcoxon_direction_reach_raw": _SHARE,
        "de_wilcoxon_sig_jaccard": _SHARE,
        "de_wilcoxon_lfc_nmae": Scale(higher_is_better=False, low=-6.0, high=np.inf, missing=np.inf),
    }
)
"""Scales of the six metrics of the 2026 challenge, by their names in cell-eval2."""


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
    scores = {metric: _rescaled(metric, values, baselines, replicates) for metric in CHALLENGE_SCALES}
    return scores | {"mean": float(np.mean(list(scores.values())))}


def _rescaled(metric: str, *given: Mapping[str, float]) -> float:
    """Rescale a value, given beside the baseline and the replicate: the :func:`dynamic_range_fraction`, clipped.

    NaN where an end of the scale is not finite or the replicate is not better than the baseline: the metric does not tell
    them apart with this reference.
    """
    scale = CHALLENGE_SCALES[metric]
    value, *ends = (one[metric] for one in given)
    if not np.isfinite(ends).all():
        return float("nan")
    sign = -1.0 if scale.higher_is_better else 1.0
    three = (sign * one for one in (value if np.isfinite(value) else scale.missing, *ends))
    return float(np.clip(dynamic_range_fraction(*three), scale.low, scale.high))
