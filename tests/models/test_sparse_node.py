from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from perturbflow.datasets import hill_network
from perturbflow.models import SparseNODE
from perturbflow.predict import read_dynamics
from perturbflow.tl import fit_dynamics, forecast, infer_graph, simulate_knockout

QUICK: dict[str, Any] = {"effort": 0.01, "strength": 0.01, "plan_kwargs": {"n_candidates": 2}}
TIME = np.linspace(0, 2, 5)


@pytest.fixture(scope="module")
def trained():
    adata = hill_network(n_genes=4, n_trajectories=4, n_times=10)
    SparseNODE.setup_anndata(adata, time_key="time", trajectory_key="trajectory")
    model = SparseNODE(adata)
    model.train(**QUICK, progress_bar=False)
    return model


@pytest.fixture
def adata():
    cells = hill_network(n_genes=4, n_trajectories=4, n_times=10)
    SparseNODE.setup_anndata(cells, time_key="time", trajectory_key="trajectory")
    return cells


def test_same_fit_as_the_functions(trained, adata):
    fit_dynamics(adata, **QUICK, progress_bar=False)
    forecast(adata, until=2.0, n_times=5)
    np.testing.assert_allclose(trained.forecast(TIME), adata.uns["forecast"]["values"], rtol=1e-5)
    simulate_knockout(adata, "gene1", until=2.0, n_times=5)
    np.testing.assert_allclose(
        trained.simulate_knockout({"gene1": 0.0}, TIME), adata.uns["knockout"]["perturbed"], rtol=1e-5
    )
    infer_graph(adata, n_bootstraps=1)
    pd.testing.assert_frame_equal(trained.graph(n_bootstraps=1), adata.uns["dynamics_graph"]["edges"])
    # And the fit can go into AnnData.
    adata.uns["model"] = trained.fitted.to_dict()
    assert read_dynamics(adata, "model").genes == list(adata.var_names)


def test_new_starts(trained):
    start = np.array([0.5, 0.4, 0.3, 0.2])
    found = trained.forecast(TIME, start=start)
    assert found.shape == (1, 5, 4)
    np.testing.assert_allclose(found[0, 0], start)
    held = trained.simulate_knockout({"gene2": 0.9, "gene0": 0.0}, TIME, start=np.stack([start, 2 * start]))
    assert held.shape == (2, 5, 4)
    np.testing.assert_allclose(held[..., 2], 0.9)
    assert (held[..., 0] == 0).all()
    with pytest.raises(KeyError, match="Expected one of the 4 genes of the fit, found 'gene7'"):
        trained.simulate_knockout({"gene7": 0.0}, TIME)


@pytest.mark.parametrize("with_adata", [True, False])
def test_saved_model_is_the_same(trained, adata, tmp_path, with_adata):
    trained.save(str(tmp_path / "model"))
    again = SparseNODE.load(str(tmp_path / "model"), adata=adata if with_adata else False)
    assert again.is_trained
    assert again.options == trained.options
    np.testing.assert_array_equal(again.forecast(TIME), trained.forecast(TIME))
    pd.testing.assert_frame_equal(again.graph(), trained.graph())
    for name, value in trained.module.state_dict().items():
        assert torch.equal(value, again.module.state_dict()[name]), name
    assert again.history.keys() == trained.history.keys()
    if not with_adata:
        with pytest.raises(
            ValueError, match="Expected cells for 2 bootstraps, found a model that was loaded without any"
        ):
            again.graph(n_bootstraps=2)


def test_history_is_tables_by_stage(trained):
    history = trained.history
    assert {"path", "matching", "shooting"} <= set(history)
    for table in history.values():
        assert list(table) == ["loss"]
        assert table.index.name == "step"
        assert np.isfinite(table["loss"]).all()


def test_registration_by_the_function_is_enough(time_courses):
    model = SparseNODE(time_courses)
    assert model.adata_manager.adata is time_courses
    model.train(**QUICK, progress_bar=False)
    assert model.fitted.fields.perturbation_key == "perturbation"
    # Held genes stay where they are in the runs of the fit.
    assert (np.ptp(model.forecast(TIME)[6:, :, 1], axis=1) == 0).all()


