"""Metrics: functions of arrays that compare predicted with real cells, and the table of them.

Cells are matrices of cells by genes, dense or sparse, on one scale (log1p-normalised expression); ``x`` is predicted,
``y`` is real. Networks are matrices of regulators by targets; their metrics compare scores of edges with a known
network, and are not in the table.

Tables of pandas are put in order by the names of their genes, conditions or regulators; other names, repeated names, and
AnnData are refused. What has one number a gene is then in the order of the first table. Arrays have no names: they are
taken as they are.
"""

from __future__ import annotations

from perturbflow.metrics._calibrated import differential_weights, pearson_against_reference, weighted_mse, weighted_r2
from perturbflow.metrics._calibrated_scale import interpolated_duplicate
from perturbflow.metrics._catalogue import METRICS
from perturbflow.metrics._classifier import classifier_auroc
from perturbflow.metrics._clustering_agreement import clustering_agreement
from perturbflow.metrics._correlations import agreement_of_correlations, error_of_correlations
from perturbflow.metrics._count_tests import WilcoxonOfCounts
from perturbflow.metrics._covariances import concordance_of_correlations, leading_eigenvalue_ratio
from perturbflow.metrics._cross_energy import cross_energy
from perturbflow.metrics._differential import recall_of_top_genes
from perturbflow.metrics._differential_agreement import (
    agreement_of_direction,
    numbers_of_significant_genes,
    overlap_of_top_genes,
    precision_of_top_genes,
    recall_of_significant_genes,
    spearman_of_log_fold_changes,
)
from perturbflow.metrics._differential_expression import DifferentialExpression, log_fold_change, t_scores
from perturbflow.metrics._differential_scores import (
    auroc_of_significant_genes,
    average_precision_of_significant_genes,
    r2_of_scores,
)
from perturbflow.metrics._directions import (
    direction_fidelity,
    direction_fidelity_yield,
    direction_reach,
    direction_yield,
)
from perturbflow.metrics._discrimination import centroid_accuracy, discrimination_score
from perturbflow.metrics._dynamic_range import dynamic_range_fraction, pooled_dynamic_range_fraction
from perturbflow.metrics._effects import (
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    rmse_mean,
    rmse_of_log_fold_changes,
    rmse_of_mean_effects,
)
from perturbflow.metrics._energy import energy_distance
from perturbflow.metrics._energy_test import EnergyTest, energy_test
from perturbflow.metrics._errors import (
    mae_of_mean_effects,
    mae_of_means,
    mse_of_mean_effects,
    mse_of_means,
    pearson_of_mean_effects,
)
from perturbflow.metrics._marginals import error_of_variances, error_of_zero_fractions
from perturbflow.metrics._mmd import mmd
from perturbflow.metrics._moments import Moments
from perturbflow.metrics._network import auroc, average_precision, early_precision, sign_accuracy
from perturbflow.metrics._network_support import (
    edge_density,
    network_scores,
    structural_hamming_distance,
    support_error,
)
from perturbflow.metrics._panel import Panel, Strengths
from perturbflow.metrics._perturbench_energy import energy_loss
from perturbflow.metrics._principal_components import (
    PrincipalComponents,
    cosine_in_components,
    cross_cosine_in_components,
)
from perturbflow.metrics._pseudobulk import pseudobulk_moments
from perturbflow.metrics._rank import normalised_rank
from perturbflow.metrics._registry import Metric, register
from perturbflow.metrics._rescaling import CHALLENGE_SCALES, Scale, challenge_score
from perturbflow.metrics._responders import error_of_responders, fraction_of_responders
from perturbflow.metrics._response_programs import (
    correlation_of_response,
    energy_in_programs,
    error_of_response_correlation,
)
from perturbflow.metrics._screen_agreement import pearson_of_energy_distances, spearman_of_numbers_of_significant_genes
from perturbflow.metrics._significance import jaccard_of_significant_genes, relative_error_of_log_fold_changes
from perturbflow.metrics._suites import SUITES
from perturbflow.metrics._unbiased_errors import (
    pooled_unbiased_mse,
    unbiased_effect_sizes,
    unbiased_mse,
    unbiased_mses,
)
from perturbflow.metrics._uncertainty import (
    interval_coverage,
)
from perturbflow.metrics._wasserstein import sliced_wasserstein, wasserstein_of_genes
from perturbflow.metrics._wilcoxon import WilcoxonAgainst, wilcoxon

__all__ = [
    "error_of_response_correlation",
    "energy_in_programs",
    "correlation_of_response",
    "fraction_of_responders",
    "error_of_responders",
    "classifier_auroc",
    "CHALLENGE_SCALES",
    "METRICS",
    "SUITES",
    "DifferentialExpression",
    "EnergyTest",
    "Metric",
    "Moments",
    "Panel",
    "PrincipalComponents",
    "Scale",
    "Strengths",
    "WilcoxonAgainst",
    "WilcoxonOfCounts",
    "agreement_of_correlations",
    "agreement_of_direction",
    "auroc",
    "auroc_of_significant_genes",
    "average_precision",
    "average_precision_of_significant_genes",
    "centroid_accuracy",
    "challenge_score",
    "clustering_agreement",
    "concordance_of_correlations",
    "cosine_in_components",
    "cosine_of_log_fold_changes",
    "cosine_of_mean_effects",
    "cross_cosine_in_components",
    "cross_energy",
    "differential_weights",
    "direction_fidelity",
    "direction_fidelity_yield",
    "direction_reach",
    "direction_yield",
    "discrimination_score",
    "dynamic_range_fraction",
    "early_precision",
    "edge_density",
    "energy_distance",
    "energy_loss",
    "energy_test",
    "error_of_correlations",
    "error_of_variances",
    "error_of_zero_fractions",
    "interpolated_duplicate",
    "interval_coverage",
    "jaccard_of_significant_genes",
    "leading_eigenvalue_ratio",
    "log_fold_change",
    "mae_of_mean_effects",
    "mae_of_means",
    "mmd",
    "mse_of_mean_effects",
    "mse_of_means",
    "network_scores",
    "normalised_rank",
    "numbers_of_significant_genes",
    "overlap_of_top_genes",
    "pearson_against_reference",
    "pearson_of_energy_distances",
    "pearson_of_mean_effects",
    "pooled_dynamic_range_fraction",
    "pooled_unbiased_mse",
    "precision_of_top_genes",
    "pseudobulk_moments",
    "r2_of_scores",
    "recall_of_significant_genes",
    "recall_of_top_genes",
    "register",
    "relative_error_of_log_fold_changes",
    "rmse_mean",
    "rmse_of_log_fold_changes",
    "rmse_of_mean_effects",
    "sign_accuracy",
    "sliced_wasserstein",
    "spearman_of_log_fold_changes",
    "spearman_of_numbers_of_significant_genes",
    "structural_hamming_distance",
    "support_error",
    "t_scores",
    "unbiased_effect_sizes",
    "unbiased_mse",
    "unbiased_mses",
    "wasserstein_of_genes",
    "weighted_mse",
    "weighted_r2",
    "wilcoxon",
]
