from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from scipy import sparse
from scvi.model import SCVI
from scvi.train import Trainer, TrainRunner

from perturbflow.evaluation import registered_cells
from perturbflow.flow import TrainingSettings
from perturbflow.models import FittedFlow, PRiMeFlow
from perturbflow.predict import read_flow, write_flow
from perturbflow.tl import fit_flow, predict_perturbation

SMALL: Any = {"width": 16, "n_blocks": 1}
QUICK: Any = {"plan_kwargs": {"calibrate": False, "batch_size": 32}, "max_steps": 6, "progress_bar": False}
FIELDS: Any = {"perturbation_key": "perturbation", "control": "control", "covariate_keys": ["cell_type"]}
PLAN: Any = PRiMeFlow._training_plan_cls  # what extensions inherit from
DATA: Any = PRiMeFlow._data_splitter_cls


def trained(adata, *, split_key="none", **options):
    model = PRiMeFlow(adata, **SMALL, **options)
    model.train(**QUICK, split_key=split_key)
    return model


def is_control(adata):
    return (adata.obs["perturbation"] == "control").to_numpy()


def test_same_fit_and_same_cells_as_the_functions(registered):
    adata = registered.copy()
    PRiMeFlow.setup_anndata(adata, **FIELDS)
    model = trained(adata, split_key="split")
    fit_flow(registered, model_kwargs=SMALL, **QUICK)
    flow, same = model.fitted, read_flow(registered)
    assert flow.config == same.config
    assert flow.fitted_splits == same.fitted_splits == ("train", "valid")
    for name, tensor in same.flow.network.state_dict().items():
        assert torch.equal(tensor, flow.flow.network.state_dict()[name]), name
    requests: list[dict[str, Any]] = [
        {},
        {"seed": 3, "guidance": 1.5, "n_steps": 3, "covariates": {"cell_type": "type_2"}},
    ]
    for options in requests:
        predict_perturbation(registered, "D+B", **options)
        expected = registered.obsm["predicted"]
        expected = expected[expected.getnnz(axis=1) > 0].toarray()
        np.testing.assert_array_equal(model.predict("B+D", **options), expected)


def test_fitted_flow_can_go_into_anndata(registered):
    model = trained(registered)
    write_flow(registered, model.fitted)
    predict_perturbation(registered, "A", seed=2)
    expected = registered.obsm["predicted"][is_control(registered)].toarray()
    np.testing.assert_array_equal(expected, model.predict("A", seed=2))


def test_registration_by_the_function_is_enough(registered):
    before = registered.uns["perturbation_fields"]
    model = trained(registered)
    assert model.is_trained
    assert registered.uns["perturbation_fields"] is before
    assert model.adata_manager.adata is registered


def test_history_is_tables_by_step(registered):
    history = trained(registered, split_key="split").history
    assert set(history) == {"loss", "learning_rate", "valid_energy"}
    for name, table in history.items():
        assert isinstance(table, pd.DataFrame)
        assert (list(table.columns), table.index.name, table.index.tolist()) == ([name], "step", [6])
        assert np.isfinite(table[name]).all()


@pytest.mark.parametrize("with_adata", [True, False])
def test_saved_model_predicts_the_same(registered, tmp_path, with_adata):
    model = trained(registered, source="noise" if with_adata else "control")
    expected = model.predict("B+D", seed=5)
    model.save(str(tmp_path / "model"))
    again = PRiMeFlow.load(str(tmp_path / "model"), adata=registered.copy() if with_adata else False)
    assert again.is_trained
    assert (again.preset, again.model_kwargs) == (model.preset, model.model_kwargs)
    assert again.fitted.settings == model.fitted.settings
    np.testing.assert_array_equal(again.predict("B+D", None if with_adata else registered, seed=5), expected)
    pd.testing.assert_frame_equal(again.history["loss"], model.history["loss"])
    for name, tensor in model.module.state_dict().items():
        assert torch.equal(tensor, again.module.state_dict()[name]), name