def test_models_know_all_control_labels(tmp_path):
    adata = hill_network(n_genes=4, n_trajectories=3, n_times=5, knockouts=["gene0"])
    labels = adata.obs["perturbation"].astype(str)
    adata.obs["perturbation"] = labels.where(adata.obs["trajectory"] != adata.obs["trajectory"].iloc[0], "Neg 1")
    SparseNODE.setup_anndata(
        adata,
        time_key="time",
        trajectory_key="trajectory",
        perturbation_key="perturbation",
        control=["control", "Neg 1"],
    )
    model = SparseNODE(adata)
    assert model.registry_["setup_args"]["control"] == ["control", "Neg 1"]
    model.train(**QUICK, progress_bar=False)
    model.save(tmp_path / "model")
    assert SparseNODE.load(tmp_path / "model", adata=adata).fitted.fields.controls == ("control", "Neg 1")


def test_fields_are_those_of_the_function():
    adata = hill_network(n_genes=4, n_trajectories=3, n_times=5, knockouts=["gene0"])
    adata.layers["other"] = adata.X + 1
    SparseNODE.setup_anndata(
        adata,
        time_key="time",
        trajectory_key="trajectory",
        regulators=["gene1"],
        prior=pd.DataFrame({"source": ["gene1"], "target": ["gene2"]}),
        perturbation_key="perturbation",
        separator=",",
        layer="other",
    )
    fields = adata.uns["dynamics_fields"]
    assert fields["regulators"] == ["gene1"]
    assert (fields["separator"], fields["layer"], fields["has_prior"]) == (",", "other", True)
    model = SparseNODE(adata)
    np.testing.assert_array_equal(model.adata_manager.get_from_registry("X"), adata.layers["other"])


def test_what_needs_training(adata):
    model = SparseNODE(adata)
    for ask in (lambda: model.forecast(TIME), lambda: model.simulate_knockout({"gene0": 0.0}, TIME), model.graph):
        with pytest.raises(RuntimeError, match="train"):
            ask()


def test_checkpoint_is_used(adata, tmp_path, monkeypatch, caplog):
    from perturbflow.dynamics import DynamicsTrainer

    def stop(self) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DynamicsTrainer, "shoot", stop)
        SparseNODE(adata).train(**QUICK, checkpoint=tmp_path / "saved", progress_bar=False)
    assert "Interrupted" in caplog.text
    model = SparseNODE(adata)
    model.train(**QUICK, checkpoint=tmp_path / "saved", progress_bar=False)
    whole = SparseNODE(adata)
    whole.train(**QUICK, progress_bar=False)
    np.testing.assert_array_equal(model.forecast(TIME), whole.forecast(TIME))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"sparsity": "lasso"}, ValueError, "Expected `sparsity` to be one of"),
        ({"depth": 3}, TypeError, r"keys of `model_kwargs` among .* found \['depth'\]"),
        ({"hiden": (3,)}, TypeError, "Instead of 'hiden' use 'hidden'"),
    ],
)
def test_bad_options(adata, unchanged, options, error, message):
    with unchanged(adata), pytest.raises(error, match=message):
        SparseNODE(adata, **options)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"strength": -1}, ValueError, "Expected `strength` to be from 0"),
        ({"plan_kwargs": {"n_bin": 9}}, TypeError, "Instead of 'n_bin' use 'n_bins'"),
        ({"plan_kwargs": {"hidden": (3,)}}, TypeError, "'hidden' is one of the model's options"),
    ],
)
def test_bad_options_of_training(adata, unchanged, options, error, message):
    model = SparseNODE(adata)
    with unchanged(adata), pytest.raises(error, match=message):
        model.train(**options)


def test_cells_without_registration_are_refused():
    adata = hill_network(n_genes=4, n_trajectories=2, n_times=5)
    with pytest.raises(ValueError, match="setup_anndata"):
        SparseNODE(adata)


def test_summary_names_the_options(adata, capsys):
    print(repr(SparseNODE(adata)))  # noqa: T201
    assert "SparseNODE with field=per_target, sparsity=group_lasso, order=1" in " ".join(
        capsys.readouterr().out.split()
    )


def test_new_starts_by_name(trained):
    start = pd.DataFrame([[0.2, 0.3, 0.4, 0.5]], columns=["gene3", "gene2", "gene1", "gene0"])
    np.testing.assert_allclose(trained.forecast(TIME, start=start)[0, 0], [0.5, 0.4, 0.3, 0.2])
    np.testing.assert_allclose(trained.simulate_knockout({"gene1": 0.0}, TIME, start=start)[0, 0], [0.5, 0.0, 0.3, 0.2])
    with pytest.raises(ValueError, match=r"all 4 genes in `start`, found that 1 are missing: \['gene3'\]"):
        trained.forecast(TIME, start=start[["gene2", "gene1", "gene0"]])
    with pytest.raises(ValueError, match=r"`start` of shape \(number of starts, 4\), found \(3,\)"):
        trained.forecast(TIME, start=np.ones(3))
