"""The model classes with one modality of a MuData."""

from __future__ import annotations

from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scvi.data.fields import BaseMuDataWrapperClass

from perturbflow.datasets import hill_network
from perturbflow.models import PRiMeFlow, SparseNODE
from perturbflow.pp import setup_dynamics, setup_perturbation

SMALL: Any = {"width": 16, "n_blocks": 1, "source": "noise"}
QUICK: Any = {
    "plan_kwargs": {"calibrate": False, "batch_size": 32},
    "max_steps": 2,
    "split_key": "none",
    "progress_bar": False,
}
FIELDS: Any = {"perturbation_key": "perturbation", "control": "control", "covariate_keys": ["cell_type"]}
# A warning of scvi-tools about itself, where it looks for cells that it has minified.
pytestmark = pytest.mark.filterwarnings("ignore:The method mod_names is deprecated:FutureWarning")

RNA: Any = {"modalities": {"layer": "rna"}}
DYNAMICS: Any = {"time_key": "time", "trajectory_key": "trajectory"}
BRIEF: dict[str, Any] = {"effort": 0.01, "strength": 0.01, "plan_kwargs": {"n_candidates": 2}}
TIME = np.linspace(0, 2, 5)


def without_registration(adata):
    for key in ("perturbation_fields", "split"):
        del adata.uns[key]
    del adata.obsm["perturbation_doses"]
    return adata


@pytest.fixture
def unregistered(registered, with_protein):
    return with_protein(without_registration(registered.copy()))


def trained(cells):
    model = PRiMeFlow(cells, **SMALL)
    model.train(**QUICK)
    return model


def test_same_registry_through_the_fields_of_mudata(registered, unregistered):
    alone = without_registration(registered)
    for adata in (alone, unregistered["rna"]):
        adata.obs["plate"] = np.where(np.arange(adata.n_obs) % 2, "p1", "p2")
        adata.layers["logged"] = adata.X.copy()
    PRiMeFlow.setup_anndata(alone, **FIELDS, batch_key="plate", layer="logged")
    PRiMeFlow.setup_mudata(unregistered, **FIELDS, **RNA, batch_key="plate", layer="logged")
    expected, found = PRiMeFlow(alone, **SMALL), PRiMeFlow(unregistered, **SMALL)
    assert unregistered["rna"].uns["perturbation_fields"] == alone.uns["perturbation_fields"]
    assert found.registry["setup_method_name"] == "setup_mudata"
    assert found.registry["setup_args"] == expected.registry["setup_args"] | RNA
    assert found.registry["field_registries"].keys() == expected.registry["field_registries"].keys()
    assert dict(found.summary_stats) == dict(expected.summary_stats)
    for each in found.adata_manager.fields:
        assert isinstance(each, BaseMuDataWrapperClass)
        assert each.mod_key == "rna"
        registry = found.registry["field_registries"][each.registry_key]
        assert registry["data_registry"]["mod_key"] == "rna"
        values = found.adata_manager.get_from_registry(each.registry_key)
        same = expected.adata_manager.get_from_registry(each.registry_key)
        dense = [x.toarray() if sparse.issparse(x) else np.asarray(x) for x in (values, same)]
        np.testing.assert_array_equal(dense[0], dense[1])


def test_model_of_a_modality_is_that_of_its_cells(mdata, registered):
    expected = trained(registered.copy()).predict("B+D", seed=3)
    del mdata["rna"].uns["split"]
    PRiMeFlow.setup_mudata(mdata, **FIELDS, **RNA)
    model = trained(mdata)
    assert model.adata is mdata
    np.testing.assert_array_equal(model.predict("B+D", seed=3), expected)
    # Control cells of another MuData, or of an AnnData.
    np.testing.assert_array_equal(model.predict("B+D", mdata.copy(), seed=3), expected)
    np.testing.assert_array_equal(model.predict("B+D", registered, seed=3), expected)


