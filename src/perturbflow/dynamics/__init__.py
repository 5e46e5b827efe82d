"""Sparse dynamics: neural ordinary differential equations in torch, and linear ones of cells at rest."""

from __future__ import annotations

from perturbflow.dynamics._deviations import Deviation, deviations
from perturbflow.dynamics._direct_correlations import mean_rate_correlations
from perturbflow.dynamics._elimination import Elimination, eliminate
from perturbflow.dynamics._field import ACTIVATIONS, DenseField, TargetField, VectorField, build_field
from perturbflow.dynamics._field_config import FieldConfig
from perturbflow.dynamics._fitted import FittedDynamics
from perturbflow.dynamics._gates import expected_gates, open_probability, sample_gates
from perturbflow.dynamics._guard import Guard
from perturbflow.dynamics._integrate import rk4_step, solve_rk4
from perturbflow.dynamics._jacobian import MeanJacobian, mean_jacobian
from perturbflow.dynamics._left_out_responses import left_out_responses
from perturbflow.dynamics._lyapunov import lyapunov_path, lyapunov_residual
from perturbflow.dynamics._mean_rates import mean_rate_path, total_effect_probability
from perturbflow.dynamics._movement import Movement
from perturbflow.dynamics._observed_forecast import Observed, ObservedForecasts
from perturbflow.dynamics._paths import path_product, path_weights
from perturbflow.dynamics._penalties import SPARSITIES
from perturbflow.dynamics._problem import Problem, Units
from perturbflow.dynamics._settings import DynamicsSettings
from perturbflow.dynamics._smoothing import Smoothed, smooth
from perturbflow.dynamics._snapshot import Snapshot
from perturbflow.dynamics._snapshot_evidence import SnapshotEvidence, evidence_ranks, possible_edges, snapshot_evidence
from perturbflow.dynamics._snapshot_stability import edge_stability
from perturbflow.dynamics._sparsity import Sparsity
from perturbflow.dynamics._standing import StandingDynamics
from perturbflow.dynamics._standing_fit import fit_standing
from perturbflow.dynamics._training import DynamicsTrainer
from perturbflow.dynamics._trajectory import Trajectory

__all__ = [
    "ACTIVATIONS",
    "SPARSITIES",
    "DenseField",
    "Deviation",
    "DynamicsSettings",
    "DynamicsTrainer",
    "Elimination",
    "FieldConfig",
    "FittedDynamics",
    "Guard",
    "MeanJacobian",
    "Movement",
    "Observed",
    "ObservedForecasts",
    "Problem",
    "Smoothed",
    "Snapshot",
    "SnapshotEvidence",
    "Sparsity",
    "StandingDynamics",
    "TargetField",
    "Trajectory",
    "Units",
    "VectorField",
    "build_field",
    "deviations",
    "edge_stability",
    "eliminate",
    "expected_gates",
    "evidence_ranks",
    "fit_standing",
    "left_out_responses",
    "lyapunov_path",
    "lyapunov_residual",
    "mean_jacobian",
    "mean_rate_correlations",
    "mean_rate_path",
    "open_probability",
    "path_product",
    "path_weights",
    "possible_edges",
    "rk4_step",
    "sample_gates",
    "smooth",
    "snapshot_evidence",
    "solve_rk4",
    "total_effect_probability",
]
