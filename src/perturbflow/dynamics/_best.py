"""The best weights so far, for a training whose loss becomes infinite or NaN."""

from __future__ import annotations

import copy
import math

from torch import Tensor, nn

EVERY = 25  # steps between copies


class BestWeights:
    """Keeps a copy of the weights of some modules at the lowest loss, looked at now and then."""

    def __init__(self, *modules: nn.Module) -> None:
        self.modules = modules
        self.loss = math.inf
        self.states = self._copies()

    def forget(self) -> None:
        """Start anew: what was lost before cannot be compared with what will be."""
        self.loss = math.inf

    def see(self, step: int, loss: float) -> None:
        """Keep the weights, of which the loss is, if they are the best; before they are changed."""
        if step % EVERY == 0 and loss < self.loss:
            self.loss, self.states = loss, self._copies()

    def restore(self) -> None:
        """Give the modules the weights that were kept."""
        for module, state in zip(self.modules, self.states, strict=True):
            module.load_state_dict(state)

    def _copies(self) -> list[dict[str, Tensor]]:
        return [copy.deepcopy(module.state_dict()) for module in self.modules]


def worst(errors: Tensor, targets: Tensor) -> list[int]:
    """Return the genes whose errors are infinite or NaN, or else that with the largest."""
    bad = ~errors.isfinite()
    if not bad.any():
        bad = errors == errors.max()
    return [int(gene) for gene in targets[bad]]
