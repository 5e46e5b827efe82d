"""Random batches of training cells, from memory to the device without a detour."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from perturbflow.flow._parametrisation import GeneLaw

if TYPE_CHECKING:
    from torch import Tensor

    from perturbflow.flow._data import CellData, Expression
    from perturbflow.flow._model import ConditionalFlow

_SHARE_OF_DEVICE_MEMORY = 0.5


class DeviceRows:
    """Rows of a matrix, kept on the device and made dense a batch at a time.

    A CSR matrix stays sparse there: a batch is one gather of its stored values and one scatter into zeros, without
    Python per cell. On a GPU with too little memory the rows stay where they are, and a batch is copied.

    Parameters
    ----------
    x
        Array or CSR matrix (n, G) of float32.
    device
        Where batches are wanted.
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

    def take(self, rows: Tensor) -> Tensor:
        """Dense rows.

        Parameters
        ----------
        rows
            Indices (b,), on the CPU.

        Returns
        -------
        The rows (b, G), on the device.
        """
        rows = rows.to(self.home)
        if not self.sparse:
            return self.parts[0][rows].to(self.device)
        values, columns, lengths, starts = self.parts
        length = lengths[rows]
        ends = length.cumsum(0)
        # Place of every stored value: its row's start, plus how far it is into the row.
        offsets = torch.repeat_interleave(starts[rows] - ends + length, length)
        places = offsets + torch.arange(len(offsets), device=self.home)
        row = torch.repeat_interleave(torch.arange(len(rows), device=self.home) * self.n_genes, length)
        dense = values.new_zeros(len(rows) * self.n_genes)
        dense[row + columns[places]] = values[places]
        return dense.view(len(rows), self.n_genes).to(self.device)


class Batches:
    """Random batches of training cells with their laws and encoded conditions, looked up by group.

    Parameters
    ----------
    flow
        The flow, with its prior.
    cells
        Training cells.
    """

    def __init__(self, flow: ConditionalFlow, cells: CellData) -> None:
        groups = cells.groups()
        prior = flow.prior
        laws = [prior.law(group.perturbation, prior.context(group.covariates)) for group in groups]
        laws.append(prior.pooled_law())
        self.expressed = torch.as_tensor(np.stack([law.expressed for law in laws]), device=flow.device)
        self.mean = torch.as_tensor(np.stack([law.mean for law in laws]), device=flow.device)
        self.variance = torch.as_tensor(prior.variance, device=flow.device)
        self.conditions = flow.encode(
            np.stack([group.perturbation for group in groups]), np.stack([group.covariates for group in groups])
        )
        self.group = torch.empty(len(cells), dtype=torch.long)
        for i, group in enumerate(groups):
            self.group[torch.as_tensor(group.rows)] = i
        self.rows = DeviceRows(cells.x, flow.device)
        self.encoder = flow.encoder

    def draw(self, n: int, generator: torch.Generator, *, whole: float, part: float) -> tuple[Tensor, GeneLaw, Tensor]:
        """Draw cells with replacement.

        Parameters
        ----------
        n
            Number of cells.
        generator
            Source of randomness, on the CPU.
        whole
            Probability that the whole condition is dropped; the law is then that of all cells.
        part
            Probability that a part of it is dropped.

        Returns
        -------
        Cells (n, G), their laws and their encoded conditions (n, size).
        """
        picked = torch.randint(len(self.group), (n,), generator=generator)
        group = self.group[picked].to(self.conditions.device)
        condition, dropped = self.encoder.drop(self.conditions[group], whole=whole, part=part, generator=generator)
        which = torch.where(dropped, len(self.expressed) - 1, group)
        return self.rows.take(picked), GeneLaw(self.expressed[which], self.mean[which], self.variance), condition
