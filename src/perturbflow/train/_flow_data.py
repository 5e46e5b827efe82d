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
from perturbflow.train._windows import Windows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.flow import Grouping, TrainingSettings
    from perturbflow.screen._expression import Expression
    from perturbflow.screen._screen import Screen


_BYTES_READ_AT_ONCE = 2**26
_MOST_STEPS_READ_AT_ONCE = 256
_CELLS_MEASURED = 256  # for the bytes of a cell

DataModule: TypeAlias = LightningDataModule
"""Other sources of batches."""


class FlowData(LightningDataModule):
    """Batches of cells drawn one by one with replacement, or by windows; a data splitter as scvi-tools calls it.

    An epoch is the steps between two validations. Cells in memory are kept on the device where they fit; of several
    devices each takes its part of every batch. Those of cells in a file are read from it.
    """

    def __init__(self, cells: CellData | Screen, grouping: Grouping, settings: TrainingSettings) -> None:
        super().__init__()
        self.cells, self.settings = cells, settings
        self.group = torch.as_tensor(grouping.codes)
        self.rows: DeviceRows | _StoredRows | None = None
        self.windows: Windows | None = None
        if settings.window is not None:
            self.windows = Windows(len(cells), settings.batch_size, settings.window, settings.seed)

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
            DeviceRows(self.cells.x, device)
            if isinstance(self.cells, CellData)
            else _StoredRows(self.cells.x, device, self.own_rows, self.windows, last=self.settings.max_steps)
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
        rows = self.rows.take(batch.x) if isinstance(self.rows, DeviceRows) else self.rows.of_step(batch.number)
        return batch._replace(x=rows)

    def own_rows(self, number: int) -> NDArray[np.int64]:
        """Rows of the cells of a step on this device."""
        assert self.trainer is not None
        size = self.settings.batch_size // self.trainer.world_size
        return self.draw(number).numpy()[self.trainer.global_rank * size :][:size]

    def draw(self, number: int) -> Tensor:
        """Rows of the cells of a step, on all devices together."""
        if self.windows is not None:
            return torch.as_tensor(self.windows.rows(number))
        generator = torch.Generator().manual_seed(seed_of_step(self.settings.seed, 2 * number))
        return torch.randint(len(self.group), (self.settings.batch_size,), generator=generator)


class _StoredRows:
    """Cells of steps from a file: those of several steps are read at once, in the order of the file.

    Those of one shuffle of windows, or as many steps as fit into some megabytes: the more cells, the nearer they are to each
    other in the file, and the less it matters that they were drawn at random.
    """

    def __init__(
        self,
        x: Expression,
        device: torch.device,
        rows_of: Callable[[int], NDArray[np.int64]],
        windows: Windows | None,
        *,
        last: int,
    ) -> None:
        self.x, self.device, self.rows_of, self.last = x, device, rows_of, last
        if windows is None:
            some = x[x.some_rows(_CELLS_MEASURED)]
            bytes_of_step = len(rows_of(0)) * max(1, _size(some) // some.shape[0])
            self.n_steps = int(np.clip(_BYTES_READ_AT_ONCE // bytes_of_step, 1, _MOST_STEPS_READ_AT_ONCE))
        else:
            self.n_steps = windows.n_steps
        self._first = -1
        self._rows, self._block = np.zeros(0, dtype=np.int64), None

    def of_step(self, number: int) -> Tensor:
        """Dense cells (n, G) of a step, on the device."""
        first = number - number % self.n_steps
        if first != self._first:
            self._block = None  # not beside the next one
            steps = range(first, min(first + self.n_steps, self.last))
            self._rows = np.unique(np.concatenate([self.rows_of(step) for step in steps]))
            self._first, self._block = first, self.x[self._rows]
        block: Any = self._block
        block = block[np.searchsorted(self._rows, self.rows_of(number))]
        dense = block.toarray() if sparse.issparse(block) else block
        return torch.as_tensor(np.asarray(dense, dtype=np.float32), device=self.device)


def _size(block: Any) -> int:
    """Bytes of an array or a CSR matrix."""
    return block.data.nbytes + block.indices.nbytes if sparse.issparse(block) else block.nbytes


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
        for number in range(first, first + len(self)):
            rows = torch.as_tensor(self.data.own_rows(number))
            yield Batch(number, rows, self.data.group[rows])
