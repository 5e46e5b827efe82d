"""A fitted flow survives files and processes, and no file of it can run code."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from perturbflow.models import FittedFlow
from perturbflow.predict import read_flow, write_flow
from perturbflow.tl import fit_flow, predict_perturbation

IN_A_NEW_PROCESS = """
import sys
import anndata, numpy as np
import perturbflow as pf

pf.pp.check_split
assert "mudata" not in sys.modules, "mudata was imported too early"
folder = sys.argv[1]
for kind in ("h5ad", "store"):
    adata = anndata.read_h5ad(f"{folder}/cells.{kind}")
    pf.tl.predict_perturbation(adata, "D+B", seed=7, guidance=1.5)
    cells = pf.tl.predict_perturbation(adata, ["A", "C"], seed=7, n_cells=30, as_anndata=True)
    np.savez(f"{folder}/{kind}.npz", obsm=adata.obsm["predicted"].toarray(), cells=cells.X)
pf.models.fit, pf.tl.fit_flow, pf.tl.predict_perturbation, pf.pp.setup_perturbation
assert "PRiMeFlow" in pf.models.__all__
assert not any(name == "scvi" or name.startswith("scvi.") for name in sys.modules), "scvi-tools was imported too early"
"""


@pytest.fixture
def stored(fitted, tmp_path):
    """A flow in a directory."""
    folder = tmp_path / "store"
    write_flow(fitted, read_flow(fitted), store=folder)
    return fitted


def assert_same(first: FittedFlow, second: FittedFlow) -> None:
    """Every value and its type is the same."""
    one, other = first.to_dict(), second.to_dict()
    assert first.fields == second.fields
    for part in ("calibration", "guidance_curve", "history", "prior", "responses", "support", "weights"):
        assert one[part].keys() == other[part].keys()
        for name, array in one.pop(part).items():
            found = other[part][name]
            assert (array.dtype, array.shape) == (found.dtype, found.shape), name
            np.testing.assert_array_equal(array, found, err_msg=name)
        del other[part]
    assert one.pop("genes").tolist() == other.pop("genes").tolist()
    assert one == other
    for part in ("config", "settings"):
        assert {name: type(value) for name, value in one[part].items()} == {
            name: type(value) for name, value in other[part].items()
        }


def test_new_process_predicts_the_same_cells_and_imports_no_more_than_it_needs(fitted, tmp_path):
    predict_perturbation(fitted, "B+D", seed=7, guidance=1.5)
    expected = fitted.obsm.pop("predicted").toarray()
    del fitted.uns["predicted"], fitted.varm["predicted_sd"]
    cells = predict_perturbation(fitted, ["A", "C"], seed=7, n_cells=30, as_anndata=True)
    assert cells is not None

    fitted.write_h5ad(tmp_path / "cells.h5ad")  # a zarr store gives the same flow, see below
    write_flow(fitted, read_flow(fitted), store=tmp_path / "flow")
    fitted.write_h5ad(tmp_path / "cells.store")
    command = [sys.executable, "-W", "ignore", "-c", IN_A_NEW_PROCESS, tmp_path]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    for kind in ("h5ad", "store"):
        with np.load(tmp_path / f"{kind}.npz") as found:
            np.testing.assert_array_equal(found["obsm"], expected, err_msg=kind)
            np.testing.assert_array_equal(found["cells"], cells.X, err_msg=kind)


@pytest.mark.parametrize("kind", ["h5ad", "zarr", "store", "dictionary"])
def test_values_and_types_survive(fitted, kind, tmp_path):
    flow = read_flow(fitted)
    flow.settings |= {"max_minutes": 0.25, "interrupted": True, "note": "a text", "seed": 3}
    write_flow(fitted, flow, store=tmp_path / "flow" if kind == "store" else None)
    if kind == "zarr":
        in_memory = pytest.importorskip("zarr").storage.MemoryStore()  # half the time of many small files
        fitted.write_zarr(in_memory)
        fitted = anndata.read_zarr(in_memory)
    elif kind == "h5ad":
        fitted.write_h5ad(tmp_path / "cells")
        fitted = anndata.read_h5ad(tmp_path / "cells")
    again = read_flow(fitted)
    assert_same(again, flow)
    assert again.fields.dose_key is None
    assert again.fields.layer is None
    assert again.settings["interrupted"] is True


def test_flow_without_covariates_survives(registered, tmp_path):
    from perturbflow.pp import setup_perturbation

    del registered.uns["split"]
    setup_perturbation(registered, perturbation_key="perturbation", control="control")
    fit_flow(
        registered,
        model_kwargs={"width": 8, "n_blocks": 1},
        max_steps=1,
        plan_kwargs={"batch_size": 8, "calibrate": False},
        split_key="none",
        progress_bar=False,
    )
    flow = read_flow(registered)
    registered.write_h5ad(tmp_path / "cells.h5ad")
    assert_same(read_flow(anndata.read_h5ad(tmp_path / "cells.h5ad")), flow)
    flow.save(tmp_path / "flow")
    assert_same(FittedFlow.load(tmp_path / "flow"), flow)


def test_store_is_one_file_and_uns_only_names_it(registered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit_flow(
        registered,
        model_kwargs={"width": 8, "n_blocks": 1},
        max_steps=1,
        plan_kwargs={"batch_size": 8},
        split_key="none",
        progress_bar=False,
        store="models/first",
    )
    folder = tmp_path / "models" / "first"
    assert [path.name for path in folder.iterdir()] == ["flow.safetensors"]
    with safe_open(folder / "flow.safetensors", framework="numpy") as file:
        values = json.loads(file.metadata()["values"])
        assert {name.split("/")[0] for name in file.keys()} == {
            "calibration",
            "history",
            "prior",
            "responses",
            "support",
            "weights",
        }
    assert registered.uns["flow"] == {"store": str(folder), "id": values["id"]}
    assert values["genes"] == list(registered.var_names)
    monkeypatch.chdir("/")
    predict_perturbation(registered, "A")


def test_store_gives_the_same_cells_as_uns(fitted, tmp_path):
    predict_perturbation(fitted, "A")
    expected = fitted.obsm["predicted"].toarray()
    write_flow(fitted, read_flow(fitted), store=tmp_path / "flow")
    predict_perturbation(fitted, "A")
    np.testing.assert_array_equal(fitted.obsm["predicted"].toarray(), expected)


def test_moved_directory_is_named(stored, tmp_path, unchanged):
    (tmp_path / "store").rename(tmp_path / "elsewhere")
    with unchanged(stored), pytest.raises(FileNotFoundError, match="If the directory has moved, set the `store` entry"):
        predict_perturbation(stored, "A")
    stored.uns["flow"]["store"] = str(tmp_path / "elsewhere")
    predict_perturbation(stored, "A")


def test_directory_without_a_flow_is_named(stored):
    (Path(stored.uns["flow"]["store"]) / "flow.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"Expected `flow.safetensors` in .*, found no fitted flow"):
        read_flow(stored)


@pytest.mark.parametrize(
    ("found", "advice"), [(99, "from a later version. Update perturbflow"), (1, "from an earlier version. Fit again")]
)
@pytest.mark.parametrize("kind", ["uns", "store"])
def test_other_formats_are_refused(fitted, tmp_path, rewrite, kind, found, advice):
    if kind == "store":
        write_flow(fitted, read_flow(fitted), store=tmp_path)
        path = tmp_path / "flow.safetensors"
        rewrite(path, lambda arrays, values: values.update(format=found), kind="a fitted flow")
    else:
        fitted.uns["flow"]["format"] = found
    with pytest.raises(ValueError, match=f"Expected a fitted flow of format 6 in .*, found {found} {advice}"):
        read_flow(fitted)


@pytest.mark.parametrize("found", [2.5, "2", [2], None, np.array([2, 2])])
def test_what_is_no_format_is_refused(fitted, found):
    fitted.uns["flow"]["format"] = found
    with pytest.raises(ValueError, match="Expected a fitted flow in .*a format that is not a whole number"):
        read_flow(fitted)


def test_store_of_an_earlier_version_is_named(stored, tmp_path):
    save_file({"prior/variance": np.ones(3)}, tmp_path / "store" / "flow.safetensors")
    with pytest.raises(
        ValueError, match="found a file with other content, or from an earlier version .* Fit again with"
    ):
        read_flow(stored)


def test_another_fit_in_a_store_is_not_taken_for_the_first(fitted, tmp_path, unchanged):
    first, folder = fitted.copy(), tmp_path / "store"
    write_flow(first, read_flow(fitted), store=folder)
    predict_perturbation(first.copy(), "A")
    second = fitted.copy()
    second.uns["flow"]["config"]["guidance"] = 2.0  # what a checksum of the weights would not tell
    write_flow(second, read_flow(second), store=folder)
    ids = [adata.uns["flow"]["id"] for adata in (first, second)]
    with (
        unchanged(first),
        pytest.raises(
            ValueError, match=f"Expected the fitted flow '{ids[0]}' in .*, found another one, '{ids[1]}'"
        ) as error,
    ):
        predict_perturbation(first, "A")
    assert str(folder) in str(error.value)
    assert "Fit again with another `store`" in str(error.value)
    first.uns["flow"]["id"] = ids[1]
    assert read_flow(first).flow.config.guidance == read_flow(second).flow.config.guidance == 2
    del first.uns["flow"]["id"]  # as earlier versions named a store
    assert read_flow(first).flow.config.guidance == 2


def test_the_same_flow_may_be_stored_again(stored, tmp_path):
    before = stored.uns["flow"]["id"]
    read_flow(stored).save(tmp_path / "store")
    read_flow(stored)
    flow = read_flow(stored)
    flow.history["seconds"] += 1  # nothing is predicted from it
    assert flow.save(tmp_path / "store") == before
    stored.write_h5ad(tmp_path / "cells.h5ad")
    assert read_flow(anndata.read_h5ad(tmp_path / "cells.h5ad")).genes == flow.genes


def test_missing_and_wrong_entries_are_named(fitted):
    with pytest.raises(KeyError, match=r"Expected 'flo' in `adata.uns`, found \['flow'"):
        read_flow(fitted, "flo")
    fitted.uns["text"] = "flow"
    with pytest.raises(ValueError, match=r"Expected a fitted flow in `adata.uns\['text'\]`, found something else"):
        read_flow(fitted, "text")
