"""Scores between a negative and a positive control, and the positive control of metrics of means."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturbflow.metrics._dynamic_range import dynamic_range_fraction, pooled_dynamic_range_fraction
from perturbflow.screen._named_arrays import by_name, real_numbers


@by_name("conditions", "genes", of=("duplicate_mean", "dataset_mean", "p_values"))
def interpolated_duplicate(
    duplicate_mean: ArrayLike, dataset_mean: ArrayLike, p_values: ArrayLike
) -> NDArray[np.float64]:
    """Mean of a second half of a condition's own cells where it is certain, of all perturbed cells where it is not.

    ::

        a_g * duplicate_mean_g + (1 - a_g) * dataset_mean_g,    a_g = 1 - p_g

    A positive control for metrics of means: the mean of a second half alone carries its sampling noise in every gene,
    and for weak effects loses to the mean of all perturbations.

    Parameters
    ----------
    duplicate_mean
        Mean of cells of the condition that are not those judged against, shape (G,) or (P, G).
    dataset_mean
        Mean over the other perturbed cells, of the same shape or (G,).
    p_values
        Adjusted p-values of the genes of the second half against the rest, of the same shape or (G,); NaN counts as 1.

    Returns
    -------
    The profiles, of the shape of ``duplicate_mean``.

    Raises
    ------
    ValueError
        If p-values are not between 0 and 1, or shapes disagree.

    References
    ----------
    Miller et al. (2025), Deep learning-based genetic perturbation models do outperform uninformative baselines on
    well-calibrated metrics, bioRxiv 10.1101/2025.10.20.683304.

    Examples
    --------
    >>> interpolated_duplicate([2.0, 2.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.25, 1.0])
    array([2. , 1.5, 0. ])
    """
    duplicate = real_numbers(duplicate_mean, name="duplicate_mean")
    dataset = real_numbers(dataset_mean, name="dataset_mean")
    p = np.nan_to_num(real_numbers(p_values, name="p_values"), nan=1.0)
    for name, array in (("dataset_mean", dataset), ("p_values", p)):
        if array.shape not in {duplicate.shape, duplicate.shape[-1:]}:
            msg = (
                f"Expected `{name}` to have the shape of `duplicate_mean`, {duplicate.shape}, or of its genes, "
                f"found {array.shape}."
            )
            raise ValueError(msg)
    if ((p < 0) | (p > 1)).any():
        msg = f"Expected `p_values` between 0 and 1, found {p.min():.3g} to {p.max():.3g}."
        raise ValueError(msg)
    return (1.0 - p) * duplicate + p * dataset


@by_name("conditions", of=("models", "negatives", "positives"))
def calibrated_score(
    models: ArrayLike, negatives: ArrayLike, positives: ArrayLike, *, higher_is_better: bool
) -> NDArray[np.float64]:
    """Where the score of a model lies between those of a negative and of a positive control, per condition.

    ``(model - negative) / (positive - negative)``: :func:`dynamic_range_fraction` for any metric.

    *Direction*: higher is better, whatever the metric. *Range*: 0 is the negative control, 1 the positive one; not
    bounded.

    *Weakness*: explodes where the two controls are close; average over conditions with
    :func:`pooled_calibrated_score`.

    Parameters
    ----------
    models
        Scores of the predictions (P,).
    negatives
        Scores of the negative control, such as the mean of the other perturbations (P,).
    positives
        Scores of the positive control, such as :func:`interpolated_duplicate` (P,).
    higher_is_better
        Whether large scores of the metric are good.

    Returns
    -------
    The calibrated scores (P,); NaN where the positive control is no better than the negative one (the condition is not
    measurable with these cells) or a score is NaN.

    Raises
    ------
    ValueError
        If the three are not equally long and non-empty.

    Notes
    -----
    The dynamic-range fraction of a *metric* (Miller et al.) is this with the positive control as the model and a
    perfect prediction as the positive control.

    References
    ----------
    Miller et al. (2025), bioRxiv 10.1101/2025.10.20.683304.

    Examples
    --------
    >>> calibrated_score([0.5, 0.9], [0.1, 0.8], [0.9, 0.7], higher_is_better=True)
    array([0.5, nan])
    """
    scores = _lower_is_better(models, negatives, positives, higher_is_better=higher_is_better)
    return np.array([dynamic_range_fraction(*map(float, one)) for one in scores.T])


@by_name("conditions", of=("models", "negatives", "positives"))
def pooled_calibrated_score(
    models: ArrayLike, negatives: ArrayLike, positives: ArrayLike, *, higher_is_better: bool
) -> float:
    """Where a model lies between a negative and a positive control over all conditions, as a ratio of means.

    ``(mean(models) - mean(negatives)) / (mean(positives) - mean(negatives))``:
    :func:`pooled_dynamic_range_fraction` for any metric, over the conditions in which all three scores are defined.

    *Direction*: higher is better, whatever the metric. *Range*: 0 is the negative control, 1 the positive one; not
    bounded. *Weakness*: the conditions with the largest effects decide.

    Parameters
    ----------
    models
        Scores of the predictions (P,).
    negatives
        Scores of the negative control (P,).
    positives
        Scores of the positive control (P,).
    higher_is_better
        Whether large scores of the metric are good.

    Returns
    -------
    The calibrated score; NaN where the positive control is on average no better than the negative one, or there is no
    condition with three finite scores.

    Raises
    ------
    ValueError
        If the three are not equally long and non-empty.

    Examples
    --------
    >>> pooled_calibrated_score([0.5, 0.9], [0.1, 0.8], [0.9, 0.7], higher_is_better=True).__round__(6)
    0.714286
    """
    scores = _lower_is_better(models, negatives, positives, higher_is_better=higher_is_better)
    scores = scores[:, np.isfinite(scores).all(axis=0)]
    return pooled_dynamic_range_fraction(*scores) if scores.size else float("nan")


def _lower_is_better(*scores: ArrayLike, higher_is_better: bool) -> NDArray[np.float64]:
    """Scores of the models and of the two controls as rows (3, P), signed so that low is good."""
    rows = [
        real_numbers(one, name=name) for name, one in zip(("models", "negatives", "positives"), scores, strict=True)
    ]
    shapes = [row.shape for row in rows]
    if len(set(shapes)) > 1 or rows[0].ndim != 1 or rows[0].size == 0:
        msg = (
            "Expected one score per condition in each of `models`, `negatives` and `positives`, "
            f"found shapes {', '.join(map(str, shapes))}."
        )
        raise ValueError(msg)
    return np.stack(rows) * (-1.0 if higher_is_better else 1.0)
