"""Batches of training cells, from memory to the device without a detour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from perturbflow.flow._parametrisation import GeneDistribution

if TYPE_CHECKING:
    from torch import Tensor

    from perturbflow.flow._data import Expression
    from perturbflow.flow._grouping import Grouping
    from perturbflow.flow._model import ConditionalFlow

_SHARE_OF_DEVICE_MEMORY = 0.5


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
