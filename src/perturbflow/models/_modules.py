"""Fitted models in the place where scvi-tools keeps the module of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from perturbflow.predict._dynamics_store import StoredDynamics
from perturbflow.predict._fitted_flow import FittedFlow

if TYPE_CHECKING:
    from collections.abc import Mapping

    from perturbflow.models._primeflow import PRiMeFlow
    from perturbflow.models._sparse_node import SparseNODE

PERTURBATIONS_KEY = "perturbations"
TIME_KEY = "time"


class _Module(nn.Module):
    """What is fitted, without inference and generation of scvi-tools' kind."""

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))


class FlowModule(_Module):
    """The network of a fitted flow, empty before training; the loss is that of the training plan."""

    def __init__(self) -> None:
        super().__init__()
        self.flow: Any = None

    def on_load(self, model: PRiMeFlow, **kwargs: Any) -> None:
        """Rebuild the flow before its weights are read; called by ``load``."""
        del kwargs
        self.flow = FittedFlow.untrained(model.fitted_)

    def take(self, fitted: FittedFlow) -> dict[str, Any]:
        """Take over a flow, and return its other parts: the weights are stored once, as those of the module."""
        self.flow = fitted.flow
        return {name: part for name, part in fitted.to_dict().items() if name not in {"weights", "checksum"}}

    def fitted(self, parts: Mapping[str, Any]) -> FittedFlow:
        """Return the fitted flow of the module and of what :meth:`take` returned."""
        weights = {name: tensor.cpu().numpy() for name, tensor in self.flow.network.state_dict().items()}
        fitted = FittedFlow.from_dict({**parts, "weights": weights})
        fitted.flow = self.flow
        return fitted


class DynamicsModule(_Module):
    """The vector field of fitted dynamics, empty before training; dynamics are fitted to whole courses."""

    def __init__(self) -> None:
        super().__init__()
        self.field: Any = None

    def on_load(self, model: SparseNODE, **kwargs: Any) -> None:
        """Rebuild the field before its weights are read; called by ``load``."""
        del kwargs
        self.field = StoredDynamics.from_dict(model.fitted_).model.field
