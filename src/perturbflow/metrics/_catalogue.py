"""All metrics that predicted cells are judged by, with what is needed to read them, and suites of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

from perturbflow.metrics._calibrated import (
    differential_weights,
    pearson_against_reference,
    weighted_mse,
    weighted_r2,
)
from perturbflow.metrics._classifier import classifier_auroc
from perturbflow.metrics._dataset_agreement import pearson_of_energy_distances, spearman_of_numbers_of_significant_genes
from perturbflow.metrics._differential_agreement import (
    agreement_of_direction,
    auroc_of_significant_genes,
    average_precision_of_significant_genes,
    overlap_of_top_genes,
    precision_of_top_genes,
    recall_of_significant_genes,
    spearman_of_log_fold_changes,
)
from perturbflow.metrics._directions import (
    direction_fidelity,
    direction_fidelity_yield,
    direction_reach,
    jaccard_of_significant_genes,
    relative_error_of_log_fold_changes,
)
from perturbflow.metrics._discrimination import (
    Convention,
    Distance,
    centroid_accuracy,
    discrimination_score,
    normalised_rank,
)
from perturbflow.metrics._effects import (
    PSEUDOCOUNT,
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    mae_of_mean_effects,
    mse_of_mean_effects,
    pearson_of_mean_effects,
    rmse_of_mean_effects,
)
from perturbflow.metrics._energy import cross_energy, energy_distance, energy_loss, mmd
from perturbflow.metrics._gene_variation import (
    agreement_of_correlations,
    agreement_of_pairs,
    error_of_correlations,
    error_of_pairs,
    error_of_variances,
    error_of_zero_fractions,
)
from perturbflow.metrics._moments import Panel
from perturbflow.metrics._principal_components import cosine_in_components, cross_cosine_in_components
from perturbflow.metrics._registry import METRICS, Metric, of_pairs, register
from perturbflow.metrics._response import energy_in_programs, error_of_responders, error_of_response_correlation
from perturbflow.metrics._t_scores import r2_of_scores, recall_of_top_genes
from perturbflow.metrics._unbiased_errors import unbiased_mse
from perturbflow.metrics._wasserstein import (
    root_mean_square_distance,
    sliced_wasserstein,
    sum_of_distances,
    wasserstein_of_genes,
)
from perturbflow.screen._scale import natural_per_unit

__all__ = ["METRICS"]

PERTURBENCH = "PerturBench (Wu et al. 2024)"
CELL_EVAL = "cell-eval (Arc Institute)"
CELL_EVAL2 = "cell-eval2 (Arc Institute)"
MILLER = "Miller et al. 2025; Mejia et al. 2025"
SYSTEMA = "Systema (Vinas Torne et al. 2025)"


# Panels: a value for every condition

PanelFunction: TypeAlias = "Callable[..., NDArray[np.float64]]"


def _rank_of_log_fold_changes(panel: Panel, *, base: float | None = None) -> NDArray[np.float64]:
    means = (panel.predicted_means, panel.observed_means, panel.control.mean)
    *logs, reference = (np.log2(mean * natural_per_unit(base) + PSEUDOCOUNT) for mean in means)
    changes = [one - reference for one in logs]
    return normalised_rank(cross_cosine_in_components(*changes), higher_is_better=True)


def _rank_of_cosine_in_components(panel: Panel) -> NDArray[np.float64]:
    means = (np.stack([cells.mean(axis=0) for cells in side]) for side in panel.components)
    return normalised_rank(cross_cosine_in_components(*means), higher_is_better=True)


def _beside_others(function: PanelFunction) -> PanelFunction:
    """Decorator: a single condition has nothing to be compared with, and the value NaN."""

    @wraps(function)
    def values(panel: Panel, **options: Any) -> NDArray[np.float64]:
        return function(panel, **options) if len(panel) > 1 else np.full(len(panel), np.nan)

    return values


def _weights(panel: Panel) -> NDArray[np.float64]:
    """Weights of genes (P, G); 0, with which nothing has a value, where a condition has a single cell."""
    has_variances = panel.observed_sizes.min() > 1
    return differential_weights(panel.observed) if has_variances else np.zeros_like(panel.observed_means)


@_beside_others
def _weighted_r2(panel: Panel) -> NDArray[np.float64]:
    reference = panel.observed_sizes @ panel.observed_means / panel.observed_sizes.sum()
    return weighted_r2(panel.predicted_means, panel.observed_means, _weights(panel), reference)


@_beside_others
def _discrimination(panel: Panel, *, distance: Distance, convention: Convention) -> NDArray[np.float64]:
    effects = panel.predicted_effects, panel.observed_effects
    return discrimination_score(*effects, distance=distance, convention=convention, targets=panel.targets)


CLOUD, TESTS, COMPONENTS = (frozenset({word}) for word in ("cloud", "tests", "components"))
STRENGTHS = TESTS | {"strengths"}

LOWER, HIGHER = False, True

for _metric in (
    # Distributions
    Metric("energy_distance", energy_distance, "distribution", LOWER, 0.0,
           "Energy distance between predicted and real cells (unbiased)",
           shared=lambda one: one.cloud.energy_distance, needs=CLOUD),
    Metric("mmd", mmd, "distribution", LOWER, 0.0,
           "Squared MMD between predicted and real cells (Gaussian kernels, unbiased)",
           shared=lambda one: one.cloud.mmd, needs=CLOUD),
    Metric("wasserstein_of_genes", wasserstein_of_genes, "distribution", LOWER, 0.0,
           "Mean over genes of the Wasserstein distance between predicted and real values",
           shared=of_pairs(lambda pair: (
               sum_of_distances(pair.predicted.by_gene, pair.real.by_gene) / pair.real.cells.shape[1]))),
    Metric("sliced_wasserstein", sliced_wasserstein, "distribution", LOWER, 0.0,
           "Sliced Wasserstein distance of order 2 between predicted and real cells",
           shared=of_pairs(lambda pair: root_mean_square_distance(
               pair.predicted.sorted_projections, pair.real.sorted_projections))),
    Metric("error_of_zero_fractions", error_of_zero_fractions, "distribution", LOWER, 0.0,
           "Mean absolute error over genes of the fraction of zeros",
           shared=of_pairs(lambda pair: np.abs(pair.predicted.expressed - pair.real.expressed).mean())),
    Metric("error_of_variances", error_of_variances, "distribution", LOWER, 0.0,
           "Error of the standard deviations of genes",
           shared=of_pairs(lambda pair: error_of_variances(pair.predicted.moments, pair.real.moments))),
    Metric("agreement_of_correlations", agreement_of_correlations, "distribution", HIGHER, 1.0,
           "Correlation between predicted and real gene-gene correlations",
           shared=of_pairs(lambda pair: agreement_of_pairs(*pair.correlations))),
    Metric("error_of_correlations", error_of_correlations, "distribution", LOWER, 0.0,
           "Root mean squared error of gene-gene correlations",
           shared=of_pairs(lambda pair: error_of_pairs(*pair.correlations))),
    Metric("classifier_auroc", classifier_auroc, "distribution", LOWER, 0.5,
           "AUROC of a nearest-neighbour classifier of predicted and real cells"),
    Metric("energy_in_programs", energy_in_programs, "response", LOWER, 0.0,
           "Energy distance in the space spanned by the response and its covariation"),
    Metric("error_of_response_correlation", error_of_response_correlation, "response", LOWER, 0.0,
           "Error of the mean correlation between the 30 genes with the strongest response"),
    Metric("error_of_responders", error_of_responders, "response", LOWER, 0.0,
           "Error of the fraction of responding cells"),
    Metric("energy_loss", energy_loss, "distribution", LOWER, 0.0,
           "Half of the energy distance, including pairs of a cell with itself", f"{PERTURBENCH}: mmd_none",
           shared=lambda one: one.cloud.energy_loss, needs=CLOUD),
    Metric("energy_loss_in_components", energy_loss, "components", LOWER, 0.0,
           "The same in principal components", f"{PERTURBENCH}: mmd_pca",
           shared=of_pairs(lambda pair: pair.energy_loss_in_components())),
    # Means
    Metric("rmse_of_mean_effects", rmse_of_mean_effects, "effect", LOWER, 0.0,
           "Root mean squared error of the mean effect over genes", f"{PERTURBENCH}: rmse_average"),
    Metric("cosine_of_mean_effects", cosine_of_mean_effects, "effect", HIGHER, 1.0,
           "Cosine similarity of the mean effects over genes"),
    Metric("pearson_of_mean_effects", pearson_of_mean_effects, "effect", HIGHER, 1.0,
           "Correlation of the mean effects over genes", f"{CELL_EVAL}: pearson_delta"),
    Metric("mse_of_mean_effects", mse_of_mean_effects, "effect", LOWER, 0.0,
           "Mean squared error of the mean effect", f"{CELL_EVAL}: mse, mse_delta"),
    Metric("mae_of_mean_effects", mae_of_mean_effects, "effect", LOWER, 0.0,
           "Mean absolute error of the mean effect", f"{CELL_EVAL}: mae, mae_delta"),
    Metric("cosine_of_log_fold_changes", cosine_of_log_fold_changes, "effect", HIGHER, 1.0,
           "Cosine similarity of the log2 fold changes of log expression over genes", f"{PERTURBENCH}: cosine_logfc"),
    Metric("cosine_in_components", lambda x, y: float(cosine_in_components(x.mean(axis=0), y.mean(axis=0))),
           "components", HIGHER, 1.0,
           "Cosine similarity of the means in principal components", f"{PERTURBENCH}: cosine_pca_average"),
    # Genes
    Metric("recall_of_top_genes", recall_of_top_genes, "effect", HIGHER, 1.0,
           "Fraction of the 50 most changed genes that are among the predicted 50",
           f"{PERTURBENCH}: top_k_recall_scores"),
    Metric("overlap_of_top_genes", overlap_of_top_genes, "differential", HIGHER, 1.0,
           "Overlap of the significant genes with equally many predicted ones", f"{CELL_EVAL}: overlap_at_N"),
    Metric("precision_of_top_genes", precision_of_top_genes, "differential", HIGHER, 1.0,
           "Overlap of the predicted significant genes with equally many real ones", f"{CELL_EVAL}: precision_at_N"),
    Metric("recall_of_significant_genes", recall_of_significant_genes, "differential", HIGHER, 1.0,
           "Fraction of the significant genes that are predicted to be significant", f"{CELL_EVAL}: de_sig_genes_recall"),
    Metric("jaccard_of_significant_genes", jaccard_of_significant_genes, "differential", HIGHER, 1.0,
           "Jaccard index of the significant genes", f"{CELL_EVAL2}: de_wilcoxon_sig_jaccard"),
    Metric("average_precision_of_significant_genes", average_precision_of_significant_genes, "differential", HIGHER,
           1.0, "Average precision of significant genes by predicted p-values", f"{CELL_EVAL}: pr_auc"),
    Metric("auroc_of_significant_genes", auroc_of_significant_genes, "differential", HIGHER, 1.0,
           "AUROC of significant genes by predicted p-values", f"{CELL_EVAL}: roc_auc"),
    Metric("agreement_of_direction", agreement_of_direction, "differential", HIGHER, 1.0,
           "Fraction of the significant genes predicted with the right sign", f"{CELL_EVAL}: de_direction_match"),
    Metric("spearman_of_log_fold_changes", spearman_of_log_fold_changes, "differential", HIGHER, 1.0,
           "Rank correlation of fold changes of the significant genes", f"{CELL_EVAL}: de_spearman_lfc_sig"),
    Metric("relative_error_of_log_fold_changes", relative_error_of_log_fold_changes, "differential", LOWER, 0.0,
           "Absolute error of fold changes relative to their size", f"{CELL_EVAL2}: de_wilcoxon_lfc_nmae"),
    Metric("direction_fidelity_yield", direction_fidelity_yield, "differential", HIGHER, 1.0,
           "Significant genes with the right direction, among predicted and real ones",
           f"{CELL_EVAL2}: de_wilcoxon_direction_fidelity_yield_raw"),
    Metric("direction_reach", direction_reach, "differential", HIGHER, 1.0,
           "Depth in the list of real genes to which directions are right", f"{CELL_EVAL2}: de_wilcoxon_direction_reach_raw"),
    Metric("direction_fidelity", direction_fidelity, "differential", HIGHER, 1.0,
           "Fraction of the predicted significant genes with the right sign", f"{CELL_EVAL2}: de_wilcoxon_direction_fidelity"),
    Metric("r2_of_scores", r2_of_scores, "effect", HIGHER, 1.0,
           "R2 of the t-scores of genes", f"{PERTURBENCH}: r2_score_scores, the other way round"),
    # Panels
    Metric("normalised_rank",
           lambda panel: normalised_rank(
               cdist(panel.predicted_means, panel.observed_means, "sqeuclidean"), higher_is_better=False),
           "panel", LOWER, 0.0,
           "Rank of the prediction among those of all conditions (0 best, 0.5 random)",
           f"{PERTURBENCH}: rmse_rank_average"),
    Metric("rank_of_log_fold_changes", _rank_of_log_fold_changes, "panel", LOWER, 0.0,
           "The same rank by the cosine similarity of log fold changes", f"{PERTURBENCH}: cosine_logfc_rank"),
    Metric("rank_of_cosine_in_components", _rank_of_cosine_in_components, "panel", LOWER, 0.0,
           "The same rank by the cosine similarity in principal components", f"{PERTURBENCH}: cosine_pca_rank_average",
           needs=COMPONENTS),
    Metric("rank_of_energy_in_components",
           lambda panel: normalised_rank(cross_energy(*panel.components, unbiased=False), higher_is_better=False),
           "panel", LOWER, 0.0,
           "The same rank by the energy loss in principal components", f"{PERTURBENCH}: mmd_pca_rank",
           needs=COMPONENTS),
    Metric("centroid_accuracy", lambda panel: centroid_accuracy(panel.predicted_means, panel.observed_means),
           "panel", HIGHER, 1.0,
           "Fraction of other conditions that are farther from the prediction than the right one", SYSTEMA),
    *(
        Metric(f"discrimination_score_{distance}", partial(_discrimination, distance=distance, convention="cell_eval"),
               "panel", HIGHER, 1.0, f"Rank of the right condition among all by {distance} distance",
               f"{CELL_EVAL}: discrimination_score_{distance}")
        for distance in ("l1", "l2", "cosine")
    ),
    Metric("discrimination_score", partial(_discrimination, distance="cosine", convention="cell_eval2"),
           "panel", HIGHER, 1.0, "Rank of the right condition by cosine similarity, without the targeted genes",
           f"{CELL_EVAL2}: pds_cosine"),
    Metric("weighted_mse", _beside_others(
           lambda panel: weighted_mse(panel.predicted_means, panel.observed_means, _weights(panel))),
           "panel", LOWER, 0.0,
           "Squared error over genes, weighted by how specific they are to the condition", MILLER),
    Metric("weighted_r2", _weighted_r2, "panel", HIGHER, 1.0,
           "Weighted R2 relative to the mean of all perturbed cells", MILLER),
    Metric("pearson_against_centroids", _beside_others(lambda panel: pearson_against_reference(
           panel.predicted_means, panel.observed_means, panel.observed_means.mean(axis=0))),
           "panel", HIGHER, 1.0,
           "Correlation of the differences from the mean of all perturbations", SYSTEMA),
    Metric("unbiased_mse", unbiased_mse, "panel", LOWER, 0.0,
           "Squared error of the mean, corrected for sampling noise", f"{CELL_EVAL2}: expr_mse_unbiased"),
    Metric("unbiased_mse_capped", partial(unbiased_mse, capped=True), "panel", LOWER, 0.0,
           "The same, with a correction that the dispersion of the prediction cannot inflate", f"{CELL_EVAL2}: expr_mse_unbiased_capped"),
    # All conditions of a split
    Metric("spearman_of_numbers_of_significant_genes", spearman_of_numbers_of_significant_genes, "dataset", HIGHER, 1.0,
           "Rank correlation of the numbers of significant genes", f"{CELL_EVAL}: de_spearman_sig",
           needs=TESTS),
    Metric("pearson_of_energy_distances", pearson_of_energy_distances, "dataset", HIGHER, 1.0,
           "Correlation of the energy distances to the controls", f"{CELL_EVAL}: pearson_edistance",
           needs=STRENGTHS),
):  # fmt: skip
    register(_metric)


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
"""Names of metrics by suite (read-only)."""
