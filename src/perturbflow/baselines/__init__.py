"""Baselines: simple predictions that a model has to beat.

Those of perturbed cells have the interface of the flow (:data:`BASELINES`), those of trajectories are functions of
training trajectories and a test trajectory (:data:`TRAJECTORY_BASELINES`) or continue an evenly sampled series
(:data:`CONTINUATIONS`), those of networks return scores (d, d), row regulates column.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from perturbflow.baselines._additive_effect import AdditiveEffect
from perturbflow.baselines._additive_hurdle import AdditiveHurdle, ShiftedControls
from perturbflow.baselines._continuations import CONTINUATIONS
from perturbflow.baselines._continuations import Continuation as Continuation
from perturbflow.baselines._continuations import constant_rate as constant_rate
from perturbflow.baselines._continuations import hold_last as hold_last
from perturbflow.baselines._continuations import observed_mean as observed_mean
from perturbflow.baselines._continuations import repeat_cycle as repeat_cycle
from perturbflow.baselines._continuations import replay_analogue as replay_analogue
from perturbflow.baselines._control_cells import ControlCells
from perturbflow.baselines._covariate_mean import CovariateMean
from perturbflow.baselines._cross_context import CrossContextEffect
from perturbflow.baselines._feature_ridge import FeatureRidge
from perturbflow.baselines._graphs import (
    correlation_graph,
    degree_graph,
    derivative_ridge_graph,
    expression_level_graph,
    partial_correlation_graph,
    random_graph,
)
from perturbflow.baselines._matching_mean import MatchingMean
from perturbflow.baselines._mean_effect import MeanEffect
from perturbflow.baselines._sampler import Sampler
from perturbflow.baselines._trajectories import FLOORS, TRAJECTORY_BASELINES
from perturbflow.baselines._trajectories import TrajectoryBaseline as TrajectoryBaseline
from perturbflow.baselines._trajectories import hold_start as hold_start
from perturbflow.baselines._trajectories import leave_one_out_smoother as leave_one_out_smoother
from perturbflow.baselines._trajectories import own_mean as own_mean
from perturbflow.baselines._trajectories import predict_zero as predict_zero
from perturbflow.baselines._trajectories import training_curve as training_curve
from perturbflow.baselines._trajectories import training_mean as training_mean

__all__ = [
    "BASELINES",
    "CONTINUATIONS",
    "FLOORS",
    "TRAJECTORY_BASELINES",
    "AdditiveEffect",
    "AdditiveHurdle",
    "ControlCells",
    "CovariateMean",
    "CrossContextEffect",
    "FeatureRidge",
    "MatchingMean",
    "MeanEffect",
    "ShiftedControls",
    "Sampler",
    "correlation_graph",
    "degree_graph",
    "derivative_ridge_graph",
    "expression_level_graph",
    "partial_correlation_graph",
    "random_graph",
]

BASELINES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "control cells": ControlCells,
        "mean effect": MeanEffect,
        "covariate mean": CovariateMean,
        "matching mean": MatchingMean,
        "cross-context effect": CrossContextEffect,
        "additive effect": AdditiveEffect,
        "feature ridge": FeatureRidge,
        "additive hurdle": AdditiveHurdle,
        "shifted controls": ShiftedControls,
    }
)
"""All baselines of perturbed cells by the name that they have in tables and plots, a read-only view."""
