"""Baselines with the interface of the flow: simple predictions that a model has to beat."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from perturbflow.baselines._additive_effect import AdditiveEffect
from perturbflow.baselines._additive_hurdle import AdditiveHurdle, MovedControls
from perturbflow.baselines._control_cells import ControlCells
from perturbflow.baselines._covariate_mean import CovariateMean
from perturbflow.baselines._mean_effect import MeanEffect
from perturbflow.baselines._sampler import Sampler

__all__ = [
    "BASELINES",
    "AdditiveEffect",
    "AdditiveHurdle",
    "ControlCells",
    "CovariateMean",
    "MeanEffect",
    "MovedControls",
    "Sampler",
]

BASELINES: Mapping[str, type[Any]] = MappingProxyType(
    {
        "control cells": ControlCells,
        "mean effect": MeanEffect,
        "covariate mean": CovariateMean,
        "additive effect": AdditiveEffect,
        "additive hurdle": AdditiveHurdle,
        "moved controls": MovedControls,
    }
)
"""All baselines by the name that they have in tables and plots, a read-only view."""
