"""Flow matching in gene-expression space, in pure torch: path, parametrisation, networks, prior, solver, training."""

from perturbflow.flow._batches import ConditionEncoder as ConditionEncoder
from perturbflow.flow._batches import DeviceRows as DeviceRows
from perturbflow.flow._batches import TrainingConditions as TrainingConditions
from perturbflow.flow._calibration import Calibration
from perturbflow.flow._config import NETWORKS, FlowConfig, TrainingSettings
from perturbflow.flow._data import CellData
from perturbflow.flow._data import Group as Group
from perturbflow.flow._data import Grouping as Grouping
from perturbflow.flow._group_sums import GroupSums
from perturbflow.flow._model import PREDICTION_SETTINGS as PREDICTION_SETTINGS
from perturbflow.flow._model import ConditionalFlow
from perturbflow.flow._network import ResidualMLP
from perturbflow.flow._objective import draw_path, flow_matching_errors
from perturbflow.flow._objective import point_on_path as point_on_path
from perturbflow.flow._objective import seed_of_step as seed_of_step
from perturbflow.flow._parametrisation import PARAMETRISATIONS as PARAMETRISATIONS
from perturbflow.flow._parametrisation import Gaussian, Velocity, ZeroInflated
from perturbflow.flow._parametrisation import GeneDistribution as GeneDistribution
from perturbflow.flow._prior import AdditiveHurdlePrior
from perturbflow.flow._prior import Context as Context
from perturbflow.flow._prior import HurdleDistribution as HurdleDistribution
from perturbflow.flow._response_factor import ResponseFactor as ResponseFactor
from perturbflow.flow._responses import Responses
from perturbflow.flow._shrinkage import context_covariances as context_covariances
from perturbflow.flow._solver import METHODS as METHODS
from perturbflow.flow._solver import TABLEAUS as TABLEAUS
from perturbflow.flow._solver import follow_expectation as follow_expectation
from perturbflow.flow._solver import integrate as integrate
from perturbflow.flow._support import GeneSupport as GeneSupport
from perturbflow.flow._support import zero_thresholds
from perturbflow.flow._uncertainty import KINDS as KINDS
from perturbflow.flow._uncertainty import condition_kind as condition_kind
from perturbflow.flow._uncertainty import mean_expression
from perturbflow.flow._unet import TokenUNet, UNet

__all__ = [
    "NETWORKS",
    "AdditiveHurdlePrior",
    "Calibration",
    "CellData",
    "ConditionalFlow",
    "FlowConfig",
    "Gaussian",
    "GroupSums",
    "ResidualMLP",
    "Responses",
    "TokenUNet",
    "TrainingSettings",
    "UNet",
    "Velocity",
    "ZeroInflated",
    "draw_path",
    "flow_matching_errors",
    "mean_expression",
    "zero_thresholds",
]