def test_weights_are_saved_once(registered, tmp_path):
    model = trained(registered)
    model.save(str(tmp_path / "model"))
    saved = torch.load(tmp_path / "model" / "model.pt", weights_only=False)
    assert "weights" not in saved["attr_dict"]["fitted_"]
    names = {name for name in saved["model_state_dict"] if name != "pyro_param_store"}
    assert names == {f"flow.network.{name}" for name in model.fitted.to_dict()["weights"]}
    # What was trained further afterwards is what predicts.
    again = PRiMeFlow.load(str(tmp_path / "model"), adata=registered)
    before = again.predict("A")
    with torch.no_grad():
        again.module.flow.network.write.bias += 1.0
    again.fitted.save(tmp_path / "store")
    assert not np.array_equal(again.predict("A"), before)
    write_flow(registered, FittedFlow.load(tmp_path / "store"))
    predict_perturbation(registered, "A")
    np.testing.assert_array_equal(registered.obsm["predicted"][is_control(registered)].toarray(), again.predict("A"))


def test_models_saved_by_earlier_versions_are_read(registered, tmp_path):
    model = trained(registered)
    model.fitted_ = model.fitted.to_dict()  # with the weights
    model.save(str(tmp_path / "model"))
    again = PRiMeFlow.load(str(tmp_path / "model"), adata=registered)
    np.testing.assert_array_equal(again.predict("A", seed=4), model.predict("A", seed=4))


def bare(cells) -> AnnData:
    """Cells without anything that was registered."""
    return AnnData(cells.X, obs=cells.obs[["perturbation", "cell_type"]].copy(), var=cells.var[[]].copy())


def test_control_cells_alone_are_enough_for_a_saved_model(registered, tmp_path):
    model = trained(registered)
    model.save(str(tmp_path / "model"))
    controls = bare(registered[is_control(registered)])
    again = PRiMeFlow.load(str(tmp_path / "model"), adata=controls)
    np.testing.assert_array_equal(again.predict("B+D", seed=5), model.predict("B+D", seed=5))
    assert controls.uns["perturbation_fields"]["vocabulary"]["components"] == ["A", "B", "C", "D"]
    some = bare(registered[is_control(registered) & (registered.obs["cell_type"] == "type_1")])
    again = PRiMeFlow.load(str(tmp_path / "model"), adata=some)
    assert again.predict("A").shape == some.shape


@pytest.mark.parametrize(
    ("column", "value", "match"),
    [
        (
            "perturbation",
            "E",
            r"knows, \['A', 'B', 'C', 'D'\], in `adata.obs\['perturbation'\]`, found \['E'\]. Control cells are",
        ),
        (
            "cell_type",
            "B",
            r"values of `adata.obs\['cell_type'\]` that the saved model knows, .* found \['B'\]. Control cells are",
        ),
    ],
)
def test_cells_that_a_saved_model_does_not_know_are_named(registered, tmp_path, unchanged, column, value, match):
    trained(registered).save(str(tmp_path / "model"))
    other = bare(registered)
    other.obs[column] = other.obs[column].astype(str).where(np.arange(other.n_obs) > 5, value)
    with unchanged(other), pytest.raises(ValueError, match=match):
        PRiMeFlow.load(str(tmp_path / "model"), adata=other)


@pytest.mark.filterwarnings("ignore:`var_names` for the loaded `model` does not match")
def test_genes_that_a_saved_model_needs_are_named(registered, tmp_path, unchanged):
    trained(registered).save(str(tmp_path / "model"))
    fewer = bare(registered[:, 1:])
    with (
        unchanged(fewer),
        pytest.raises(ValueError, match=f"found 1 missing: \\['{registered.var_names[0]}'\\], and 0"),
    ):
        PRiMeFlow.load(str(tmp_path / "model"), adata=fewer)


def test_model_without_cells_asks_for_control_cells(registered, tmp_path):
    trained(registered).save(str(tmp_path / "model"))
    model = PRiMeFlow.load(str(tmp_path / "model"), adata=False)
    with pytest.raises(ValueError, match="Expected control cells in `adata`, found none"):
        model.predict("A")


def test_new_control_cells_need_no_registration(registered):
    model = trained(registered)
    cells = registered[is_control(registered), registered.var_names[::-1]].copy()
    adata = AnnData(cells.X.toarray(), obs=cells.obs[["cell_type"]].copy(), var=cells.var[[]].copy())
    np.testing.assert_array_equal(model.predict("A", adata), model.predict("A"))
    assert list(adata.uns) == list(adata.obsm) == []


def test_sparse_array_becomes_a_matrix_with_a_log(registered, caplog):
    expected = trained(registered.copy()).predict("A")
    registered.X = sparse.csr_array(registered.X)
    model = trained(registered)
    assert "The sparse array was converted to a CSR matrix" in caplog.text
    assert isinstance(registered.X, sparse.csr_matrix)
    np.testing.assert_allclose(model.predict("A"), expected, rtol=1e-3, atol=1e-3)