def test_registration_by_the_functions_is_enough(mdata):
    before = mdata["rna"].uns["perturbation_fields"]
    model = PRiMeFlow(mdata, **SMALL)
    assert mdata["rna"].uns["perturbation_fields"] is before
    assert model.registry["setup_args"]["modalities"] == {"layer": "rna"}
    mdata["protein"].uns["perturbation_fields"] = before
    with pytest.raises(ValueError, match=r"fields in one modality, found them in \['rna', 'protein'\]. .*setup_mudata"):
        PRiMeFlow(mdata.copy())
    with pytest.raises(ValueError, match=r"found them in \[\]. Run `SparseNODE.setup_mudata\(mdata, modalities"):
        SparseNODE(mdata.copy())


def test_saved_model_goes_on_with_another_mudata(mdata, unregistered, tmp_path, with_protein, registered):
    model = trained(mdata)
    expected = model.predict("B+D", seed=5)
    model.save(str(tmp_path / "model"))
    again = PRiMeFlow.load(str(tmp_path / "model"), adata=unregistered)
    assert again.adata is unregistered
    assert "perturbation_fields" in unregistered["rna"].uns
    np.testing.assert_array_equal(again.predict("B+D", seed=5), expected)
    again.train(**QUICK)
    np.testing.assert_array_equal(again.predict("B+D", seed=5), expected)

    alone = PRiMeFlow.load(str(tmp_path / "model"), adata=False)
    np.testing.assert_array_equal(alone.predict("B+D", mdata, seed=5), expected)
    with pytest.raises(ValueError, match="Expected control cells in `adata`, found none"):
        alone.predict("B+D")
    with pytest.raises(ValueError, match="those of the MuData in `adata`, found 'rna'"):
        alone.predict("B+D", mudata.MuData({"gex": registered}))


def test_saved_with_its_mudata(mdata, tmp_path):
    model = trained(mdata)
    model.save(str(tmp_path / "model"), save_anndata=True)
    again = PRiMeFlow.load(str(tmp_path / "model"))
    assert isinstance(again.adata, mudata.MuData)
    np.testing.assert_array_equal(again.predict("A"), model.predict("A"))


def test_fields_are_transferred(mdata, unregistered):
    model = PRiMeFlow(mdata, **SMALL)
    other = unregistered[:300].copy()
    setup_perturbation(other, **FIELDS, modality="rna")
    manager = model.adata_manager.transfer_fields(other)
    np.testing.assert_array_equal(manager.get_from_registry("X").toarray(), other["rna"].X.toarray())


def test_network_of_another_model_is_taken_over(mdata, registered):
    first = trained(registered)
    again = PRiMeFlow(mdata)
    again.train(**QUICK, init_from=first.fitted)
    assert again.fitted.flow.config.width == 16


def test_sparse_array_of_the_modality_becomes_a_matrix(mdata, caplog):
    mdata["rna"].X = sparse.csr_array(mdata["rna"].X)
    PRiMeFlow(mdata, **SMALL)
    assert "The sparse array was converted to a CSR matrix" in caplog.text
    assert isinstance(mdata["rna"].X, sparse.csr_matrix)


@pytest.mark.parametrize(
    ("modalities", "error", "message"),
    [
        ({"layer": "atac"}, ValueError, r"Expected `modality` to be one of \['rna', 'protein'\].*found 'atac'"),
        ({}, ValueError, r"Expected one modality .* in `modalities`, found \[\]"),
        ({"layer": "rna", "perturbation_key": "protein"}, ValueError, r"one modality .* found \['protein', 'rna'\]"),
        (
            {"label_key": "rna"},
            ValueError,
            r"Expected `modalities` for the arguments .* found \['label_key'\]",
        ),
        (
            "rna",
            TypeError,
            r'Expected `modalities` to be a dictionary of modalities by argument, such as {"layer": "rna"}',
        ),
    ],
)
def test_wrong_modalities(unregistered, unchanged, modalities, error, message):
    with unchanged(unregistered["rna"]), pytest.raises(error, match=message):
        PRiMeFlow.setup_mudata(unregistered, **FIELDS, modalities=modalities)


