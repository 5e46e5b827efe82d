"""Training of a flow for Lightning: the loss, the optimiser, the score on held-out conditions, and batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from scipy import sparse
from torch.utils.data import DataLoader, TensorDataset

from perturbflow.flow import CellData, draw_path, flow_matching_errors, seed_of_step
from perturbflow.flow._batches import DeviceRows, TrainingConditions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from perturbflow.flow import ConditionalFlow, Grouping, TrainingSettings
    from perturbflow.screen._expression import Expression
    from perturbflow.screen._screen import Screen

_LOSS_SMOOTHING = 0.98
_MOST_NAMES = 5


_BYTES_READ_AT_ONCE = 2**26
_MOST_STEPS_READ_AT_ONCE = 256
_CELLS_MEASURED = 256  # for the bytes of a cell
DataModule: TypeAlias = LightningDataModule
"""Other sources of batches."""
BUFFER = 16_384  # cells that are shuffled together


class Batch(NamedTuple):
    """A step's cells."""

    number: int  # of the step, from which everything random in it follows
    x: Tensor  # cells (n, G), or whatever the data module makes them from on the device
    group: Tensor  # training group of every cell (n,), on the CPU


class NonFiniteLossError(FloatingPointError):
    """The loss is not finite; `genes` and `groups` are the places of what makes it so."""

    def __init__(self, step: int, genes: Sequence[int], groups: Sequence[int]) -> None:
        super().__init__(f"Expected a finite loss, found NaN or infinity at step {step}. Lower `learning_rate`.")
        self.step, self.genes, self.groups = step, list(genes), list(groups)

    def named(self, genes: Sequence[str], condition: Callable[[int], str]) -> FloatingPointError:
        """Return the same error with names of genes, and of conditions by their number, in place of numbers."""
        parts = []
        for what, places, name in (("genes", self.genes, genes.__getitem__), ("conditions", self.groups, condition)):
            if places and not (what == "genes" and len(places) == len(genes)):
                more = f" and {len(places) - _MOST_NAMES} more" if len(places) > _MOST_NAMES else ""
                parts.append(f"{what} {', '.join(repr(name(i)) for i in places[:_MOST_NAMES])}{more}")
        where = f" from {' in '.join(parts)}" if parts else ""
        msg = (
            f"Expected a finite loss, found NaN or infinity at step {self.step}{where}. Check these cells, or lower "
            "`learning_rate`."
        )
        return FloatingPointError(msg)


