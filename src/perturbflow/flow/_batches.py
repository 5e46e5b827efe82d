"""Conditions as vectors, and batches of training cells, from memory to the device without a detour."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from perturbflow.flow._data import Expression, Grouping
from perturbflow.flow._parametrisation import GeneDistribution

if TYPE_CHECKING:
    from perturbflow.flow._model import ConditionalFlow


_SHARE_OF_DEVICE_MEMORY = 0.5


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
                f"{len(self.features)}. Use those of the prior of the same cells."
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


class DeviceRows:
    """Rows of an array or CSR matrix (n, G), kept on the device and made dense a batch at a time.

    A CSR matrix stays sparse there: a batch is one gather and one scatter, without Python per cell. On a GPU with too
    little memory the rows stay where they are, and a batch is copied.
    """

    def __init__(self, x: Expression, device: torch.device) -> None:
        self.n_genes, self.device = int(x.shape[1]), device
        self.sparse = not isinstance(x, np.ndarray)
        parts = (x,) if isinstance(x, np.ndarray) else (x.data, x.indices, np.diff(x.indptr), x.indptr[:-1])
        size = sum(part.nbytes for part in parts)
        fits = device.type == "cpu" or size < _SHARE_OF_DEVICE_MEMORY * torch.cuda.mem_get_info(device)[0]
        self.home = device if fits else torch.device("cpu")
        tensors = [torch.as_tensor(part) for part in parts]
        if self.sparse:
            tensors[2:] = [part.long() for part in tensors[2:]]
        self.parts = [part.to(self.home) for part in tensors]
        if self.sparse:
            self.lengths = tensors[2]  # also on the CPU

    def take(self, rows: Tensor) -> Tensor:
        """Dense rows (b, G) on the device, for indices (b,) on the CPU."""
        chosen, rows = rows, rows.to(self.home)
        if not self.sparse:
            return self.parts[0][rows].to(self.device)
        values, columns, lengths, starts = self.parts
        length = lengths[rows]
        ends = length.cumsum(0)
        # Place of every stored value: its row's start, plus how far it is into the row.
        # The number of stored values is known on the CPU: a device would have to be waited for.
        total = int(self.lengths[chosen].sum())
        offsets = torch.repeat_interleave(starts[rows] - ends + length, length, output_size=total)
        places = offsets + torch.arange(total, device=self.home)
        row = torch.arange(len(rows), device=self.home) * self.n_genes
        row = torch.repeat_interleave(row, length, output_size=total)
        dense = values.new_zeros(len(rows) * self.n_genes)
        dense[row + columns[places]] = values[places]
        return dense.view(len(rows), self.n_genes).to(self.device)


class TrainingConditions:
    """Distributions and encoded conditions of the training groups, on the device of the flow."""

    def __init__(self, flow: ConditionalFlow, grouping: Grouping) -> None:
        prior = flow.prior
        distributions, pooled = prior.distributions(grouping.doses, grouping.covariates), prior.pooled_distribution()
        self.expressed = torch.as_tensor(np.vstack([distributions.expressed, pooled.expressed]), device=flow.device)
        self.mean = torch.as_tensor(np.vstack([distributions.mean, pooled.mean]), device=flow.device)
        self.variance = torch.as_tensor(prior.variance, device=flow.device)
        # Groups by components are far larger than what is not zero in them.
        self.positions = DeviceRows(prior.levels.sparse_positions(grouping.doses), flow.device)
        self.covariates = torch.as_tensor(grouping.covariates)
        self.encoder = flow.encoder

    def look_up(self, group: Tensor, mask: Tensor, dropped: Tensor) -> tuple[GeneDistribution, Tensor]:
        """Distributions (n, G) and encoded conditions (n, size) of cells by group (n,), as far as they are not hidden.

        ``mask`` and ``dropped`` are those of :meth:`ConditionEncoder.draw_mask`; a condition that is dropped whole has
        the distribution of all cells.
        """
        encoded = self.encoder.encode(self.positions.take(group), self.covariates[group].to(self.expressed.device))
        which = torch.where(dropped, len(self.expressed) - 1, group).to(self.expressed.device)
        distribution = GeneDistribution(self.expressed[which], self.mean[which], self.variance)
        return distribution, encoded * mask.to(encoded)
