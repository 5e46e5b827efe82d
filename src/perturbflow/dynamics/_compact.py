"""Networks that see only a few candidate regulators each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from perturbflow.dynamics._field import TargetField, VectorField


class CompactField(TargetField):
    """Mechanisms of targets of which each has k inputs of its own, so that cost does not grow with the regulators.

    ``heads`` are mechanisms of ``field`` (K,), ``candidates`` positions of inputs (K, k), ``allowed`` those that count.
    """

    candidates: Tensor

    def __init__(self, field: TargetField, heads: Tensor, candidates: Tensor, allowed: Tensor) -> None:
        chosen = field.select(heads)
        super().__init__(field.config, chosen.targets.tolist())
        self.load_state_dict(chosen.state_dict())
        self.register_buffer("candidates", candidates)
        self.allowed = allowed.to(chosen.allowed.dtype)
        self.matrices[0] = self._own(chosen.matrices[0])
        if self.config.skip:
            self.linear = self._own(chosen.linear)

    def _own(self, whole: Tensor) -> nn.Parameter:
        index = self.candidates[:, None, :].expand(-1, whole.shape[1], -1)
        return nn.Parameter(whole.detach().gather(2, index))

    def network_inputs(self, state: Tensor) -> Tensor:
        """Return the centred inputs of each mechanism (K, k, B)."""
        return super().network_inputs(state).T[self.candidates]

    def network(self, inputs: Tensor, weights: Sequence[Tensor]) -> Tensor:
        layers = weights[: len(self.matrices)]
        values = torch.baddbmm(self.biases[0][..., None], layers[0], inputs)
        values = self.after_first(values, layers[1:])
        if self.config.skip:
            values = values + torch.bmm(weights[-1], inputs)[:, 0]
        return values

    def expand(self) -> TargetField:
        """Return the mechanisms with all inputs, those that do not count at weight 0 and no longer allowed."""
        field = TargetField(self.config, self.targets.tolist())
        state = self.state_dict()
        candidates, allowed = state.pop("candidates"), self.allowed
        state["allowed"] = torch.zeros_like(field.allowed).scatter(1, candidates, allowed)
        for name in ("matrices.0", *(["linear"] if self.config.skip else [])):
            part = state[name] * allowed[:, None]
            index = candidates[:, None].expand_as(part)
            state[name] = torch.zeros_like(field.state_dict()[name]).scatter(2, index, part)
        field.load_state_dict(state)
        return field


@contextmanager
def on_support(field: VectorField) -> Iterator[VectorField]:
    """Give a field with the inputs of its support only, where that saves time, and keep what is done to it.

    It is a :class:`CompactField`, or the field itself where some target has half of the inputs.
    """
    width = max(1, int(field.allowed.sum(dim=1).max()))
    if not isinstance(field, TargetField) or 2 * width > field.allowed.shape[1]:
        yield field
        return
    candidates = field.allowed.argsort(dim=1, descending=True, stable=True)[:, :width]
    small = CompactField(field, torch.arange(len(candidates)), candidates, field.allowed.gather(1, candidates))
    try:
        yield small
    finally:
        field.load_state_dict(small.expand().state_dict())
