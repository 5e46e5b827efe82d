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
    """Encode a condition as a presence flag, the sum of its perturbations and one-hot covariates.

    ``Enc(c) = concat(1, sum_p dose_p * concat(onehot(p), features(p)), onehot(covariate_1), ...)``, with doses from 0 to 1
    by their place among those in training (:meth:`ConditionalFlow.encode`): combinations add, so their order cannot matter; control has an all-zero perturbation part. The networks start with
    zeros for all conditions, so that the one-hot of a component without training cells says nothing to them: it is told
    apart by its features. The null condition of guidance is all zero, and the flag tells it from a control of which nothing else is known.

    Parameters
    ----------
    n_components
        Number of perturbation components P.
    n_categories
        Number of categories of every covariate (K,).
    features
        Features of every component (P, F); they are scaled so that their norm is 1 on average, like that of a one-hot.
        By default none.

    Raises
    ------
    ValueError
        If the features are not those of as many components.

    Notes
    -----
    PRiMeFlow (arXiv 2604.13986) concatenates the sum of perturbation one-hots with covariate one-hots.

    Examples
    --------
    >>> import perturbflow as pf
    >>> import torch
    >>> encoder = pf.flow.ConditionEncoder(n_components=3, n_categories=(2,))
    >>> doses = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5]])  # a control and a combination
    >>> encoder.encode(doses, torch.tensor([[0], [1]]))
    tensor([[1.0000, 0.0000, 0.0000, 0.0000, 1.0000, 0.0000],
            [1.0000, 1.0000, 0.0000, 0.5000, 0.0000, 1.0000]])
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
        """Encode conditions.

        Parameters
        ----------
        perturbations
            Doses (n, P), from 0 to 1.
        covariates
            Codes of the covariates (n, K); one beyond the known categories is hidden, as some are in training.

        Returns
        -------
        Encoded conditions (n, size).
        """
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
        """Draw what is hidden of the conditions of cells in training.

        Parameters
        ----------
        n_cells
            Number of cells n.
        whole
            Probability that a condition becomes the null condition (classifier-free guidance).
        part
            Probability, for the perturbations and for each covariate apart, that this part becomes all zero.
        generator
            Source of randomness, on the CPU.

        Returns
        -------
        What is kept of encoded conditions (n, size), 0 or 1, and which are dropped whole (n,), on the CPU.
        """
        lengths = torch.tensor([1, self.n_components + self.n_features, *self.n_categories])
        keep = torch.rand((n_cells, len(lengths)), generator=generator) >= part
        keep[:, 0] = True
        dropped = torch.rand(n_cells, generator=generator) < whole
        keep &= ~dropped[:, None]
        return keep.repeat_interleave(lengths, dim=1).float(), dropped
