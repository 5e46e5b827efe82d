"""Models: fitting, and the scvi-tools classes."""

from typing import TYPE_CHECKING

from perturbflow.predict._fitted_flow import FittedFlow
from perturbflow.train._dynamics_options import DynamicsModelKwargs, DynamicsOptions, DynamicsPlanKwargs
from perturbflow.train._fit import fit
from perturbflow.train._fit_dynamics import fit_dynamics
from perturbflow.train._flow_options import FlowModelKwargs, FlowOptions, FlowPlanKwargs

if TYPE_CHECKING:
    from perturbflow.models._primeflow import PRiMeFlow
    from perturbflow.models._sparse_node import SparseNODE

__all__ = [
    "DynamicsModelKwargs",
    "DynamicsOptions",
    "DynamicsPlanKwargs",
    "FittedFlow",
    "FlowModelKwargs",
    "FlowOptions",
    "FlowPlanKwargs",
    "PRiMeFlow",
    "SparseNODE",
    "fit",
    "fit_dynamics",
]


def __getattr__(name: str) -> object:
    # scvi-tools takes seconds to import, and only the classes need it.
    if name == "PRiMeFlow":
        from perturbflow.models._primeflow import PRiMeFlow

        return PRiMeFlow
    if name == "SparseNODE":
        from perturbflow.models._sparse_node import SparseNODE

        return SparseNODE
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
