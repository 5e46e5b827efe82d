"""Sparse dynamics: neural ordinary differential equations in torch, and linear ones of cells at rest."""

from perturbflow.dynamics._elimination import Backward as Backward
from perturbflow.dynamics._elimination import Elimination as Elimination
from perturbflow.dynamics._field import ACTIVATIONS as ACTIVATIONS
from perturbflow.dynamics._field import DenseField as DenseField
from perturbflow.dynamics._field import MeanJacobian
from perturbflow.dynamics._field import TargetField as TargetField
from perturbflow.dynamics._field import VectorField as VectorField
from perturbflow.dynamics._field import build_field as build_field
from perturbflow.dynamics._field import mean_jacobian as mean_jacobian
from perturbflow.dynamics._fitted import FittedDynamics
from perturbflow.dynamics._integrate import Guard as Guard
from perturbflow.dynamics._integrate import rk4_step as rk4_step
from perturbflow.dynamics._integrate import solve_rk4 as solve_rk4
from perturbflow.dynamics._lyapunov import lyapunov_path as lyapunov_path
from perturbflow.dynamics._lyapunov import lyapunov_residual as lyapunov_residual
from perturbflow.dynamics._mean_rates import mean_rate_correlations as mean_rate_correlations
from perturbflow.dynamics._mean_rates import mean_rate_path as mean_rate_path
from perturbflow.dynamics._mean_rates import total_effect_probability as total_effect_probability
from perturbflow.dynamics._movement import Movement as Movement
from perturbflow.dynamics._observed_forecast import Observed, ObservedForecasts
from perturbflow.dynamics._penalties import SPARSITIES
from perturbflow.dynamics._penalties import Sparsity as Sparsity
from perturbflow.dynamics._penalties import expected_gates as expected_gates
from perturbflow.dynamics._penalties import open_probability as open_probability
from perturbflow.dynamics._penalties import path_product as path_product
from perturbflow.dynamics._penalties import path_strengths as path_strengths
from perturbflow.dynamics._penalties import path_weights as path_weights
from perturbflow.dynamics._penalties import sample_gates as sample_gates
from perturbflow.dynamics._problem import Problem as Problem
from perturbflow.dynamics._problem import Units as Units
from perturbflow.dynamics._settings import DynamicsSettings, FieldConfig
from perturbflow.dynamics._smoothing import Smoothed, smooth
from perturbflow.dynamics._snapshot import Snapshot
from perturbflow.dynamics._snapshot_evidence import SnapshotEvidence, edge_stability, snapshot_evidence
from perturbflow.dynamics._snapshot_evidence import evidence_ranks as evidence_ranks
from perturbflow.dynamics._snapshot_evidence import possible_edges as possible_edges
from perturbflow.dynamics._standing import StandingDynamics
from perturbflow.dynamics._standing_fit import fit_standing, left_out_responses
from perturbflow.dynamics._training import DynamicsTrainer
from perturbflow.dynamics._trajectory import Trajectory

__all__ = [
    "SPARSITIES",
    "DynamicsSettings",
    "DynamicsTrainer",
    "FieldConfig",
    "FittedDynamics",
    "MeanJacobian",
    "Observed",
    "ObservedForecasts",
    "Smoothed",
    "Snapshot",
    "SnapshotEvidence",
    "StandingDynamics",
    "Trajectory",
    "edge_stability",
    "fit_standing",
    "left_out_responses",
    "smooth",
    "snapshot_evidence",
]
