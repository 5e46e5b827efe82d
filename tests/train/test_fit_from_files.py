"""Fits of screens in files, lazy or as arrays of dask are those of the same screens in memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from perturbflow.evaluation import registered_cells
from perturbflow.flow import GroupSums
from perturbflow.models import PRiMeFlow
from perturbflow.screen._fields import read_screen
from perturbflow.screen._screen import sums_of_parts
from perturbflow.tl import fit_flow

QUICK: Any = {
    "max_steps": 6,
    "plan_kwargs": {"batch_size": 32},
    "model_kwargs": {"width": 16, "n_blocks": 1},
    "progress_bar": False,
}


@pytest.fixture(scope="module")
def in_memory(_registered):
    """The flow of the same cells in memory, by whether it is calibrated."""
    found = {}
    for calibrate in (False, True):
        adata = _registered.copy()
        fit_flow(adata, **QUICK | {"plan_kwargs": {"batch_size": 32, "calibrate": calibrate}})
        found[calibrate] = adata.uns["flow"]
    return found


# That all forms give the same rows is asserted where these are read; here is one of each kind. Calibration is two thirds
# of the time, and reads its cells through the same function whatever their form: one is enough.
@pytest.mark.parametrize(
    ("stored_elsewhere", "calibrate"),
    [("backed", False), ("lazy files", True), ("dask", False)],
    indirect=["stored_elsewhere"],
)
def test_fits_are_the_same(registered, in_memory, stored_elsewhere, calibrate):
    elsewhere = stored_elsewhere(registered)
    fit_flow(elsewhere, **QUICK | {"plan_kwargs": {"batch_size": 32, "calibrate": calibrate}})
    found, expected = elsewhere.uns["flow"], in_memory[calibrate]
    assert found["config"] == expected["config"]
    for part in ("weights", "prior", "calibration", "history"):
        for name in found[part].keys() - {"seconds"}:
            np.testing.assert_allclose(found[part][name], expected[part][name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_the_model_class_takes_a_backed_file(registered, tmp_path):
    import anndata

    registered.write_h5ad(tmp_path / "cells.h5ad")
    backed = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    found, expected = (PRiMeFlow(adata, width=16, n_blocks=1) for adata in (backed, registered))
    for model in (found, expected):
        model.train(max_steps=4, batch_size=16, plan_kwargs={"calibrate": False}, progress_bar=False)
    for name, tensor in expected.module.state_dict().items():
        assert (found.module.state_dict()[name] == tensor).all()
    backed.file.close()


@pytest.mark.parametrize("n_parts", [1, 4])
def test_sums_of_parts_add_up_to_those_of_all_cells(registered, n_parts):
    screen = read_screen(registered)
    parts = sums_of_parts(screen, n_parts, seed=1)
    whole, expected = GroupSums.union(parts), GroupSums.of(registered_cells(registered))
    for name in ("n_cells", "n_expressing", "total", "squares", "covariates"):
        np.testing.assert_allclose(getattr(whole, name), getattr(expected, name), err_msg=name)
    assert (whole.doses != expected.doses).nnz == 0
    # Every group is divided evenly.
    for part in parts:
        part = part.ordered()
        assert len(part) == len(whole)
        assert (np.abs(part.n_cells - whole.n_cells / n_parts) < 1).all()
    again = sums_of_parts(screen, n_parts, seed=1)
    assert all((a.ordered().total == b.ordered().total).all() for a, b in zip(parts, again, strict=True))


@pytest.mark.parametrize("apart", [0, 1, 4])
def test_parts_that_are_not_needed_are_summed_together(registered, apart):
    screen = read_screen(registered)
    parts = sums_of_parts(screen, 4, seed=1)
    found = sums_of_parts(screen, 4, seed=1, apart=apart)
    expected = [*parts[:apart], *([GroupSums.union(parts[apart:])] if apart < 4 else [])]
    assert len(found) == len(expected)
    for one, two in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.ordered().n_cells, two.ordered().n_cells)
        np.testing.assert_allclose(one.ordered().total, two.ordered().total)


def test_groups_of_few_cells_are_not_all_in_the_first_part(registered):
    few = registered[:: registered.n_obs // 40].copy()
    parts = sums_of_parts(read_screen(few), 4, seed=0)
    n_cells = [int(part.n_cells.sum()) for part in parts]
    assert sum(n_cells) == few.n_obs
    assert max(n_cells) < 2 * min(n_cells) + 4
