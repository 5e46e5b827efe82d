"""A vector field in the place where scvi-tools keeps the module of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from perturbflow.predict._dynamics_store import StoredDynamics

if TYPE_CHECKING:
    from perturbflow.models._sparse_node import SparseNODE

TIME_KEY = "time"


class DynamicsModule(nn.Module):
    """The vector field of fitted dynamics; empty before training.

    It is no module with inference and generation of scvi-tools' kind: dynamics are fitted to whole courses.
    """

    def __init__(self) -> None:
        super().__init__()
        self.field: Any = None

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return next((weight.device for weight in self.parameters()), torch.device("cpu"))

    def on_load(self, model: SparseNODE, **kwargs: Any) -> None:
        """Rebuild the field before its weights are read; called by ``load``."""
        del kwargs
        self.field = StoredDynamics.from_dict(model.fitted_).model.field
