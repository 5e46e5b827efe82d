"""A flow in the form that scvi-tools expects of a module."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scvi import REGISTRY_KEYS
from scvi.module.base import BaseModuleClass, LossOutput, auto_move_data

from perturbflow.flow import point_on_path
from perturbflow.predict._fitted_flow import FittedFlow

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from perturbflow.models._primeflow import PRiMeFlow

PERTURBATIONS_KEY = "perturbations"


class FlowModule(BaseModuleClass):
    """The network of a fitted flow in the form that scvi-tools expects of a module; empty before training."""

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

    def _get_inference_input(self, tensors: Mapping[str, torch.Tensor], **_: Any) -> dict[str, torch.Tensor]:
        return {"x": tensors[REGISTRY_KEYS.X_KEY], PERTURBATIONS_KEY: tensors[PERTURBATIONS_KEY]} | (
            {"covariates": tensors[REGISTRY_KEYS.CAT_COVS_KEY]} if REGISTRY_KEYS.CAT_COVS_KEY in tensors else {}
        )

    def _get_generative_input(self, tensors: Any, inference_outputs: Any, **_: Any) -> dict[str, Any]:
        del tensors
        return dict(inference_outputs)

    @auto_move_data  # type: ignore[untyped-decorator]
    def inference(
        self, x: torch.Tensor, perturbations: torch.Tensor, covariates: torch.Tensor | None = None
    ) -> dict[str, torch.Tensor]:
        """Put every cell (n, G) at a random point of its path."""
        import torch

        t = torch.rand((len(x), 1), device=x.device).clamp(max=0.99)
        x0 = torch.randn_like(x)
        codes = torch.zeros((len(x), 0), dtype=torch.long) if covariates is None else covariates.long()
        return {
            "x0": x0,
            "x1": x,
            "t": t,
            "point": point_on_path(x0, x, t),
            PERTURBATIONS_KEY: perturbations,
            "covariates": codes,
        }

    @auto_move_data  # type: ignore[untyped-decorator]
    def generative(
        self,
        x0: torch.Tensor,
        x1: torch.Tensor,
        t: torch.Tensor,
        point: torch.Tensor,
        perturbations: torch.Tensor,
        covariates: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Velocity of every cell at its point."""
        flow = self.flow
        doses, codes = perturbations.cpu().numpy(), covariates.cpu().numpy()
        law = flow.cell_laws(doses, codes)
        return {"velocity": flow.velocity(point, t, law, flow.encode(doses, codes)), "target": x1 - x0, "t": t}

    def loss(
        self, tensors: Any, inference_outputs: Any, generative_outputs: Mapping[str, torch.Tensor], **kwargs: Any
    ) -> LossOutput:
        """Conditional flow-matching loss of a minibatch."""
        del tensors, inference_outputs, kwargs
        error = (generative_outputs["velocity"] - generative_outputs["target"]).square().mean(-1)
        per_cell = self.flow.parametrisation.loss_weight(generative_outputs["t"])[:, 0] * error
        return LossOutput(loss=per_cell.mean(), reconstruction_loss=per_cell)

    def sample(self, *args: Any, **kwargs: Any) -> NDArray[np.float32]:
        """Predict cells; see :meth:`perturbflow.flow.ConditionalFlow.sample`."""
        return self.flow.sample(*args, **kwargs)
