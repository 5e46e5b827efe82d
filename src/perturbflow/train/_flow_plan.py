"""Training of a flow for Lightning: the loss, the optimiser and its schedule, and the score on held-out conditions."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from lightning.pytorch import LightningModule

from perturbflow.flow import draw_path, flow_matching_errors, seed_of_step
from perturbflow.flow._batches import TrainingConditions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from perturbflow.flow import ConditionalFlow, Grouping, TrainingSettings

_LOSS_SMOOTHING = 0.98
_MOST_NAMES = 5


class Batch(NamedTuple):
    """A step's cells."""

    number: int  # of the step, from which everything random in it follows
    x: Tensor  # cells (n, G), or whatever the data module makes them from on the device
    group: Tensor  # training group of every cell (n,), on the CPU


class NonFiniteLossError(FloatingPointError):
    """The loss is not finite; `genes` and `groups` are the places of what makes it so."""

    def __init__(self, step: int, genes: Sequence[int], groups: Sequence[int]) -> None:
        super().__init__(f"Expected a finite loss, found others at step {step}. Lower `learning_rate`.")
        self.step, self.genes, self.groups = step, list(genes), list(groups)

    def named(self, genes: Sequence[str], condition: Callable[[int], str]) -> FloatingPointError:
        """Return the same error with names of genes, and of conditions by their number, in place of numbers."""
        parts = []
        for what, places, name in (("genes", self.genes, genes.__getitem__), ("conditions", self.groups, condition)):
            if places and not (what == "genes" and len(places) == len(genes)):
                more = f" and {len(places) - _MOST_NAMES} more" if len(places) > _MOST_NAMES else ""
                parts.append(f"{what} {', '.join(repr(name(i)) for i in places[:_MOST_NAMES])}{more}")
        where = f" from {' in '.join(parts)}" if parts else ""
        msg = (
            f"Expected a finite loss, found others at step {self.step}{where}. Check these cells, or lower "
            "`learning_rate`."
        )
        return FloatingPointError(msg)


class FlowPlan(LightningModule):
    """Trains the network of a flow in place; a training plan as scvi-tools calls it.

    Everything random in a step follows from its number, so that a fit that is continued, or shared by several devices,
    is the same fit. The prior of the flow is fitted; groups are in the order in which batches number them; ``validate`` is
    the score of a flow on held-out conditions, of which lower ones are better.
    """

    def __init__(
        self,
        flow: ConditionalFlow,
        grouping: Grouping,
        settings: TrainingSettings,
        *,
        validate: Callable[[ConditionalFlow], float] | None = None,
    ) -> None:
        super().__init__()
        self.flow, self.grouping, self.settings, self.validate = flow, grouping, settings, validate
        self.step = 0
        self.smoothed: Tensor | None = None
        self.conditions: TrainingConditions | None = None

    def configure_optimizers(self) -> Any:
        """AdamW under a linear warm-up and a cosine decay to a hundredth."""
        settings = self.settings
        optimiser = torch.optim.AdamW(
            self.flow.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.99),
            fused=self.flow.device.type == "cpu" or None,  # a third of the time; elsewhere torch knows what is best
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self.share_of_learning_rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def share_of_learning_rate(self, step: int) -> float:
        """Learning rate of a step, as a share of the peak."""
        warmup = min(1.0, (step + 1) / self.settings.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.settings.max_steps, 1)))
        return warmup * (0.01 + 0.99 * cosine)

    def on_fit_start(self) -> None:
        """Prepare what depends on the device."""
        settings, device = self.settings, self.flow.device
        self.conditions = TrainingConditions(self.flow, self.grouping)
        self.generator = torch.Generator()
        self.noise = self.generator if device.type == "cpu" else torch.Generator(device)
        if settings.precision == "auto":
            self.flow.mixed_precision = device.type == "cuda" and torch.cuda.is_bf16_supported()
        else:
            self.flow.mixed_precision = settings.precision == "bfloat16"
        if settings.compile_network:
            self.flow.network.compile()

    def errors(self, batch: Batch) -> Tensor:
        """Weighted squared errors of the velocity (n, G) of a batch.

        Several devices draw for all their cells and take their part: the draws do not depend on their number.
        """
        settings, n_cells, n_devices = self.settings, len(batch.x), self.trainer.world_size
        own = slice(self.trainer.global_rank * n_cells, (self.trainer.global_rank + 1) * n_cells)
        # Even numbers are those of the draws of cells.
        self.generator.manual_seed(seed_of_step(settings.seed, 2 * batch.number + 1))
        mask, dropped = self.flow.encoder.draw_mask(
            n_cells * n_devices,
            whole=settings.condition_dropout,
            part=settings.part_dropout,
            generator=self.generator,
        )
        if self.noise is not self.generator:
            self.noise.manual_seed(seed_of_step(settings.seed, 2 * batch.number + 1))
        t, x0 = draw_path(n_cells * n_devices, batch.x.shape[1], self.noise)
        assert self.conditions is not None
        distribution, condition = self.conditions.look_up(batch.group, mask[own], dropped[own])
        return flow_matching_errors(self.flow, batch.x, distribution, condition, t=t[own], x0=x0[own])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Conditional flow-matching loss of a batch."""
        del batch_idx
        loss = self.errors(batch).mean()
        # Elsewhere than on a CPU every look at a value waits for the device.
        if self.device.type == "cpu" and not math.isfinite(float(loss.detach())):
            raise self.explain(batch)
        value = loss.detach()
        self.smoothed = value if self.smoothed is None else torch.lerp(value, self.smoothed, _LOSS_SMOOTHING)
        self.log("train_loss", value, batch_size=len(batch.x))
        return loss

    def explain(self, batch: Batch) -> NonFiniteLossError:
        """Return which genes and groups make the loss of a batch infinite or NaN."""
        with torch.no_grad():
            bad = ~torch.isfinite(self.errors(batch)) | ~torch.isfinite(batch.x)
        inputs = ~torch.isfinite(batch.x)
        bad = inputs if inputs.any() else bad  # through the network one value spoils all genes of its cell
        genes = torch.nonzero(bad.any(dim=0)).ravel().tolist()
        groups = np.unique(batch.group.numpy()[bad.any(dim=1).cpu().numpy()]).tolist()
        return NonFiniteLossError(batch.number + 1, genes, groups)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score the held-out conditions."""
        del batch, batch_idx
        self.log("valid_energy", self.score(), batch_size=1)

    def score(self) -> float:
        """Score of the flow as it is."""
        assert self.validate is not None
        return float(self.validate(self.flow))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count the step."""
        del outputs, batch_idx
        self.step = batch.number + 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the smoothed loss."""
        checkpoint["smoothed_loss"] = self.smoothed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from there."""
        self.smoothed, self.step = checkpoint["smoothed_loss"], checkpoint["global_step"]