def test_layer_and_batch_are_registered(registered):
    expected = registered.X.toarray()
    registered.layers["logged"] = sparse.csr_array(registered.X)
    registered.X = sparse.csr_matrix(np.expm1(expected).round())
    registered.obs["plate"] = np.where(np.arange(registered.n_obs) % 2, "p1", "p2")
    del registered.uns["split"]
    PRiMeFlow.setup_anndata(registered, **FIELDS, layer="logged", batch_key="plate")
    model = trained(registered)
    np.testing.assert_array_equal(model.adata_manager.get_from_registry("X").toarray(), expected)
    assert model.fitted.fields.context_keys == ("cell_type", "plate")
    assert model.predict("A", covariates={"plate": "p1"}).shape[0] < is_control(registered).sum()


def test_hooks_of_scvi_tools_are_live(registered):
    seen: list[Any] = []

    class Plan(PLAN):
        def training_step(self, batch, batch_idx):
            seen.append(("step", batch.number, len(batch.x)))
            return super().training_step(batch, batch_idx)

    class Data(DATA):
        def setup(self, stage):
            seen.append(("data", len(self.cells)))
            super().setup(stage)

    class Runner(TrainRunner):
        def __call__(self):
            seen.append(("runner", type(self.trainer)))
            super().__call__()

    class Model(PRiMeFlow):
        _training_plan_cls, _data_splitter_cls, _train_runner_cls = Plan, Data, Runner

    plain = trained(registered)
    model = Model(registered, **SMALL)
    model.train(**QUICK, split_key="none")
    assert seen == [("runner", Trainer), ("data", 600), *(("step", number, 32) for number in range(6))]
    assert model.trainer.global_step == 6
    for name, tensor in plain.module.state_dict().items():
        assert torch.equal(tensor, model.module.state_dict()[name]), name


def test_callbacks_and_loggers_of_lightning(registered, tmp_path):
    scores = []

    class Seen(Callback):
        def on_validation_end(self, trainer, pl_module):
            scores.append(float(trainer.callback_metrics["valid_energy"]))

    model = PRiMeFlow(registered, **SMALL)
    logger = CSVLogger(tmp_path, name="log", flush_logs_every_n_steps=1)
    options: dict[str, Any] = {
        "callbacks": [Seen()],
        "logger": logger,
        "log_every_n_steps": 1,
        "enable_progress_bar": False,
    }
    # `check_val_every_n_epoch` is what the tuner of scvi-tools passes besides.
    plan = QUICK["plan_kwargs"] | {"learning_rate": 1e-2, "validate_every": 3}
    model.train(**QUICK | options | {"check_val_every_n_epoch": 1, "plan_kwargs": plan})
    assert scores == model.history["valid_energy"]["valid_energy"].tolist()
    assert len(scores) == 2
    table = pd.read_csv(tmp_path / "log/version_0/metrics.csv")
    assert table["valid_energy"].dropna().tolist() == pytest.approx(scores)
    assert table["train_loss"].dropna().size == 6
    assert model.fitted.settings["learning_rate"] == 1e-2


def test_epochs_are_passes_over_the_training_cells(registered):
    model = PRiMeFlow(registered, **SMALL)
    model.train(2, batch_size=100, split_key="none", plan_kwargs={"calibrate": False}, progress_bar=False)
    assert model.history["loss"].index[-1] == 12
    assert model.fitted.settings["max_steps"] == 12


def test_arguments_are_those_of_scvi_tools():
    theirs = inspect.signature(SCVI.train).parameters
    ours = inspect.signature(PRiMeFlow.train).parameters
    shared = {"max_epochs", "accelerator", "devices", "batch_size", "plan_kwargs", "datamodule", "trainer_kwargs"}
    assert shared <= theirs.keys() & ours.keys()
    assert list(ours)[1] == list(theirs)[1] == "max_epochs"
    for name in ("max_epochs", "accelerator", "devices", "plan_kwargs", "datamodule"):
        assert ours[name].default == theirs[name].default, name


def test_another_source_of_batches(registered):
    seen = []

    class Controls(DATA):
        """Control cells alone."""

        def draw(self, number):
            seen.append(number)
            return torch.arange(4)

    cells = registered_cells(registered)
    settings = TrainingSettings(max_steps=6, batch_size=4)
    model = PRiMeFlow(registered, **SMALL)
    data = Controls(cells, cells.grouping(), settings)
    model.train(**QUICK, batch_size=4, split_key="none", datamodule=data)
    assert seen == list(range(6))


