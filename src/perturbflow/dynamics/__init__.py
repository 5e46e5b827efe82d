"""Sparse dynamics: neural ordinary differential equations in torch, and linear ones of cells at rest."""

from __future__ import annotations

from perturbflow.dynamics._deviations import Deviation, deviations
from perturbflow.dynamics._direct_correlations import mean_rate_correlations as mean_rate_correlations
from perturbflow.dynamics._elimination import Elimination, eliminate
from perturbflow.dynamics._field import ACTIVATIONS as ACTIVATIONS
from perturbflow.dynamics._field import DenseField as DenseField
from perturbflow.dynamics._field import TargetField as TargetField
from perturbflow.dynamics._field import VectorField
from perturbflow.dynamics._field import build_field as build_field
from perturbflow.dynamics._field_config import FieldConfig
from perturbflow.dynamics._fitted import FittedDynamics
from perturbflow.dynamics._gates import expected_gates as expected_gates
from perturbflow.dynamics._gates import open_probability as open_probability
from perturbflow.dynamics._gates import sample_gates as sample_gates
from perturbflow.dynamics._guard import Guard
from perturbflow.dynamics._integrate import rk4_step as rk4_step
from perturbflow.dynamics._integrate import solve_rk4 as solve_rk4
from perturbflow.dynamics._jacobian import MeanJacobian, mean_jacobian
from perturbflow.dynamics._left_out_responses import left_out_responses
from perturbflow.dynamics._lyapunov import lyapunov_path as lyapunov_path
from perturbflow.dynamics._lyapunov import lyapunov_residual as lyapunov_residual
from perturbflow.dynamics._mean_rates import mean_rate_path as mean_rate_path
from perturbflow.dynamics._mean_rates import total_effect_probability as total_effect_probability
from perturbflow.dynamics._movement import Movement as Movement
from perturbflow.dynamics._observed_forecast import Observed, ObservedForecasts
from perturbflow.dynamics._paths import path_product as path_product
from perturbflow.dynamics._paths import path_weights as path_weights
from perturbflow.dynamics._penalties import SPARSITIES
from perturbflow.dynamics._problem import Problem as Problem
from perturbflow.dynamics._problem import Units as Units
from perturbflow.dynamics._settings import DynamicsSettings
from perturbflow.dynamics._smoothing import Smoothed, smooth
from perturbflow.dynamics._snapshot import Snapshot
from perturbflow.dynamics._snapshot_evidence import SnapshotEvidence, snapshot_evidence
from perturbflow.dynamics._snapshot_evidence import evidence_ranks as evidence_ranks
from perturbflow.dynamics._snapshot_evidence import possible_edges as possible_edges
from perturbflow.dynamics._snapshot_stability import edge_stability
from perturbflow.dynamics._sparsity import Sparsity
from perturbflow.dynamics._standing import StandingDynamics
from perturbflow.dynamics._standing_fit import fit_standing
from perturbflow.dynamics._training import DynamicsTrainer
from perturbflow.dynamics._trajectory import Trajectory

__all__ = [
    "SPARSITIES",
    "Deviation",
    "DynamicsSettings",
    "DynamicsTrainer",
    "Elimination",
    "FieldConfig",
    "FittedDynamics",
    "Guard",
    "MeanJacobian",
    "Observed",
    "ObservedForecasts",
    "Smoothed",
    "Snapshot",
    "SnapshotEvidence",
    "Sparsity",
    "StandingDynamics",
    "Trajectory",
    "VectorField",
    "deviations",
    "edge_stability",
    "eliminate",
    "fit_standing",
    "left_out_responses",
    "mean_jacobian",
    "smooth",
    "snapshot_evidence",
]
