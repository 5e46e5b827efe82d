"""What a function does with a MuData before it does its work, and afterwards."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mudata
import numpy as np
import pytest
from anndata import AnnData

import perturbflow as pf
from perturbflow.screen._fields import writable
from perturbflow.screen._modality import takes_modality

if TYPE_CHECKING:
    from mudata import MuData


@takes_modality
def mark(
    adata: AnnData | MuData,
    word: str = "x",
    *,
    label_key: str = "perturbation",
    covariate_keys: Any = (),
    as_shape: bool = False,
    modality: str | None = None,
    copy: bool = False,
) -> Any:
    """Write a word."""
    del label_key, covariate_keys
    if word == "":
        msg = "Expected a word, found none."
        raise ValueError(msg)
    if as_shape:
        return adata.shape
    adata = writable(adata, copy=copy)
    adata.uns["word"], adata.obs["word"] = word, word
    return adata if copy else None


@takes_modality
def kinds(
    adata: AnnData | MuData | Mapping[str, AnnData | MuData],
    predicted: AnnData | MuData | Mapping[str, Any] | None = None,
    *,
    modality: str | None = None,
) -> list[Any]:
    """Name the types that the function sees."""
    return [
        {key: type(entry).__name__ for key, entry in value.items()} if isinstance(value, Mapping) else type(value)
        for value in (adata, predicted)
    ]


def test_results_are_written_into_the_modality(mdata):
    adata = mdata["rna"]
    assert mark(mdata, modality="rna") is None
    assert adata.uns["word"] == "x"
    assert mdata["rna"] is adata
    mark(adata=mdata, modality="protein", word="y", label_key="none")
    assert mdata["protein"].uns["word"] == "y"
    assert "word" not in mdata.uns
    assert "word" not in mdata.obs


def test_anndata_is_as_ever(registered):
    assert mark(registered) is None
    assert registered.uns["word"] == "x"
    assert mark(registered, "y", copy=True).uns["word"] == "y"
    assert registered.uns["word"] == "x"


def test_a_copy_is_one_of_the_mudata(mdata):
    copy = mark(mdata, modality="rna", copy=True)
    assert isinstance(copy, mudata.MuData)
    assert copy["rna"].uns["word"] == "x"
    assert "word" not in mdata["rna"].uns
    copy["protein"].X[:] = -1
    assert (mdata["protein"].X >= 0).all()


@pytest.mark.parametrize("copy", [True, False])
def test_what_is_no_copy_is_returned_as_it_is(mdata, copy):
    assert mark(mdata, as_shape=True, modality="protein", label_key="none", copy=copy) == (600, 3)


def test_the_modality_has_to_be_named(mdata, registered):
    message = (
        r"Expected `modality` to be one of \['rna', 'protein'\], those of the MuData in `adata`, found None\. .*'rna'"
    )
    with pytest.raises(ValueError, match=message):
        mark(mdata)
    with pytest.raises(ValueError, match=r"one of \['rna'\], .* found None. .* `modality='rna'`"):
        mark(mudata.MuData({"rna": registered}))
    with pytest.raises(ValueError, match="found 'atac'"):
        mark(mdata, modality="atac")


def test_anndata_has_no_modality(registered):
    with pytest.raises(TypeError, match="Expected a MuData in `adata` for `modality='rna'`, found AnnData. Omit"):
        mark(registered, modality="rna")


def test_a_nested_mudata_is_refused(registered, with_protein):
    protein = with_protein(registered)["protein"]
    outer = mudata.MuData({"inner": mudata.MuData({"rna": registered}), "protein": protein})
    with pytest.raises(TypeError, match=r"found a MuData. Pass `adata\['inner'\]`"):
        mark(outer, modality="inner")
    mark(outer["inner"], modality="rna")
    assert outer["inner"]["rna"].uns["word"] == "x"


def test_every_argument_that_may_be_mudata_is_resolved(mdata, registered):
    other = mdata.copy()
    assert kinds(mdata, other, modality="rna") == [AnnData, AnnData]
    assert kinds(mdata, registered, modality="rna") == [AnnData, AnnData]
    given = {"tool": other, "cells": registered, "path": "file.h5ad"}
    assert kinds(mdata, given, modality="rna")[1] == {"tool": "AnnData", "cells": "AnnData", "path": "str"}
    assert isinstance(given["tool"], mudata.MuData)
    assert kinds({"a": mdata, "b": registered}, modality="rna")[0] == {"a": "AnnData", "b": "AnnData"}
    assert kinds({"b": registered})[0] == {"b": "AnnData"}
    with pytest.raises(TypeError, match=r"Expected an AnnData in `predicted`, .* such as `predicted\['rna'\]`"):
        kinds(registered, other)
    with pytest.raises(TypeError, match=r"Expected an AnnData in `predicted\['tool'\]`"):
        kinds(registered, given)
    with pytest.raises(ValueError, match=r"those of the MuData in `predicted`, found 'rna'"):
        kinds(mdata, mudata.MuData({"gex": registered}), modality="rna")
    with pytest.raises(TypeError, match="Expected a MuData in `adata`"):
        kinds({"b": registered}, modality="rna")


def test_columns_of_the_table_of_all_modalities_are_pointed_at(mdata):
    mdata.obs["donor"] = "d1"
    mdata.obs["rna:cell_type"] = "T"
    with pytest.raises(
        KeyError, match=r"Expected 'donor' \(`label_key`\) in `mdata\['rna'\].obs`, found it only in `mdata.obs`"
    ):
        mark(mdata, label_key="donor", modality="rna")
    with pytest.raises(KeyError, match=r"`covariate_keys`.* Run `mdata.push_obs\(\['donor'\], mods=\['rna'\]\)` first"):
        mark(mdata, covariate_keys=["cell_type", "donor"], modality="rna")
    with pytest.raises(KeyError, match="Pass 'cell_type'"):
        mark(mdata, covariate_keys="rna:cell_type", modality="rna")
    mdata.push_obs(["donor"], mods=["rna"])  # what the message says
    mark(mdata, label_key="donor", modality="rna")
    assert list(mdata["rna"].obs["donor"].unique()) == ["d1"]


def test_a_split_of_all_modalities_is_not_passed_over(mdata):
    mdata.obs["split"] = mdata["rna"].obs.pop("split")
    with pytest.raises(KeyError, match=r"Expected 'split' \(`split_key`\) in `mdata\['rna'\].obs`"):
        pf.tl.fit_flow(mdata, modality="rna", max_steps=1)


@pytest.mark.filterwarnings(
    "ignore:The inplace keyword"
)  # of mudata; `pytest.warns` gives it out anew, as if it were ours
def test_a_view_becomes_a_copy_that_keeps_what_is_written(mdata, tmp_path, unchanged):
    view = mdata[:100]
    with unchanged(mdata["rna"]), pytest.warns(UserWarning, match="it was copied") as caught:
        mark(view, modality="rna")
    assert caught[0].filename == __file__
    assert not any(each.is_view for each in (view, view["rna"], view["protein"]))
    view.write_h5mu(tmp_path / "cells.h5mu")
    for cells in (view, view.copy(), view[:10], mudata.read_h5mu(tmp_path / "cells.h5mu")):
        assert cells["rna"].uns["word"] == "x"
        assert "word" in cells["rna"].obs
    assert mark(mdata[:100], modality="rna", copy=True).n_obs == 100


def test_a_view_of_refused_input_stays_a_view(mdata):
    view = mdata[:100]
    with pytest.raises(ValueError, match="Expected a word"):
        mark(view, "", modality="rna")
    assert view.is_view
    assert view["rna"].is_view
    assert mark(view, as_shape=True, modality="rna") == (100, 40)
    assert view.is_view


def test_a_file_is_refused_by_what_writes(mdata, tmp_path):
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    backed = mudata.read_h5mu(tmp_path / "cells.h5mu", backed=True)
    with pytest.raises(ValueError, match=r"found a MuData in a file. Read it with `mudata.read_h5mu\(path\)`"):
        mark(backed, modality="rna")
    assert kinds(backed, modality="rna")[0] is AnnData
    backed.file.close()


def test_wrong_calls_are_told_by_the_function_itself(mdata):
    with pytest.raises(TypeError, match=r"mark\(\) got an unexpected keyword argument 'colour'"):
        mark(mdata, colour="red")  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"kinds\(\) missing 1 required positional argument: 'adata'"):
        kinds()  # type: ignore[call-arg]


def test_functions_keep_their_names_and_can_be_sent_to_other_processes():
    function = pf.tl.fit_flow
    assert (function.__name__, function.__module__) == ("fit_flow", "perturbflow.tl._fit_flow")
    assert pickle.loads(pickle.dumps(function)) is function


@pytest.mark.filterwarnings("ignore:Left out .* conditions with too few cells")
def test_predictions_of_other_tools_may_be_mudata(mdata, registered, with_protein):
    options: Any = {"metrics": ["energy_distance"], "baselines": [], "n_permutations": 0, "progress_bar": False}
    tool = registered.copy()
    pf.tl.evaluate(registered, {"tool": tool}, **options)
    pf.tl.evaluate(mdata, {"tool": with_protein(tool)}, **options, modality="rna")
    found, expected = mdata["rna"].uns["evaluation"], registered.uns["evaluation"]
    assert set(found["model"]) >= {"tool"}
    np.testing.assert_array_equal(found["value"], expected["value"])
    pf.tl.evaluate(mdata, with_protein(tool), **options, modality="rna", key_added="one")
    assert "predicted" in set(mdata["rna"].uns["one"]["model"])


def test_a_flow_to_start_from_may_be_in_a_mudata(mdata, fitted, with_protein):
    options: Any = {"max_steps": 1, "plan_kwargs": {"calibrate": False}, "split_key": "none", "progress_bar": False}
    pf.tl.fit_flow(mdata, modality="rna", init_from=with_protein(fitted), **options)
    assert mdata["rna"].uns["flow"]["config"]["width"] == fitted.uns["flow"]["config"]["width"] == 16


@pytest.mark.parametrize("value", ["cells.h5ad", np.zeros((3, 2)), None])
def test_what_is_no_annotated_data_is_refused_by_name(value):
    for function in (pf.tl.evaluate, pf.tl.fit_flow, pf.tl.fit_dynamics, pf.pl.training):
        with pytest.raises(TypeError, match=f"Expected `adata` to be an AnnData, found {type(value).__name__}"):
            function(value)
    with pytest.raises(TypeError, match="Expected `adata` to be an AnnData"):
        pf.tl.fit_flow(adata=value)
    with pytest.raises(TypeError, match="adata"):
        pf.tl.fit_flow()  # type: ignore[call-arg]
