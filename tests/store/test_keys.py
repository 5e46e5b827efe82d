"""Nothing is replaced but an earlier result of the same function, and nothing is left of that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import perturbflow as pf
from perturbflow.store._keys import RECORDS, check_key_added, check_name

EVALUATE: dict[str, Any] = {"n_resamples": 5, "n_permutations": 5, "n_cells": 20, "n_steps": 2, "progress_bar": False}
EVALUATE |= {"metrics": ["energy_distance"], "baselines": ["mean effect"], "splits": ["test"]}
FIT: dict[str, Any] = {
    "model_kwargs": {"width": 8, "n_blocks": 1},
    "max_steps": 1,
    "plan_kwargs": {"calibrate": False},
    "progress_bar": False,
}

# Every function that takes a key, the name that it has by default, and what it writes beside `uns[key]`.
FLOW: dict[str, tuple[Callable[..., Any], list[tuple[str, str]]]] = {
    "perturbation_feature_table": (
        lambda adata, **key: pf.pp.perturbation_features(adata, pd.DataFrame(np.eye(4, 2), index=list("ABCD")), **key),
        [],
    ),
    "split": (lambda adata, **key: pf.pp.split_perturbations(adata, task="cells", **key), [("obs", "{}")]),
    "flow": (lambda adata, **key: pf.tl.fit_flow(adata, **FIT, **key), []),
    "predicted": (
        lambda adata, **key: pf.tl.predict_perturbation(adata, ["A", "B"], n_steps=2, **key),
        [("obsm", "{}_A"), ("obsm", "{}_B"), ("varm", "{}_sd")],
    ),
    "evaluation": (
        lambda adata, **key: pf.tl.evaluate(adata, **EVALUATE, **key),
        [("uns", "{}_summary"), ("uns", "{}_verdicts"), ("uns", "{}_params")],
    ),
    "ranked_perturbations": (
        lambda adata, **key: pf.tl.rank_perturbations(adata, {"perturbation": "A"}, **key),
        [("uns", "{}_params")],
    ),
    "next_perturbations": (lambda adata, **key: pf.tl.next_perturbations(adata, n=2, **key), [("uns", "{}_params")]),
    "interaction_scores": (
        lambda adata, **key: pf.tl.interaction_scores(adata, ["B+D"], **key),
        [("uns", "{}_params"), *(("varm", f"{{}}{suffix}") for suffix in ("", "_sd", "_measured", "_measured_sd"))],
    ),
    "response_parts": (
        lambda adata, **key: pf.tl.explain_response(adata, min_cells=4, n_resamples=2, **key),
        [("uns", "{}_summary")],
    ),
}
DYNAMICS: dict[str, tuple[Callable[..., Any], list[tuple[str, str]]]] = {
    "dynamics": (lambda adata, **key: pf.tl.fit_dynamics(adata, effort=0.01, progress_bar=False, **key), []),
    "dynamics_graph": (
        lambda adata, **key: pf.tl.infer_graph(adata, method="correlation", **key),
        [("varp", "{}"), ("varp", "{}_evidence"), ("varp", "{}_rate")],
    ),
    "forecast": (lambda adata, **key: pf.tl.forecast(adata, n_times=3, **key), []),
    "knockout": (lambda adata, **key: pf.tl.simulate_knockout(adata, "gene0", n_times=3, **key), []),
}
WRITERS = FLOW | DYNAMICS


@pytest.fixture
def cells(request):
    def of(kind):
        return request.getfixturevalue("fitted" if kind in FLOW else "fitted_dynamics")

    return of


def foreign(adata, attribute: str) -> Any:
    """Content that no function writes."""
    square = {"varp": (adata.n_vars,) * 2, "obsm": (adata.n_obs, 2), "varm": (adata.n_vars, 2)}
    if attribute in square:
        return np.zeros(square[attribute])
    return np.array(["mine"] * adata.n_obs) if attribute == "obs" else {"mine": 1}


def places(kind):
    return [("uns", "{}"), *WRITERS[kind][1]]


@pytest.mark.parametrize(("kind", "attribute", "name"), [(kind, *place) for kind in WRITERS for place in places(kind)])
def test_other_content_is_never_replaced(kind, attribute, name, cells, unchanged):
    adata = cells(kind)
    getattr(adata, attribute)[name.format("mine")] = foreign(adata, attribute)
    write, _ = WRITERS[kind]
    with (
        unchanged(adata),
        pytest.raises(ValueError, match=r"Expected `key_added` to be free or .* found 'mine' with") as error,
    ):
        write(adata, key_added="mine")
    assert f"`adata.{attribute}[{name.format('mine')!r}]`" in str(error.value)
    assert "Choose another `key_added`, or delete that first." in str(error.value)


@pytest.mark.parametrize("kind", WRITERS)
def test_names_that_something_else_is_kept_under_are_refused(kind, cells, unchanged):
    adata = cells(kind)
    write, _ = WRITERS[kind]
    others = [*(name for name in RECORDS if name not in {kind, "lineage"}), "log1p", "perturbation_doses"]
    with unchanged(adata):
        for name in others:
            with pytest.raises(ValueError, match=f"an unused key, found '{name}'"):
                write(adata, key_added=name)
        for bad, error in {"a/b": ValueError, "": ValueError, 3: TypeError}.items():
            with pytest.raises(error, match="Expected `key_added`"):
                write(adata, key_added=bad)


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind not in {"flow", "dynamics"}])
def test_an_earlier_result_is_replaced_also_after_a_file(kind, cells, tmp_path):
    adata = cells(kind)
    write, _ = WRITERS[kind]
    write(adata, key_added="mine")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    before = [sorted(getattr(again, each)) for each in ("uns", "obsm", "varm", "varp", "obs")]
    write(again, key_added="mine")
    assert [sorted(getattr(again, each)) for each in ("uns", "obsm", "varm", "varp", "obs")] == before


@pytest.mark.parametrize("kind", ["flow", "dynamics"])
def test_stored_fits_are_recognised_after_a_file(kind, cells, tmp_path, unchanged):
    cells(kind).write_h5ad(tmp_path / "cells.h5ad")
    again = anndata.read_h5ad(tmp_path / "cells.h5ad")
    with unchanged(again):
        check_key_added(again, kind, kind)
        check_key_added(again, "another", kind)
    again.uns["folder"] = {"store": "somewhere", "price": 3}  # of a shop
    with pytest.raises(ValueError, match="found 'folder' with other content in `adata.uns\\['folder'\\]`"):
        check_key_added(again, "folder", kind)


def test_evaluation_does_not_replace_the_flow(fitted, unchanged):
    with (
        unchanged(fitted),
        pytest.raises(ValueError, match=r"found 'flow', which is reserved for pf\.tl\.fit_flow\. Choose"),
    ):
        pf.tl.evaluate(fitted, **EVALUATE, key_added="flow")
    pf.tl.predict_perturbation(fitted, "A", n_steps=2)


def test_another_prediction_leaves_nothing_of_the_earlier_one(fitted):
    fitted.obsm["predicted_of_mine"] = np.zeros((fitted.n_obs, 2))
    fitted.varm["other_sd"] = np.zeros((fitted.n_vars, 2))
    before = set(fitted.obsm)
    pf.tl.predict_perturbation(fitted, ["A", "B", "C"], n_steps=2)
    assert set(fitted.obsm) == {*before, "predicted_A", "predicted_B", "predicted_C"}
    pf.tl.predict_perturbation(fitted, ["B", "D"], n_steps=2)
    assert set(fitted.obsm) == {*before, "predicted_B", "predicted_D"}
    pf.tl.predict_perturbation(fitted, "A", n_steps=2)
    assert set(fitted.obsm) == {*before, "predicted"}
    assert list(fitted.varm["predicted_sd"]) == ["A"]
    assert set(fitted.varm) == {"predicted_sd", "other_sd"}


def test_predictions_under_two_keys_do_not_touch_each_other(fitted, unchanged):
    pf.tl.predict_perturbation(fitted, "B", n_steps=2, key_added="predicted_A")
    with unchanged(fitted), pytest.raises(ValueError, match=r"other content in `adata.obsm\['predicted_A'\]`"):
        pf.tl.predict_perturbation(fitted, ["A", "B"], n_steps=2)
    cells = pf.tl.predict_perturbation(fitted, ["A", "B"], n_steps=2, n_cells=4, as_anndata=True)
    assert cells is not None
    assert set(cells.uns) == {"predicted"}


def test_registered_columns_are_no_splits(registered, unchanged):
    with unchanged(registered), pytest.raises(ValueError, match=r"other content in `adata.obs\['cell_type'\]`"):
        pf.pp.split_perturbations(registered, task="cells", key_added="cell_type")


def test_fields_do_not_replace_other_content(registered, unchanged):
    call: dict[str, Any] = {"perturbation_key": "perturbation", "control": "control"}
    pf.pp.setup_perturbation(registered, **call)  # again
    joined = anndata.concat([registered[:300], registered[300:]])
    assert "perturbation_fields" not in joined.uns
    pf.pp.setup_perturbation(joined, **call)
    for attribute, name in (("uns", "perturbation_fields"), ("obsm", "perturbation_doses")):
        other = anndata.AnnData(registered.X, obs=registered.obs[["perturbation"]], var=registered.var)
        getattr(other, attribute)[name] = foreign(other, attribute)
        with unchanged(other), pytest.raises(ValueError, match="to be free or an earlier registration, found other"):
            pf.pp.setup_perturbation(other, **call)


def test_dynamics_fields_do_not_replace_other_content(time_courses, unchanged):
    call: dict[str, Any] = {"time_key": "time", "trajectory_key": "trajectory"}
    prior = pd.DataFrame({"source": ["gene0"], "target": ["gene1"]})
    pf.pp.setup_dynamics(time_courses, **call, prior=prior)
    assert "dynamics_prior" not in pf.pp.bin_pseudotime(time_courses, **call, n_bins=5).varp
    pf.pp.setup_dynamics(time_courses, **call)
    assert "dynamics_prior" not in time_courses.varp
    time_courses.varp["dynamics_prior"] = sparse.csr_matrix(np.eye(time_courses.n_vars, dtype=np.float32))
    for options in ({}, {"prior": prior}):
        with (
            unchanged(time_courses),
            pytest.raises(ValueError, match=r"other content in `adata.varp\['dynamics_prior'\]"),
        ):
            pf.pp.setup_dynamics(time_courses, **call, **options)
    time_courses.uns["bin_pseudotime"] = {"mine": 1}
    with pytest.raises(
        ValueError, match=r"found other content in `adata.uns\['bin_pseudotime'\]`. Rename or delete it"
    ):
        pf.pp.bin_pseudotime(time_courses, **call, n_bins=5)


def test_lineages_do_not_replace_a_column(time_courses):
    time_courses.obsm["fates"] = np.ones((time_courses.n_obs, 2))
    options: dict[str, Any] = {"time_key": "time", "names": ["a", "b"]}
    with pytest.raises(ValueError, match=r"found 'trajectory' with other content in `adata.obs\['trajectory'\]`"):
        pf.pp.assign_lineages(time_courses, "fates", **options, key_added="trajectory")
    assert "lineage" in pf.pp.assign_lineages(time_courses, "fates", **options).obs


def test_a_modality_is_guarded_as_an_anndata_is(fitted, with_protein):
    mdata = with_protein(fitted)
    mdata["rna"].varm["mine_sd"] = np.zeros((fitted.n_vars, 1))
    with pytest.raises(ValueError, match=r"other content in `adata.varm\['mine_sd'\]`"):
        pf.tl.predict_perturbation(mdata, "A", n_steps=2, key_added="mine", modality="rna")
    with pytest.raises(ValueError, match="an unused key"):
        pf.tl.evaluate(mdata, **EVALUATE, key_added="flow", modality="rna")
    assert set(mdata["rna"].uns) == set(fitted.uns)


def test_own_defaults_are_names_for_themselves():
    for kind in RECORDS:
        check_name(kind, kind)
