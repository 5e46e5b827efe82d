"""Averaged weights, which are validated in place of the last ones, and the best of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback

if TYPE_CHECKING:
    from lightning.pytorch import Trainer
    from torch import Tensor

    from perturbflow.train._history import History

_DECAY = 0.995


class AveragedWeights(Callback):
    """Exponential moving average of the weights of a network, and that with the best score on held-out conditions.

    Its memory grows with the number of steps, so that it forgets the start. Lightning's own callback copies the whole
    module, and of a flow that is mostly its prior. Scores are noted in the history.
    """

    def __init__(self, history: History) -> None:
        self.history = history
        self.average: dict[str, Tensor] = {}
        self.best: dict[str, Tensor] = {}
        self.best_score = math.inf
        self.n_averaged = 0
        self._current: dict[str, Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Move what a checkpoint held to the device."""
        del trainer
        self.average = {name: tensor.to(pl_module.device) for name, tensor in self.average.items()}

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Let the average follow the weights."""
        del trainer, outputs, batch, batch_idx
        weights = pl_module.flow.network.state_dict()
        if not self.average:
            self.average = _copy(weights)
        else:
            share = 1 - min(_DECAY, (1 + self.n_averaged) / (10 + self.n_averaged))
            for name, average in self.average.items():
                average.lerp_(weights[name], share) if average.is_floating_point() else average.copy_(weights[name])
        self.n_averaged += 1

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the average in place of the weights."""
        del trainer
        self.swap_in(pl_module)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Put the weights back."""
        del trainer
        self.swap_out(pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Keep the average if it is the best so far."""
        score = trainer.callback_metrics.get("valid_energy")
        if score is not None:
            self.judge(pl_module, float(score))

    def swap_in(self, plan: Any) -> None:
        """Put the average in place of the weights, until :meth:`swap_out`."""
        self._current = _copy(plan.flow.network.state_dict())
        plan.flow.network.load_state_dict(self.average or self._current)

    def swap_out(self, plan: Any) -> None:
        """Put the weights back."""
        plan.flow.network.load_state_dict(self._current)
        self._current = {}

    def judge(self, plan: Any, score: float) -> None:
        """Note the score of the average, and keep it if it is the best so far."""
        self.history.note_score(plan.step, score)
        if score < self.best_score:
            self.best_score, self.best = score, _copy(self.average)

    def finish(self, plan: Any, *, validate: bool) -> None:
        """Leave the best weights in the flow, or the average without scores; if ``validate``, the last are scored."""
        if self._current or not self.average:  # interrupted within a validation, or before the first step
            self._current = {}
        elif validate and plan.validate is not None and self.history.last_scored != plan.step:
            plan.flow.network.load_state_dict(self.average)
            plan.flow.eval()
            self.judge(plan, plan.score())
        if self.average:
            plan.flow.network.load_state_dict(self.best or self.average)
        plan.flow.eval()

    def state_dict(self) -> dict[str, Any]:
        """Everything, for a checkpoint."""
        names = ("average", "best", "best_score", "n_averaged")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        for name, value in state_dict.items():
            setattr(self, name, value)


def _copy(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in weights.items()}