class FlowPlan(LightningModule):
    """Trains the network of a flow in place; a training plan of scvi-tools.

    Everything random in a step follows from its number, so that a fit that is continued, or shared by several devices,
    is the same fit.
    """

    def __init__(
        self,
        flow: ConditionalFlow,
        grouping: Grouping,
        settings: TrainingSettings,
        *,
        validate: Callable[[ConditionalFlow], float] | None = None,
    ) -> None:
        super().__init__()
        self.flow, self.grouping, self.settings, self.validate = flow, grouping, settings, validate
        self.step = 0
        self.smoothed: Tensor | None = None
        self.conditions: TrainingConditions | None = None

    def configure_optimizers(self) -> Any:
        """AdamW under a linear warm-up and a cosine decay to a hundredth."""
        settings = self.settings
        optimiser = torch.optim.AdamW(
            self.flow.network.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.99),
            fused=self.flow.device.type == "cpu" or None,  # a third of the time; elsewhere torch knows what is best
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, self.share_of_learning_rate)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def share_of_learning_rate(self, step: int) -> float:
        """Learning rate of a step, as a share of the peak."""
        warmup = min(1.0, (step + 1) / self.settings.warmup_steps)
        cosine = 0.5 * (1 + math.cos(math.pi * min(step / self.settings.max_steps, 1)))
        return warmup * (0.01 + 0.99 * cosine)

    def on_fit_start(self) -> None:
        """Prepare what depends on the device."""
        settings, device = self.settings, self.flow.device
        self.conditions = TrainingConditions(self.flow, self.grouping)
        self.generator = torch.Generator()
        self.noise = self.generator if device.type == "cpu" else torch.Generator(device)
        if settings.precision == "auto":
            self.flow.mixed_precision = device.type == "cuda" and torch.cuda.is_bf16_supported()
        else:
            self.flow.mixed_precision = settings.precision == "bfloat16"
        if settings.compile_network:
            self.flow.network.compile()

    def errors(self, batch: Batch) -> Tensor:
        """Weighted squared errors of the velocity (n, G); devices take their part of what is drawn for all."""
        settings, n_cells, n_devices = self.settings, len(batch.x), self.trainer.world_size
        own = slice(self.trainer.global_rank * n_cells, (self.trainer.global_rank + 1) * n_cells)
        # Even numbers are those of the draws of cells.
        self.generator.manual_seed(seed_of_step(settings.seed, 2 * batch.number + 1))
        mask, dropped = self.flow.encoder.draw_mask(
            n_cells * n_devices,
            whole=settings.condition_dropout,
            part=settings.part_dropout,
            generator=self.generator,
        )
        if self.noise is not self.generator:
            self.noise.manual_seed(seed_of_step(settings.seed, 2 * batch.number + 1))
        t, x0 = draw_path(n_cells * n_devices, batch.x.shape[1], self.noise)
        assert self.conditions is not None
        distribution, condition = self.conditions.look_up(batch.group, mask[own], dropped[own])
        return flow_matching_errors(self.flow, batch.x, distribution, condition, t=t[own], x0=x0[own])

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Conditional flow-matching loss of a batch."""
        del batch_idx
        loss = self.errors(batch).mean()
        # Elsewhere than on a CPU every look at a value waits for the device.
        if self.device.type == "cpu" and not math.isfinite(float(loss.detach())):
            raise self.explain(batch)
        value = loss.detach()
        self.smoothed = value if self.smoothed is None else torch.lerp(value, self.smoothed, _LOSS_SMOOTHING)
        self.log("train_loss", value, batch_size=len(batch.x))
        return loss

    def explain(self, batch: Batch) -> NonFiniteLossError:
        """Return which genes and groups make the loss of a batch infinite or NaN."""
        with torch.no_grad():
            bad = ~torch.isfinite(self.errors(batch)) | ~torch.isfinite(batch.x)
        inputs = ~torch.isfinite(batch.x)
        bad = inputs if inputs.any() else bad  # through the network one value spoils all genes of its cell
        genes = torch.nonzero(bad.any(dim=0)).ravel().tolist()
        groups = np.unique(batch.group.numpy()[bad.any(dim=1).cpu().numpy()]).tolist()
        return NonFiniteLossError(batch.number + 1, genes, groups)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Score the held-out conditions."""
        del batch, batch_idx
        self.log("valid_energy", self.score(), batch_size=1)

    def score(self) -> float:
        """Score of the flow as it is."""
        assert self.validate is not None
        return float(self.validate(self.flow))

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Count the step."""
        del outputs, batch_idx
        self.step = batch.number + 1

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the smoothed loss."""
        checkpoint["smoothed_loss"] = self.smoothed

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Continue from there."""
        self.smoothed, self.step = checkpoint["smoothed_loss"], checkpoint["global_step"]


class FlowData(LightningDataModule):
    """Batches of cells, drawn with replacement or by windows; a data splitter of scvi-tools."""

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
    """Cells of steps from a file: those of as many steps as fit into some megabytes are read at once, in its order."""

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


class Windows:
    """Order of cells in training: drawn a window of neighbours at a time and shuffled among those of many windows.

    A file gives whole windows, and yet a step has cells of many of them. Every window is drawn once before any is drawn
    again, and begins elsewhere each time, so that neighbours part; all follows from the seed and the number of the step.
    """

    def __init__(self, n_cells: int, batch_size: int, width: int, seed: int) -> None:
        self.n_cells, self.batch_size, self.seed = n_cells, batch_size, seed
        self.width = min(width, n_cells)
        self.n_steps = max(1, BUFFER // batch_size)
        """Steps whose cells are shuffled together."""
        self._n_windows = -(-n_cells // self.width)
        self._number = -1
        self._rows = np.zeros(0, dtype=np.int64)

    def rows(self, number: int) -> NDArray[np.int64]:
        """Cells of a step (batch_size,)."""
        if number // self.n_steps != self._number:
            self._number = number // self.n_steps
            self._rows = self._shuffled(self._number)
        place = number % self.n_steps * self.batch_size
        return self._rows[place : place + self.batch_size]

    def _shuffled(self, number: int) -> NDArray[np.int64]:
        """All cells of the steps that belong together."""
        n_drawn = -(-self.n_steps * self.batch_size // self.width)
        drawn = np.arange(number * n_drawn, (number + 1) * n_drawn)
        passes, places = np.divmod(drawn, self._n_windows)
        starts = np.empty(n_drawn, dtype=np.int64)
        for one in np.unique(passes):
            rng = np.random.default_rng([self.seed, 0, one])
            order, offset = rng.permutation(self._n_windows), rng.integers(self.width)
            own = passes == one
            starts[own] = order[places[own]] * self.width + offset
        rows = ((starts[:, None] + np.arange(self.width)) % self.n_cells).ravel()
        np.random.default_rng([self.seed, 1, number]).shuffle(rows)
        return rows
