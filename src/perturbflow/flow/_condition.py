"""Conditions as vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


@dataclass(frozen=True)
class ConditionEncoder:
    """Encode a condition as a presence flag, the sum of its perturbations and one-hot covariates (arXiv 2604.13986).

    ``concat(1, sum_p dose_p * concat(onehot(p), features(p)), onehot(covariate_1), ...)``, with doses from 0 to 1
    (:meth:`ConditionalFlow.encode`) and features (P, F) scaled to norm 1 on average. Networks start with zeros, so that
    a component without training cells is told apart by its features alone. The null condition of guidance is all zero:
    the flag tells it from a control.
    """

    n_components: int
    n_categories: tuple[int, ...]
    features: NDArray[np.floating] | None = field(default=None, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.features is None:
            return
        if len(self.features) != self.n_components:
            msg = (
                f"Expected `features` with one row for each of {self.n_components} perturbation components, found "
                f"{len(self.features)}. Take them from the prior of the same cells."
            )
            raise ValueError(msg)
        norm = float(np.sqrt(np.square(self.features).sum(axis=1).mean())) if self.n_components else 0.0
        object.__setattr__(self, "features", (self.features / (norm or 1.0)).astype(np.float32))

    @property
    def n_features(self) -> int:
        """Number of features F of a component."""
        return 0 if self.features is None else self.features.shape[1]

    @property
    def size(self) -> int:
        """Length of an encoded condition."""
        return 1 + self.n_components + self.n_features + sum(self.n_categories)

    def encode(self, perturbations: Tensor, covariates: Tensor) -> Tensor:
        """Encode doses (n, P) from 0 to 1 and covariates (n, K) as (n, size); a code beyond the known is hidden."""
        parts = [torch.ones_like(perturbations[:, :1]), perturbations]
        if self.features is not None:
            parts.append(perturbations @ torch.as_tensor(self.features).to(perturbations))
        for k, n in enumerate(self.n_categories):
            codes = functional.one_hot(covariates[:, k].clamp(max=n), n + 1)
            parts.append(codes[:, :n].to(perturbations.dtype))
        return torch.cat(parts, dim=1)

    def draw_mask(
        self, n_cells: int, *, whole: float, part: float, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Draw what is kept of conditions in training (n, size), and which are dropped whole (n,), on the CPU.

        ``whole`` is the probability of the null condition (classifier-free guidance), ``part`` that of zeros in place
        of the perturbations, and of each covariate apart.
        """
        lengths = torch.tensor([1, self.n_components + self.n_features, *self.n_categories])
        keep = torch.rand((n_cells, len(lengths)), generator=generator) >= part
        keep[:, 0] = True
        dropped = torch.rand(n_cells, generator=generator) < whole
        keep &= ~dropped[:, None]
        return keep.repeat_interleave(lengths, dim=1).float(), dropped
