"""Fitted dynamics survive files."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

from perturbflow.predict import read_dynamics
from perturbflow.predict._dynamics_store import read_edges
from perturbflow.tl import forecast, infer_graph, simulate_knockout


def plain(values, path="uns") -> None:
    """Assert that a store holds nothing that h5ad cannot."""
    for name, value in values.items():
        assert isinstance(name, str)
        assert "/" not in name
        if isinstance(value, dict):
            plain(value, f"{path}/{name}")
        else:
            assert isinstance(value, np.ndarray | np.generic | pd.DataFrame | str | int | float | bool | list), name


@pytest.mark.parametrize("kind", ["h5ad", "zarr"])
def test_file_gives_the_same_forecast_response_and_graph(fitted_dynamics, tmp_path, kind):
    # A zarr store in memory takes half the time of many small files.
    place = tmp_path / "cells" if kind == "h5ad" else pytest.importorskip("zarr").storage.MemoryStore()
    (fitted_dynamics.write_h5ad if kind == "h5ad" else fitted_dynamics.write_zarr)(place)
    again = anndata.read_h5ad(place) if kind == "h5ad" else anndata.read_zarr(place)
    for adata in (fitted_dynamics, again):
        forecast(adata, n_times=7)
        simulate_knockout(adata, ["gene0", "gene2"], n_times=7)
        infer_graph(adata, n_bootstraps=0)
    for key, name in (("forecast", "values"), ("knockout", "perturbed"), ("knockout", "unperturbed")):
        np.testing.assert_array_equal(again.uns[key][name], fitted_dynamics.uns[key][name])
    pd.testing.assert_frame_equal(again.uns["dynamics_graph"]["edges"], fitted_dynamics.uns["dynamics_graph"]["edges"])
    # And results survive as well.
    fitted_dynamics.write_h5ad(tmp_path / "results.h5ad")
    results = anndata.read_h5ad(tmp_path / "results.h5ad")
    for key in ("forecast", "knockout", "dynamics_graph"):
        plain(fitted_dynamics.uns[key])
        assert results.uns[key].keys() == fitted_dynamics.uns[key].keys()
    np.testing.assert_array_equal(results.varp["dynamics_graph"].toarray(), again.varp["dynamics_graph"].toarray())


def test_everything_is_read_back(fitted_dynamics):
    plain(fitted_dynamics.uns["dynamics"])
    stored = read_dynamics(fitted_dynamics)
    assert stored.genes == list(fitted_dynamics.var_names)
    assert stored.regulators == stored.genes
    assert stored.position("gene3") == 3
    assert stored.fields.trajectory_key == "trajectory"
    fitted_dynamics.uns["again"] = stored.to_dict()
    for name, value in fitted_dynamics.uns["dynamics"].items():
        found = fitted_dynamics.uns["again"][name]
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(found, value)
        elif isinstance(value, dict):
            assert found.keys() == value.keys()
        else:
            np.testing.assert_array_equal(found, value)
    path = fitted_dynamics.uns["dynamics"]["sparsity_path"]
    assert path["strength"].is_monotonic_increasing
    assert path["chosen"].dtype == bool
    assert path["chosen"].sum() == 1
    assert stored.model.strength == path.loc[path["chosen"], "strength"].item()


@pytest.mark.parametrize("kind", ["uns", "h5ad"])
def test_an_interrupted_fit_says_so_wherever_it_is_used(fitted_dynamics, tmp_path, kind):
    stored = read_dynamics(fitted_dynamics)
    assert not stored.interrupted
    stored.settings["interrupted"] = True
    fitted_dynamics.uns["dynamics"] = stored.to_dict()
    if kind != "uns":
        fitted_dynamics.write_h5ad(tmp_path / "cells.h5ad")
        fitted_dynamics = anndata.read_h5ad(tmp_path / "cells.h5ad")
    said = r"The dynamics in `adata.uns\['dynamics'\]` are from an interrupted fit.*Run `pf.tl.fit_dynamics\(adata, key_added='dyn"
    for use in (
        lambda: forecast(fitted_dynamics, n_times=3),
        lambda: infer_graph(fitted_dynamics, n_bootstraps=0),
        lambda: simulate_knockout(fitted_dynamics, "gene0", n_times=3),
    ):
        with pytest.warns(UserWarning, match=said) as warned:
            use()
        # anndata has warnings of its own with the newest pandas.
        assert {one.filename for one in warned if "interrupted" in str(one.message)} == {__file__}


def test_fits_of_earlier_versions_do_not_say_whether_they_were_interrupted(fitted_dynamics):
    stored = read_dynamics(fitted_dynamics)
    del stored.settings["interrupted"]
    fitted_dynamics.uns["dynamics"] = stored.to_dict()
    assert not read_dynamics(fitted_dynamics).interrupted


def test_unknown_gene_has_similar_names(fitted_dynamics):
    with pytest.raises(KeyError, match=r"one of the 5 genes of the fit, found 'Gene0'.* \['gene0', 'gene1', 'gene2'\]"):
        read_dynamics(fitted_dynamics).position("Gene0")


def test_what_is_missing_or_something_else(fitted_dynamics, unchanged):
    with unchanged(fitted_dynamics):
        with pytest.raises(KeyError, match=r"Run `pf.tl.fit_dynamics\(adata, key_added='other'\)` first"):
            read_dynamics(fitted_dynamics, "other")
        with pytest.raises(ValueError, match="Expected fitted dynamics in .*'dynamics_fields'.* found something else"):
            read_dynamics(fitted_dynamics, "dynamics_fields")
        with pytest.raises(KeyError, match=r"the 5 genes that the dynamics were fitted to .* 1 missing: \['gene4'\]"):
            read_dynamics(fitted_dynamics[:, :4].copy())


def test_later_format_asks_for_an_update(fitted_dynamics):
    fitted_dynamics.uns["dynamics"]["format"] = 99
    with pytest.raises(ValueError, match="of format 1 in .*, found 99 from a later version. Update perturbflow"):
        read_dynamics(fitted_dynamics)


@pytest.mark.parametrize("edges", [None, 3, pd.DataFrame(), pd.DataFrame({"source": ["a"], "target": ["b"]})])
def test_what_is_no_table_of_edges_is_refused(edges):
    adata = AnnData(np.ones((2, 2)), uns={"graph": {"edges": edges}})
    with pytest.raises(KeyError, match="Expected '(source|weight)' in .*'edges'.*Run `pf.tl.infer_graph"):
        read_edges(adata, "graph")