def test_unknown_arguments_are_refused_before_anything_is_written(registered, unregistered, unchanged):
    known = r"Expected keys of `{}.setup_anndata` among .*, found \['{}'\]"
    with unchanged(registered), pytest.raises(TypeError, match=known.format("PRiMeFlow", "labels_key")):
        PRiMeFlow.setup_anndata(registered, **FIELDS, labels_key="plate")
    with (
        unchanged(registered),
        pytest.raises(TypeError, match=known.format("SparseNODE", "times_key") + ".*use 'time_key'"),
    ):
        SparseNODE.setup_anndata(registered, **DYNAMICS, times_key="time")
    with unchanged(unregistered["rna"]), pytest.raises(TypeError, match="Instead of 'layers' use 'layer'"):
        PRiMeFlow.setup_mudata(unregistered, **FIELDS, **RNA, layers="logged")


def test_wrong_kinds_of_cells(mdata, registered):
    with pytest.raises(TypeError, match="found AnnData. Use `setup_anndata` for an AnnData"):
        PRiMeFlow.setup_mudata(registered, **FIELDS, **RNA)
    with pytest.raises(TypeError, match="Expected an AnnData in `adata`, found a MuData. Use `setup_mudata`"):
        PRiMeFlow.setup_anndata(mdata, **FIELDS)
    with pytest.raises(TypeError, match="Expected an AnnData in `adata`, found a MuData. Use `setup_mudata`"):
        SparseNODE.setup_anndata(mdata, **DYNAMICS)
    with pytest.raises(TypeError, match=r"Pass one of its modalities, such as `adata\['rna'\]`"):
        trained(registered).predict("A", mdata)


def courses():
    return hill_network(n_genes=4, n_trajectories=4, n_times=10)


def test_dynamics_of_a_modality(with_protein, tmp_path):
    prior = pd.DataFrame({"source": ["gene1", "gene2"], "target": ["gene2", "gene0"], "weight": [-2.0, 0.5]})
    alone, mdata = courses(), with_protein(courses())
    SparseNODE.setup_anndata(alone, **DYNAMICS, prior=prior)
    SparseNODE.setup_mudata(mdata, **DYNAMICS, **RNA, prior=prior)
    expected, model = SparseNODE(alone), SparseNODE(mdata)
    assert model.registry["setup_args"] == expected.registry["setup_args"] | RNA
    for each in (expected, model):
        each.train(**BRIEF, progress_bar=False)
    np.testing.assert_array_equal(model.forecast(TIME), expected.forecast(TIME))
    pd.testing.assert_frame_equal(model.graph(n_bootstraps=1), expected.graph(n_bootstraps=1))

    model.save(str(tmp_path / "model"))
    other = with_protein(courses())
    again = SparseNODE.load(str(tmp_path / "model"), adata=other)
    # What is registered is all that was, also the prior network.
    assert other["rna"].uns["dynamics_fields"] == mdata["rna"].uns["dynamics_fields"]
    assert (other["rna"].varp["dynamics_prior"] != mdata["rna"].varp["dynamics_prior"]).nnz == 0
    pd.testing.assert_frame_equal(again.graph(n_bootstraps=1), model.graph(n_bootstraps=1))
    np.testing.assert_array_equal(
        SparseNODE.load(str(tmp_path / "model"), adata=False).forecast(TIME), model.forecast(TIME)
    )


def test_dynamics_that_a_function_registered(with_protein):
    mdata = with_protein(courses())
    setup_dynamics(mdata, **DYNAMICS, modality="rna")
    assert SparseNODE(mdata).registry["setup_args"]["modalities"] == {"layer": "rna"}
