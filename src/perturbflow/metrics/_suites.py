"""Suites: metrics that are usually computed together."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from perturbflow.metrics._catalogue import METRICS

_PERTURBENCH = (
    "rmse_of_mean_effects",
    "normalised_rank",
    "cosine_in_components",
    "rank_of_cosine_in_components",
    "cosine_of_log_fold_changes",
    "rank_of_log_fold_changes",
    "r2_of_scores",
    "recall_of_top_genes",
    "energy_loss",
    "energy_loss_in_components",
    "rank_of_energy_in_components",
)
_CELL_EVAL = (
    "pearson_of_mean_effects",
    "mse_of_mean_effects",
    "mae_of_mean_effects",
    "discrimination_score_l1",
    "discrimination_score_l2",
    "discrimination_score_cosine",
    "overlap_of_top_genes",
    "precision_of_top_genes",
    "recall_of_significant_genes",
    "agreement_of_direction",
    "spearman_of_log_fold_changes",
    "average_precision_of_significant_genes",
    "auroc_of_significant_genes",
    "spearman_of_numbers_of_significant_genes",
    "pearson_of_energy_distances",
)
_CELL_EVAL2 = (
    "discrimination_score",
    "unbiased_mse_capped",
    "direction_fidelity_yield",
    "direction_reach",
    "jaccard_of_significant_genes",
    "relative_error_of_log_fold_changes",
)
_CALIBRATED = ("weighted_mse", "weighted_r2", "pearson_against_centroids", "centroid_accuracy")
_RESPONSE = ("energy_in_programs", "error_of_response_correlation", "error_of_responders")
_DISTRIBUTION = (
    "energy_distance",
    "mmd",
    "sliced_wasserstein",
    "wasserstein_of_genes",
    "error_of_zero_fractions",
    "error_of_variances",
    "error_of_correlations",
    "agreement_of_correlations",
    "classifier_auroc",
    *_RESPONSE,
)

SUITES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "default": (
            "energy_distance",
            "mmd",
            "rmse_of_mean_effects",
            "pearson_of_mean_effects",
            "cosine_of_mean_effects",
            "weighted_r2",
            "pearson_against_centroids",
            "normalised_rank",
            "recall_of_top_genes",
            "overlap_of_top_genes",
            "jaccard_of_significant_genes",
            "agreement_of_direction",
            "spearman_of_numbers_of_significant_genes",
            "error_of_zero_fractions",
            "error_of_variances",
            "agreement_of_correlations",
            *_RESPONSE,
        ),
        "perturbench": _PERTURBENCH,
        "cell_eval": _CELL_EVAL,
        "vcc": ("mae_of_mean_effects", "discrimination_score_l1", "overlap_of_top_genes"),
        "vcc2026": _CELL_EVAL2,
        "calibrated": _CALIBRATED,
        "distribution": _DISTRIBUTION,
        "all": tuple(METRICS),
    }
)
"""Names of metrics by suite, a read-only view."""
