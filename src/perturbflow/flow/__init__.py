"""Flow matching in gene-expression space, in pure torch: path, parametrisation, networks, prior, solver, training."""

from __future__ import annotations

from perturbflow.flow._batches import DeviceRows as DeviceRows
from perturbflow.flow._batches import TrainingConditions as TrainingConditions
from perturbflow.flow._calibration import Calibration
from perturbflow.flow._condition import ConditionEncoder
from perturbflow.flow._config import FlowConfig
from perturbflow.flow._data import CellData
from perturbflow.flow._denoiser_solver import follow_expectation
from perturbflow.flow._embedding import VelocityNetwork
from perturbflow.flow._exact_zeros import zero_thresholds
from perturbflow.flow._gene_networks import GeneNetworks
from perturbflow.flow._group_sums import GroupSums
from perturbflow.flow._grouping import Group, Grouping
from perturbflow.flow._law_uncertainty import LawUncertainty
from perturbflow.flow._model import PREDICTION_SETTINGS as PREDICTION_SETTINGS
from perturbflow.flow._model import ConditionalFlow
from perturbflow.flow._network import NETWORKS as NETWORKS
from perturbflow.flow._network import ResidualMLP
from perturbflow.flow._objective import draw_path, flow_matching_errors, seed_of_step
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
from perturbflow.flow._response_factor import ResponseFactor
from perturbflow.flow._responses import Responses
from perturbflow.flow._settings import TrainingSettings
from perturbflow.flow._shrinkage import context_covariances, shrink_effects
from perturbflow.flow._solver import ADAPTIVE_METHODS as ADAPTIVE_METHODS
from perturbflow.flow._solver import METHODS as METHODS
from perturbflow.flow._solver import TABLEAUS as TABLEAUS
from perturbflow.flow._solver import CountedField, Tableau, integrate
from perturbflow.flow._support import GeneSupport
from perturbflow.flow._token_unet import TokenUNet
from perturbflow.flow._uncertainty import KINDS as KINDS
from perturbflow.flow._uncertainty import condition_kind, mean_expression
from perturbflow.flow._unet import UNet

__all__ = [
    "AdditiveHurdlePrior",
    "Calibration",
    "CellData",
    "ConditionEncoder",
    "ConditionalFlow",
    "CountedField",
    "Context",
    "FlowConfig",
    "Gaussian",
    "GeneLaw",
    "GeneNetworks",
    "GeneSupport",
    "Group",
    "GroupSums",
    "Grouping",
    "HurdleLaw",
    "LawUncertainty",
    "Parametrisation",
    "ResidualMLP",
    "ResponseFactor",
    "Responses",
    "Tableau",
    "TokenUNet",
    "TrainingSettings",
    "UNet",
    "Velocity",
    "VelocityNetwork",
    "ZeroInflated",
    "condition_kind",
    "context_covariances",
    "draw_path",
    "flow_matching_errors",
    "follow_expectation",
    "integrate",
    "mean_expression",
    "point_on_path",
    "seed_of_step",
    "shrink_effects",
    "zero_thresholds",
]
