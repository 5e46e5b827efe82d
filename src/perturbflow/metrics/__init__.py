"""Metrics: functions of arrays that compare predicted with real cells, and the table of them.

Cells are matrices of cells by genes, dense or sparse, on one scale (log1p-normalised expression); ``x`` is predicted,
``y`` is real. Networks are matrices of regulators by targets; their metrics compare scores of edges with a known
network, and are not in the table.

Tables of pandas are put in order by the names of their genes, conditions or regulators; other names, repeated names, and
AnnData are refused. What has one number a gene is then in the order of the first table. Arrays have no names: they are
taken as they are.

Where a metric names its source without a reference, it is PerturBench (Wu et al. 2024, PerturBench: benchmarking machine
learning models for cellular perturbation analysis, arXiv 2408.10609), cell-eval (Arc Institute, MIT licence) or cell-eval2 (0.20.0, Arc Institute).
"""

from perturbflow.metrics._calibrated import differential_weights, pearson_against_reference, weighted_mse, weighted_r2
from perturbflow.metrics._catalogue import METRICS, SUITES
from perturbflow.metrics._classifier import classifier_auroc
from perturbflow.metrics._dataset_agreement import (
    Strengths,
    pearson_of_energy_distances,
    spearman_of_numbers_of_significant_genes,
)
from perturbflow.metrics._differential_agreement import (
    agreement_of_direction,
    auroc_of_significant_genes,
    average_precision_of_significant_genes,
    overlap_of_top_genes,
    precision_of_top_genes,
    recall_of_significant_genes,
    spearman_of_log_fold_changes,
)
from perturbflow.metrics._differential_expression import DifferentialExpression
from perturbflow.metrics._directions import (
    direction_fidelity,
    direction_fidelity_yield,
    direction_reach,
    jaccard_of_significant_genes,
    relative_error_of_log_fold_changes,
)
from perturbflow.metrics._discrimination import centroid_accuracy, discrimination_score, normalised_rank
from perturbflow.metrics._effects import (
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    mae_of_mean_effects,
    mse_of_mean_effects,
    pearson_of_mean_effects,
    rmse_of_mean_effects,
)
from perturbflow.metrics._energy import energy_distance, energy_loss, mmd
from perturbflow.metrics._gene_variation import (
    agreement_of_correlations,
    error_of_correlations,
    error_of_variances,
    error_of_zero_fractions,
)
from perturbflow.metrics._moments import Moments, Panel, pseudobulk_moments
from perturbflow.metrics._network import (
    auroc,
    average_precision,
    early_precision,
    edge_density,
    network_scores,
    sign_accuracy,
    support_error,
)
from perturbflow.metrics._registry import Metric, register
from perturbflow.metrics._rescaling import challenge_score, dynamic_range_fraction
from perturbflow.metrics._response import energy_in_programs, error_of_responders, error_of_response_correlation
from perturbflow.metrics._t_scores import r2_of_scores, recall_of_top_genes
from perturbflow.metrics._unbiased_errors import pooled_unbiased_mse, unbiased_mse
from perturbflow.metrics._wasserstein import sliced_wasserstein, wasserstein_of_genes
from perturbflow.metrics._wilcoxon import WilcoxonAgainst, WilcoxonOfCounts

__all__ = [
    "METRICS",
    "SUITES",
    "DifferentialExpression",
    "Metric",
    "Moments",
    "Panel",
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
    "classifier_auroc",
    "cosine_of_log_fold_changes",
    "cosine_of_mean_effects",
    "differential_weights",
    "direction_fidelity",
    "direction_fidelity_yield",
    "direction_reach",
    "discrimination_score",
    "dynamic_range_fraction",
    "early_precision",
    "edge_density",
    "energy_distance",
    "energy_in_programs",
    "energy_loss",
    "error_of_correlations",
    "error_of_responders",
    "error_of_response_correlation",
    "error_of_variances",
    "error_of_zero_fractions",
    "jaccard_of_significant_genes",
    "mae_of_mean_effects",
    "mmd",
    "mse_of_mean_effects",
    "network_scores",
    "normalised_rank",
    "overlap_of_top_genes",
    "pearson_against_reference",
    "pearson_of_energy_distances",
    "pearson_of_mean_effects",
    "pooled_unbiased_mse",
    "precision_of_top_genes",
    "pseudobulk_moments",
    "r2_of_scores",
    "recall_of_significant_genes",
    "recall_of_top_genes",
    "register",
    "relative_error_of_log_fold_changes",
    "rmse_of_mean_effects",
    "sign_accuracy",
    "sliced_wasserstein",
    "spearman_of_log_fold_changes",
    "spearman_of_numbers_of_significant_genes",
    "support_error",
    "unbiased_mse",
    "wasserstein_of_genes",
    "weighted_mse",
    "weighted_r2",
]
