"""Cells of steps by windows of neighbours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from scipy import sparse

from perturbflow.flow import TrainingSettings
from perturbflow.models import FlowOptions, fit
from perturbflow.screen import Expression
from perturbflow.screen._fields import read_screen
from perturbflow.screen._modality import read_annotations
from perturbflow.train import Windows, _flow_plan
from perturbflow.train._flow_plan import Batch, FlowData

OPTIONS: Any = {"width": 16, "n_blocks": 1}
CPU = SimpleNamespace(root_device=torch.device("cpu"))


def test_steps_follow_from_their_number_alone():
    one, other = (Windows(10_007, 256, 64, seed=3) for _ in range(2))
    forwards = [one.rows(number) for number in range(150)]
    for number in (149, 0, 64, 63, 100):
        np.testing.assert_array_equal(other.rows(number), forwards[number])
    assert (Windows(10_007, 256, 64, seed=4).rows(0) != forwards[0]).any()


def test_every_cell_is_drawn_about_once_a_pass(monkeypatch):
    monkeypatch.setattr(_flow_plan, "BUFFER", 640)
    n_cells, width = 6_400 - 30, 64
    windows = Windows(n_cells, 64, width, seed=0)
    drawn = np.bincount(np.concatenate([windows.rows(number) for number in range(300)]), minlength=n_cells)
    # 100 windows are a pass of 100 steps; the cells of the last one that are none are drawn from the beginning.
    assert drawn.sum() == 3 * 6_400
    assert drawn.min() == 3
    assert drawn.max() <= 6
    assert (drawn > 3).sum() <= 3 * 30


def test_neighbours_part_from_pass_to_pass(monkeypatch):
    monkeypatch.setattr(_flow_plan, "BUFFER", 64)  # one window
    windows = Windows(512, 64, 64, seed=0)
    offsets: list[int] = []
    for one in range(10):
        starts = [
            set(rows) - {(row + 1) % 512 for row in rows} for rows in map(windows.rows, range(8 * one, 8 * one + 8))
        ]
        assert all(len(start) == 1 for start in starts)
        offset = {int(row) % 64 for start in starts for row in start}
        assert len(offset) == 1
        offsets += offset
    assert len(set(offsets)) > 5


@pytest.mark.parametrize(("n_cells", "batch_size", "width"), [(5, 8, 64), (100, 1, 1), (100, 40_000, 7), (64, 64, 64)])
def test_all_sizes_give_whole_steps(n_cells, batch_size, width):
    windows = Windows(n_cells, batch_size, width, seed=0)
    for number in (0, 1, windows.n_steps, 3 * windows.n_steps + 1):
        rows = windows.rows(number)
        assert rows.shape == (batch_size,)
        assert ((rows >= 0) & (rows < n_cells)).all()


def test_conditions_are_mixed_where_cells_are_stored_one_condition_after_the_other():
    n_conditions, n_each = 300, 700
    windows = Windows(n_conditions * n_each, 256, 64, seed=0)
    rng = np.random.default_rng(0)
    for number in range(0, 192, 16):
        found = len(set((windows.rows(number) // n_each).tolist()))
        at_random = len(set(rng.integers(n_conditions, size=256).tolist()))
        assert found > 0.6 * at_random  # a batch of whole windows would have four or five
    counts = np.zeros(n_conditions)
    steps = n_conditions * n_each // 256
    for number in range(steps):
        counts += np.bincount(windows.rows(number) // n_each, minlength=n_conditions)
    np.testing.assert_allclose(counts, steps * 256 / n_conditions, rtol=0.15)


# That all forms give the same rows is asserted where these are read; here is one of each kind.
@pytest.mark.parametrize("stored_elsewhere", ["backed", "lazy files", "dask"], indirect=True)
def test_batches_are_the_same_from_memory_and_from_a_file(registered, stored_elsewhere):
    settings = TrainingSettings(max_steps=40, batch_size=32, window=16)
    batches = []
    for adata in (registered, stored_elsewhere(registered)):
        read_annotations(adata)
        screen = read_screen(adata)
        cells = screen.subset() if screen.x.is_in_memory else screen
        data = FlowData(cells, screen.grouping(), settings)
        data.trainer = cast("Any", SimpleNamespace(world_size=1, global_rank=0, strategy=CPU))
        data.setup("fit")
        found = []
        for number in (0, 1, 39, 17):
            rows = torch.as_tensor(data.own_rows(number))
            batch = Batch(number, rows, data.group[rows])
            found.append(data.transfer_batch_to_device(batch, torch.device("cpu"), 0))
        batches.append(found)
    for one, other in zip(*batches, strict=True):
        assert torch.equal(one.x, other.x)
        assert torch.equal(one.group, other.group)


def test_a_fit_by_windows_is_another_one_of_the_same_quality(registered):
    losses = []
    for window in (None, 16):
        settings = TrainingSettings(max_steps=60, batch_size=64, validate_every=20, window=window)
        options = FlowOptions(OPTIONS, settings, calibrate=False)
        losses.append(fit(registered, options, progress_bar=False).history["loss"])
    assert (losses[0] != losses[1]).any()
    np.testing.assert_allclose(losses[0][-1], losses[1][-1], rtol=0.1)


@pytest.mark.parametrize("window", [0, -3])
def test_a_window_has_cells(window):
    with pytest.raises(ValueError, match=f"Expected `window` to be at least 1, found {window}"):
        TrainingSettings(window=window)


def test_as_many_steps_are_read_at_once_as_fit_into_memory(registered, tmp_path, monkeypatch):
    import anndata

    registered.write_h5ad(tmp_path / "cells.h5ad")
    screen = read_screen(anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r"))
    read: list[int] = []
    take = Expression.__getitem__

    def counted(self, rows):
        read.append(len(rows))
        return take(self, rows)

    bytes_of_step = 32 * 8 * sparse.csr_matrix(screen.subset().x).nnz / len(screen)
    monkeypatch.setattr(_flow_plan, "_BYTES_READ_AT_ONCE", round(3.5 * bytes_of_step))
    monkeypatch.setattr(_flow_plan, "_CELLS_MEASURED", len(screen))
    data = FlowData(screen, screen.grouping(), TrainingSettings(max_steps=8, batch_size=32))
    data.trainer = cast("Any", SimpleNamespace(world_size=1, global_rank=0, strategy=CPU))
    data.setup("fit")
    monkeypatch.setattr(Expression, "__getitem__", counted)
    for number in range(8):
        rows = torch.as_tensor(data.own_rows(number))
        batch = data.transfer_batch_to_device(Batch(number, rows, data.group[rows]), torch.device("cpu"), 0)
        np.testing.assert_array_equal(batch.x, take(screen.x, rows.numpy()).toarray())
    # Steps 0 to 2, 3 to 5, and the last two, without cells of later ones.
    expected = [
        len({int(row) for step in steps for row in data.own_rows(step)}) for steps in ((0, 1, 2), (3, 4, 5), (6, 7))
    ]
    assert read == expected
