"""Choice of metrics, and what they need to know of genes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perturbflow.metrics import METRICS, SUITES, Metric
from perturbflow.screen._conditions import Vocabulary

PERTPY = {
    "edistance": "energy_distance",
    "mean_absolute_error": "mae_of_mean_effects",
    "mse": "mse_of_mean_effects",
}
"""Metrics that are called differently in `pertpy.tl.Distance`: distances to real cells, in which the controls cancel."""

NEAREST = {
    **dict.fromkeys(("euclidean", "root_mean_squared_error", "pseudobulk"), "rmse_of_mean_effects"),
    **dict.fromkeys(("classifier_proba", "classifier_cp"), "classifier_auroc"),
    **dict.fromkeys(("spearman_distance", "kendalltau_distance"), "spearman_of_log_fold_changes"),
    **dict.fromkeys(("ks_test", "sym_kldiv"), "wasserstein_of_genes"),
    **dict.fromkeys(("mean_pairwise", "nb_ll"), "energy_distance"),
    "pearson_distance": "pearson_of_mean_effects",
    "cosine_distance": "cosine_of_mean_effects",
    "r2_distance": "weighted_r2",
    "wasserstein": "sliced_wasserstein",
    "t_test": "r2_of_scores",
    "mean_var_distribution": "error_of_variances",
    "mahalanobis": "weighted_mse",
}
"""Most similar metrics to the other distances of pertpy, whose values have another meaning."""


def metrics_of(metrics: str | Sequence[str]) -> list[str]:
    """Return the names of the metrics of a suite, or names as they are; ValueError for what is unknown."""
    if isinstance(metrics, str):
        if metrics not in SUITES:
            msg = (
                f"Expected `metrics` to be a suite, one of {list(SUITES)}, or a list of names, found {metrics!r}. "
                f"For a single metric, pass a list with one name."
            )
            raise ValueError(msg)
        return list(SUITES[metrics])
    names = [PERTPY.get(name, name) for name in metrics]
    if other := [name for name in names if name in NEAREST]:
        nearest = ", ".join(f"{NEAREST[name]!r} is nearest to {name!r}" for name in other)
        msg = (
            f"Expected `metrics` of perturbflow, found distances that only pertpy has: {nearest}. Use that metric; "
            "its values have another meaning."
        )
        raise ValueError(msg)
    check_names(names, METRICS, name="metrics")
    return names


def with_base(metric: Metric, base: float | None) -> Metric:
    """Return the metric for logarithms of another base than the natural one, where it undoes them."""
    if base is None or "base" not in signature(metric.function).parameters:
        return metric
    return replace(metric, function=partial(metric.function, base=base))


def check_names(names: Sequence[str], known: Mapping[str, Any], *, name: str) -> None:
    """Refuse names that are unknown, repeated, or none at all."""
    unknown = [each for each in names if each not in known]
    if unknown or len(set(names)) < len(names) or not names:
        msg = f"Expected `{name}` to be different names from {list(known)}, found {list(names)}."
        raise ValueError(msg)


def targets_of(vocabulary: Vocabulary, genes: Sequence[str]) -> NDArray[np.bool_]:
    """Return which gene every component names (P, G): what a perturbation acts on itself is no prediction."""
    place = {gene: column for column, gene in enumerate(genes)}
    masks = np.zeros((len(vocabulary.components), len(genes)), dtype=bool)
    for row, component in enumerate(vocabulary.components):
        gene = component.split(":")[0]
        if gene in place:
            masks[row, place[gene]] = True
    return masks
