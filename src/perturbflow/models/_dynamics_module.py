"""A vector field in the form that scvi-tools expects of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data

from perturbflow.predict._dynamics_store import StoredDynamics

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

    from perturbflow.models._sparse_node import SparseNODE

TIME_KEY = "time"


class DynamicsModule(BaseModuleClass):
    """The vector field of fitted dynamics in the form that scvi-tools expects of a module; empty before training."""

    def __init__(self) -> None:
        super().__init__()
        self.field: Any = None

    def on_load(self, model: SparseNODE, **kwargs: Any) -> None:
        """Rebuild the field before its weights are read; called by ``load``."""
        del kwargs
        self.field = StoredDynamics.from_dict(model.fitted_).model.field

    def _get_inference_input(self, tensors: Mapping[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY]}

    def _get_generative_input(self, tensors: Any, inference_outputs: Any, **_: Any) -> dict[str, Any]:
        del tensors
        return dict(inference_outputs)

    @auto_move_data  # type: ignore[untyped-decorator]
    def inference(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the levels (n, d) of cells."""
        return {"x": x}

    @auto_move_data  # type: ignore[untyped-decorator]
    def generative(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the rates of change at the levels of first-order dynamics, scaled, shape (n, d)."""
        return {"rate": self.field(x)}

    def loss(self, tensors: Any, inference_outputs: Any, generative_outputs: Any) -> LossOutput:
        """Return the mean square rate of cells: how far they are from a steady state."""
        del inference_outputs
        rate = generative_outputs["rate"]
        return LossOutput(loss=(rate**2).mean(), n_obs_minibatch=len(tensors[REGISTRY_KEYS.X_KEY]))
