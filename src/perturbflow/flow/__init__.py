"""Flow matching in gene-expression space, in pure torch: path, parametrisation, networks, prior, solver, training."""

from __future__ import annotations

from perturbflow.flow._condition import ConditionEncoder
from perturbflow.flow._data import CellData, Group
from perturbflow.flow._model import ConditionalFlow, FlowConfig
from perturbflow.flow._network import NETWORKS as NETWORKS
from perturbflow.flow._network import ResidualMLP
from perturbflow.flow._parametrisation import PARAMETRISATIONS as PARAMETRISATIONS
from perturbflow.flow._parametrisation import (
    Gaussian,
    GeneLaw,
    Parametrisation,
    Velocity,
    ZeroInflated,
)
from perturbflow.flow._path import point_on_path
from perturbflow.flow._prior import AdditiveHurdlePrior, Context, HurdleLaw
from perturbflow.flow._shrinkage import context_covariances, shrink_effects
from perturbflow.flow._solver import TABLEAUS as TABLEAUS
from perturbflow.flow._solver import Tableau, integrate
from perturbflow.flow._training import FlowTrainer, TrainingSettings

__all__ = [
    "AdditiveHurdlePrior",
    "CellData",
    "ConditionEncoder",
    "ConditionalFlow",
    "Context",
    "FlowConfig",
    "FlowTrainer",
    "Gaussian",
    "GeneLaw",
    "Group",
    "HurdleLaw",
    "Parametrisation",
    "ResidualMLP",
    "Tableau",
    "TrainingSettings",
    "Velocity",
    "ZeroInflated",
    "context_covariances",
    "integrate",
    "point_on_path",
    "shrink_effects",
]