def test_summary_names_the_settings(registered, capsys):
    print(repr(PRiMeFlow(registered, **SMALL, source="noise")))  # noqa: T201
    printed = " ".join(capsys.readouterr().out.split())
    assert "PRiMeFlow with" in printed
    assert "source=noise" in printed
    assert "Training status: Not Trained" in printed


def test_deregistered_cells_are_forgotten(registered):
    model = PRiMeFlow(registered, **SMALL)
    assert model.get_anndata_manager(registered) is model.adata_manager
    model.deregister_manager(registered)
    assert model.get_anndata_manager(registered) is None
    PRiMeFlow(registered, **SMALL).train(**QUICK, split_key="none")


def test_cells_without_registration_are_refused(registered, unchanged):
    for name in ("perturbation_fields", "split"):
        del registered.uns[name]
    with unchanged(registered), pytest.raises(ValueError, match="setup_anndata"):
        PRiMeFlow(registered)


def test_prediction_needs_training(registered):
    with pytest.raises(RuntimeError, match="train"):
        PRiMeFlow(registered, **SMALL).predict("A")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"perturbation": "AX"}, ValueError, "Expected a known perturbation, found 'AX'"),
        ({"perturbation": ["A", "B"]}, TypeError, "Expected `perturbation` to be a string"),
        ({"dose": "1+2"}, ValueError, "found 2 in dose"),
        (
            {"covariates": {"cell_type": "T"}},
            ValueError,
            "Expected 'cell_type' to be one of .* as in `adata.obs`, found 'T'",
        ),
        ({"seed": 0.5}, TypeError, "Expected `seed` to be a whole number"),
        ({"guidance": "2"}, TypeError, "Expected `guidance` to be a number"),
    ],
)
def test_bad_requests_are_refused(registered, unchanged, options, error, message):
    model = trained(registered)
    with unchanged(registered), pytest.raises(error, match=message):
        model.predict(**({"perturbation": "A"} | options))


def test_extrapolation_warns_as_the_function_does(registered):
    model = trained(registered)
    with pytest.warns(UserWarning, match=r"The dose of \['A'\] is above the highest training dose") as caught:
        model.predict("A", dose=3)
    assert caught[0].filename == __file__


def test_raw_counts_are_refused(registered, unchanged):
    model = trained(registered)
    counts = registered.copy()
    counts.X = counts.layers["counts"]
    with unchanged(counts), pytest.raises(ValueError, match="Expected log1p-normalised expression in `adata.X`"):
        model.predict("A", counts)
    with unchanged(counts), pytest.raises(ValueError, match="Expected log1p-normalised expression in `adata.X`"):
        PRiMeFlow.setup_anndata(counts, **FIELDS)


@pytest.mark.parametrize(
    ("options", "settings", "message"),
    [
        ({"source": "cells"}, {}, "Expected `source` to be one of"),
        ({"width": 0}, {}, "Expected `width` to be at least 1"),
        ({}, {"max_steps": 0}, "Expected `max_steps` to be at least 1"),
        ({}, {"accelerator": "abacus"}, "an available torch device"),
        ({}, {"precision": "16-mixed"}, "Expected `precision` to be '32-true' or 'bf16-mixed'"),
        ({}, {"max_epochs": 0}, "Expected `max_epochs` to be at least 1"),
    ],
)
def test_bad_settings_are_refused(registered, options, settings, message):
    with pytest.raises(ValueError, match=message):
        PRiMeFlow(registered, **(SMALL | options)).train(**(QUICK | settings), split_key="none")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"momentum": 0.9}, r"keys of `plan_kwargs` among .*found \['momentum'\]"),
        ({"seed": 1}, "'seed' is an argument of its own"),
    ],
)
def test_unknown_settings_of_training_are_named(registered, given, message):
    with pytest.raises(TypeError, match=message):
        PRiMeFlow(registered, **SMALL).train(plan_kwargs=given)


def test_failed_training_leaves_the_model_untrained(registered):
    model = PRiMeFlow(registered, **SMALL)
    registered.obs["split"] = "train"
    with pytest.raises(ValueError, match="Expected no cells of held-out conditions in training"):
        model.train(**QUICK)
    assert not model.is_trained
