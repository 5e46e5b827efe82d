"""Metrics: functions of arrays that compare predicted with real cells, and the table of them.

Cells are matrices of cells by genes, dense or sparse, on one scale (log1p-normalised expression); ``x`` is predicted,
``y`` is real. Networks are matrices of regulators by targets; their metrics compare scores of edges with a known
network, and are not in the table.
"""

from __future__ import annotations

from perturbflow.metrics._differential import recall_of_top_genes
from perturbflow.metrics._dynamic_range import dynamic_range_fraction, pooled_dynamic_range_fraction, split_half
from perturbflow.metrics._effects import (
    cosine_of_log_fold_changes,
    cosine_of_mean_effects,
    rmse_mean,
    rmse_of_log_fold_changes,
    rmse_of_mean_effects,
)
from perturbflow.metrics._energy import energy_distance
from perturbflow.metrics._mmd import mmd
from perturbflow.metrics._network import auroc, average_precision, early_precision, sign_accuracy
from perturbflow.metrics._network_support import (
    edge_density,
    network_scores,
    structural_hamming_distance,
    support_error,
)
from perturbflow.metrics._rank import normalised_rank
from perturbflow.metrics._registry import METRICS, Metric, register

__all__ = [
    "METRICS",
    "Metric",
    "auroc",
    "average_precision",
    "cosine_of_log_fold_changes",
    "cosine_of_mean_effects",
    "dynamic_range_fraction",
    "early_precision",
    "edge_density",
    "energy_distance",
    "mmd",
    "network_scores",
    "normalised_rank",
    "pooled_dynamic_range_fraction",
    "recall_of_top_genes",
    "register",
    "rmse_mean",
    "rmse_of_log_fold_changes",
    "rmse_of_mean_effects",
    "sign_accuracy",
    "split_half",
    "structural_hamming_distance",
    "support_error",
]
