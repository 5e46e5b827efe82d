"""Random batches of training cells, for Lightning."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader, TensorDataset

from perturbflow.flow import seed_of_step
from perturbflow.flow._batches import DeviceRows, group_of_cells
from perturbflow.train._flow_plan import Batch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from perturbflow.flow import CellData, Group, TrainingSettings


class FlowData(LightningDataModule):
    """Batches that are drawn with replacement from cells in memory; a data splitter as scvi-tools calls it.

    An epoch is the steps between two validations. The cells are kept on the device where they fit; of several devices each
    takes its part of every batch.

    Parameters
    ----------
    cells
        Training cells.
    groups
        Their groups.
    settings
        How to train.
    """

    def __init__(self, cells: CellData, groups: Sequence[Group], settings: TrainingSettings) -> None:
        super().__init__()
        self.cells, self.settings = cells, settings
        self.group = group_of_cells(groups, len(cells))
        self.rows: DeviceRows | None = None

    def setup(self, stage: str) -> None:
        """Put the cells on the device."""
        del stage
        assert self.trainer is not None
        if self.settings.batch_size % self.trainer.world_size:
            msg = (
                f"Expected `batch_size` to be a multiple of the {self.trainer.world_size} devices that share it, found "
                f"{self.settings.batch_size}."
            )
            raise ValueError(msg)
        self.rows = DeviceRows(self.cells.x, self.trainer.strategy.root_device)

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
