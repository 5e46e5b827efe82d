"""Random batches of training cells, for Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from scipy import sparse
from torch.utils.data import DataLoader, TensorDataset

from perturbflow.flow import CellData, seed_of_step
from perturbflow.flow._batches import DeviceRows
from perturbflow.train._flow_plan import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from perturbflow.flow import Grouping, TrainingSettings
    from perturbflow.screen._expression import Expression
    from perturbflow.screen._screen import Screen


DataModule: TypeAlias = LightningDataModule
"""What else may give batches."""


class FlowData(LightningDataModule):
    """Batches that are drawn with replacement; a data splitter as scvi-tools calls it.

    An epoch is the steps between two validations. Cells in memory are kept on the device where they fit; of several
    devices each takes its part of every batch.

    Parameters
    ----------
    cells
        Training cells, in memory or in a file, from which those of a batch are then read.
    grouping
        Their groups.
    settings
        How to train.
    """

    def __init__(self, cells: CellData | Screen, grouping: Grouping, settings: TrainingSettings) -> None:
        super().__init__()
        self.cells, self.settings = cells, settings
        self.group = torch.as_tensor(grouping.codes)
        self.rows: DeviceRows | _StoredRows | None = None

    def setup(self, stage: str) -> None:
        """Put the cells on the device, as far as they are in memory."""
        del stage
        assert self.trainer is not None
        if self.settings.batch_size % self.trainer.world_size:
            msg = (
                f"Expected `batch_size` to be a multiple of the {self.trainer.world_size} devices that share it, found "
                f"{self.settings.batch_size}."
            )
            raise ValueError(msg)
        device = self.trainer.strategy.root_device
        self.rows = (
            DeviceRows(self.cells.x, device) if isinstance(self.cells, CellData) else _StoredRows(self.cells.x, device)
        )

    def teardown(self, stage: str) -> None:
        """Release the device."""
        del stage
        self.rows = None

    def train_dataloader(self) -> _Steps:
        """Row numbers of every step."""
        return _Steps(self)

    def val_dataloader(self) -> Any:
        """One batch of nothing, for which the plan scores the held-out conditions."""
        return DataLoader(TensorDataset(torch.zeros(1)))

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Take the cells of a batch."""
        if not isinstance(batch, Batch):
            return super().transfer_batch_to_device(batch, device, dataloader_idx)
        assert self.rows is not None
        return batch._replace(x=self.rows.take(batch.x))

    def draw(self, number: int) -> Tensor:
        """Rows of the cells of a step, on all devices together."""
        generator = torch.Generator().manual_seed(seed_of_step(self.settings.seed, 2 * number))
        return torch.randint(len(self.group), (self.settings.batch_size,), generator=generator)


class _StoredRows:
    """Rows of a matrix in a file, read a batch at a time."""

    def __init__(self, x: Expression, device: torch.device) -> None:
        self.x, self.device = x, device

    def take(self, rows: Tensor) -> Tensor:
        """Dense rows (n, G), on the device."""
        block = self.x[rows.numpy()]
        dense = block.toarray() if sparse.issparse(block) else block
        return torch.as_tensor(np.asarray(dense, dtype=np.float32), device=self.device)


class _Steps:
    """The batches of an epoch, as numbers of rows."""

    def __init__(self, data: FlowData) -> None:
        self.data = data

    def __len__(self) -> int:
        return self.data.settings.validate_every

    def __iter__(self) -> Iterator[Batch]:
        trainer = self.data.trainer
        assert trainer is not None
        first = trainer.fit_loop.epoch_loop.batch_progress.total.ready
        size = self.data.settings.batch_size // trainer.world_size
        own = slice(trainer.global_rank * size, (trainer.global_rank + 1) * size)
        for number in range(first, first + len(self)):
            rows = self.data.draw(number)[own]
            yield Batch(number, rows, self.data.group[rows])
