"""Baselines: simple predictions that a model has to beat.

Those of perturbed cells have the interface of the flow (:data:`BASELINES`), those of trajectories are functions of
training trajectories and a test trajectory (:data:`TRAJECTORY_BASELINES`) or continue an evenly sampled series
(:data:`CONTINUATIONS`), those of networks return scores (d, d), row regulates column.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from perturbflow.baselines._additive_effect import AdditiveEffect
from perturbflow.baselines._additive_hurdle import AdditiveHurdle, ShiftedControls
from perturbflow.baselines._control_shift import (
    ControlCells,
    CovariateMean,
    CrossContextEffect,
    MatchingMean,
    MeanEffect,
)
from perturbflow.baselines._graphs import (
    correlation_graph,
    degree_graph,
    derivative_ridge_graph,
    expression_level_graph,
    partial_correlation_graph,
    random_graph,
)
from perturbflow.baselines._ridge import FeatureRidge
from perturbflow.baselines._sampler import Sampler
from perturbflow.baselines._trajectories import CONTINUATIONS, FLOORS, TRAJECTORY_BASELINES

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
