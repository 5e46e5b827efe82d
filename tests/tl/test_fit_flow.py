from __future__ import annotations

import inspect
import logging
import random
import re
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from scipy import sparse

from perturbflow.evaluation import registered_cells
from perturbflow.flow import AdditiveHurdlePrior
from perturbflow.models import PRiMeFlow
from perturbflow.pl import training
from perturbflow.pp import setup_perturbation, split_perturbations
from perturbflow.predict import read_flow
from perturbflow.screen import read_fields
from perturbflow.tl import fit_dynamics, fit_flow, predict_perturbation
from perturbflow.train._validation import ENTRY_TIMES

QUICK: Any = {
    "plan_kwargs": {"calibrate": False, "batch_size": 32},
    "model_kwargs": {"width": 16, "n_blocks": 1},
    "max_steps": 6,
    "progress_bar": False,
}
ALL: Any = {**QUICK, "split_key": "none"}  # all cells: no validation, which takes most of the time of a short fit


def but(options, **changes):
    """Options with some of them, or some of those in their dictionaries, changed."""
    return options | {
        name: options.get(name, {}) | value if isinstance(value, dict) else value for name, value in changes.items()
    }


def fitted_arrays(adata, key="flow"):
    """Weights and prior of a fitted flow by name."""
    flow = adata.uns[key]
    return {f"{part}/{name}": array for part in ("weights", "prior") for name, array in flow[part].items()}


def assert_same_flow(first, second):
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], err_msg=name)


def leaves(value):
    """Everything within nested dictionaries and lists."""
    if isinstance(value, dict):
        assert all(isinstance(key, str) and "/" not in key for key in value)
        value = list(value.values())
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, list) else [value]


def test_flow_is_plain_arrays_and_values(fitted):
    flow = fitted.uns["flow"]
    assert set(flow) == {
        "format", "config", "settings", "fields", "fitted_splits", "genes", "history", "prior", "responses", "support", "weights",
        "calibration", "guidance_curve", "init", "checksum",
    }  # fmt: skip
    assert {type(leaf) for leaf in leaves(flow)} <= {np.ndarray, str, int, float, bool}
    assert flow["genes"].tolist() == list(fitted.var_names)
    assert {array.dtype for array in flow["weights"].values()} == {np.dtype(np.float32)}
    assert any(array.any() for name, array in flow["weights"].items() if name.startswith("write"))
    assert flow["settings"]["max_steps"] == 10
    assert flow["settings"]["interrupted"] is False
    assert flow["settings"]["split_key"] == "split"
    assert flow["history"]["step"].tolist() == flow["history"]["valid_step"].tolist() == [10]
    assert np.isfinite(flow["history"]["loss"]).all()


def test_one_seed_gives_one_flow_and_another_another(registered):
    fit_flow(registered, **QUICK, key_added="a")
    np.random.seed(5)  # noqa: NPY002
    torch.manual_seed(5)
    fit_flow(registered, **QUICK, key_added="b")
    assert_same_flow(fitted_arrays(registered, "a"), fitted_arrays(registered, "b"))
    assert registered.uns["a"]["config"] == registered.uns["b"]["config"]
    fit_flow(registered, **ALL, seed=1, key_added="c")
    fit_flow(registered, **ALL, seed=2, key_added="d")
    assert (registered.uns["c"]["weights"]["read.weight"] != registered.uns["d"]["weights"]["read.weight"]).any()


def test_global_generators_are_left_alone(registered):
    def states():
        return repr(np.random.get_state()), torch.get_rng_state().tolist(), random.getstate()  # noqa: NPY002

    before = states()
    fit_flow(registered, **QUICK)
    predict_perturbation(registered, "A")
    assert states() == before


def test_test_cells_are_never_looked_at(registered):
    other = registered.copy()
    is_test = (other.obs["split"] == "test").to_numpy()
    x = other.X.toarray()
    x[is_test] = x[is_test][:, ::-1] * 0.7
    other.X = sparse.csr_matrix(x)
    fit_flow(registered, **QUICK)
    fit_flow(other, **QUICK)
    assert_same_flow(fitted_arrays(registered), fitted_arrays(other))
    assert registered.uns["flow"]["config"] == other.uns["flow"]["config"]
    assert registered.uns["flow"]["history"]["valid_energy"] == other.uns["flow"]["history"]["valid_energy"]


def test_validation_cells_choose_and_then_join_the_prior(registered):
    seen = registered.obs["split"].isin(["train", "valid"]).to_numpy()
    fit_flow(registered, **QUICK)
    flow = read_flow(registered)
    assert flow.fitted_splits == ("train", "valid")
    assert flow.config["entry_time"] in ENTRY_TIMES
    assert flow.config["correction_scale"] in (0.0, 0.5, 1.0)
    expected = AdditiveHurdlePrior.fit(registered_cells(registered).subset(seen)).to_arrays()
    assert_same_flow(flow.flow.prior.to_arrays(), expected)
    only_training = AdditiveHurdlePrior.fit(
        registered_cells(registered).subset((registered.obs["split"] == "train").to_numpy())
    )
    assert len(only_training.group_contexts) < len(expected["group_contexts"])


def test_without_split_all_cells_train_and_the_log_says_so(registered, caplog):
    with caplog.at_level(logging.WARNING, logger="perturbflow"):
        fit_flow(registered, **ALL)
    assert "`adata.obs['none']` not found: all cells are training cells" in caplog.text
    flow = read_flow(registered)
    assert flow.fitted_splits == ("train",)
    assert flow.history["valid_energy"].size == 0
    assert_same_flow(flow.flow.prior.to_arrays(), AdditiveHurdlePrior.fit(registered_cells(registered)).to_arrays())


def test_split_without_validation_conditions_has_no_choices(registered):
    registered.obs["split"] = registered.obs["split"].astype(str).replace("valid", "test")
    fit_flow(registered, **QUICK)
    assert read_flow(registered).fitted_splits == ("train",)
    assert read_flow(registered).history["valid_step"].size == 0


@pytest.mark.parametrize("source", ["control", "noise"])
@pytest.mark.parametrize("parametrisation", ["zero_inflated", "gaussian", "velocity"])
def test_every_parametrisation_and_source_fits_and_predicts(registered, parametrisation, source):
    fit_flow(registered, **but(ALL, model_kwargs={"parametrisation": parametrisation, "source": source}))
    assert registered.uns["flow"]["config"]["parametrisation"] == parametrisation
    predict_perturbation(registered, "B+D")
    predicted = registered.obsm["predicted"][(registered.obs["perturbation"] == "control").to_numpy()].toarray()
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()


@pytest.mark.parametrize(
    "container",
    [sparse.csc_matrix, sparse.csr_array, sparse.csc_array, lambda x: x.toarray().astype(np.float64)],
    ids=["csc", "csr_array", "csc_array", "dense_float64"],
)
def test_container_of_the_expression_does_not_matter(registered, container):
    fit_flow(registered, **ALL)
    other = registered.copy()
    other.X = container(registered.X)
    fit_flow(other, **ALL)
    # Sums over cells may run in another order.
    for name, array in fitted_arrays(registered).items():
        np.testing.assert_allclose(fitted_arrays(other)[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    assert type(other.X) is type(container(registered.X))
    for adata in (registered, other):
        adata.uns["flow"] = registered.uns["flow"]
        predict_perturbation(adata, "A")
    np.testing.assert_array_equal(registered.obsm["predicted"].toarray(), other.obsm["predicted"].toarray())


def test_layer_is_used_instead_of_x(registered):
    fit_flow(registered, **ALL)
    layered = registered.copy()
    layered.layers["logged"] = layered.X.copy()
    layered.X = sparse.csr_matrix(np.expm1(layered.X.toarray()).round())
    setup_perturbation(
        layered, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"], layer="logged"
    )
    fit_flow(layered, **ALL)
    assert_same_flow(fitted_arrays(registered), fitted_arrays(layered))
    for adata in (registered, layered):
        predict_perturbation(adata, "A")
    np.testing.assert_array_equal(registered.obsm["predicted"].toarray(), layered.obsm["predicted"].toarray())


def test_copy_leaves_the_original_alone(registered, unchanged):
    with unchanged(registered):
        copy = fit_flow(registered, **ALL, copy=True)
    assert copy is not None
    assert read_flow(copy).genes == tuple(registered.var_names)


def test_view_becomes_a_copy_of_its_own(registered, unchanged):
    view = registered[(registered.obs["perturbation"] != "B+D").to_numpy()]
    with unchanged(registered), pytest.warns(UserWarning, match="`adata` is a view of another AnnData"):
        fit_flow(view, **ALL)
    assert not view.is_view
    assert "flow" in view.uns


def test_interruption_keeps_the_weights_so_far(registered, monkeypatch, caplog):
    step = PRiMeFlow._training_plan_cls.training_step

    def interrupted(plan, batch, batch_idx):
        if batch.number == 4:
            raise KeyboardInterrupt
        return step(plan, batch, batch_idx)

    monkeypatch.setattr(PRiMeFlow._training_plan_cls, "training_step", interrupted)
    fit_flow(registered, **QUICK)
    assert "Interrupted at step 4" in caplog.text
    assert registered.uns["flow"]["settings"]["interrupted"] is True
    assert any(array.any() for name, array in registered.uns["flow"]["weights"].items() if name.startswith("write"))
    predict_perturbation(registered, "A")
    assert np.isfinite(registered.obsm["predicted"].data).all()


def test_interruption_before_the_first_step_writes_nothing(registered, monkeypatch, unchanged):
    def interrupted(plan, batch, batch_idx):
        raise KeyboardInterrupt

    monkeypatch.setattr(PRiMeFlow._training_plan_cls, "training_step", interrupted)
    with unchanged(registered), pytest.raises(KeyboardInterrupt):
        fit_flow(registered, **QUICK)


def test_time_limit_ends_training(registered):
    fit_flow(registered, **but(ALL, max_steps=1000, plan_kwargs={"max_minutes": 0}))
    assert registered.uns["flow"]["history"]["step"].tolist() == [1]
    assert registered.uns["flow"]["settings"]["interrupted"] is False


def leak(adata):
    adata.obs["split"] = adata.obs["split"].astype(str).replace("test", "train")


def forget_fields(adata):
    del adata.uns["perturbation_fields"]


def no_training_cells(adata):
    adata.obs["split"] = "valid"
    del adata.uns["split"]


def unknown_split(adata):
    adata.obs["split"] = "fold 1"


def no_training_controls(adata):
    wanted = (adata.obs["perturbation"] == "control") & (adata.obs["cell_type"] == "type_1")
    adata.obs["split"] = np.where(wanted, "test", "train")
    del adata.uns["split"]


def raw_counts(adata):
    adata.X = sparse.csr_matrix(np.expm1(adata.X.toarray()).round())


def not_finite(adata):
    adata.X.data[3] = np.nan


def missing_column(adata):
    del adata.obs["cell_type"]


def unknown_label(adata):
    adata.obs["perturbation"] = adata.obs["perturbation"].astype(str).replace("A", "AA")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (leak, ValueError, r"Expected no cells of held-out conditions in training, found 80 cells of .*in \['train'\]"),
        (forget_fields, KeyError, r"Run `pf\.pp\.setup_perturbation\(adata, \.\.\.\)` first"),
        (no_training_cells, ValueError, "Expected training cells, found no 'train' in `adata.obs\\['split'\\]`"),
        (unknown_split, ValueError, "Expected 'train', 'valid' or 'test' in `adata.obs\\['split'\\]`, found"),
        (no_training_controls, ValueError, "control"),
        (raw_counts, ValueError, "Expected log1p-normalised expression in `adata.X`, found raw counts"),
        (not_finite, ValueError, "found NaN or infinite values"),
        (missing_column, KeyError, "Expected 'cell_type' in `adata.obs`"),
        (unknown_label, ValueError, "Expected a known perturbation, found 'AA'"),
    ],
)
def test_bad_cells_are_refused_before_anything_is_written(registered, unchanged, change, error, message):
    change(registered)
    with unchanged(registered), pytest.raises(error, match=message):
        fit_flow(registered, **(QUICK | {"max_steps": 1}))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"model_kwargs": {"parametrisation": "poisson"}}, ValueError, "Expected `parametrisation` to be one of"),
        (
            {"model_kwargs": {"source": "cells"}},
            ValueError,
            r"Expected `source` to be one of \['control', 'noise'\], found 'cells'",
        ),
        (
            {"model_kwargs": {"network": "lstm"}},
            ValueError,
            r"Expected `network` to be one of \['mlp', 'token_unet', 'unet'\], found 'lstm'",
        ),
        (
            {"preset": "paper"},
            ValueError,
            r"Expected `preset` to be one of \['default', 'primeflow', 'prior'\], found 'paper'",
        ),
        (
            {"model_kwargs": {"guidance": "high"}},
            TypeError,
            "Expected `guidance` to be \"auto\" or a number, found 'high'",
        ),
        ({"model_kwargs": {"guidance": float("nan")}}, ValueError, "Expected `guidance` to be finite, found nan"),
        (
            {"model_kwargs": {"network_options": {"depth": 3}}},
            ValueError,
            r"`network_options` of 'mlp' to be among .*found \['depth'\]",
        ),
        (
            {"trainer_kwargs": {"precision": "double"}},
            ValueError,
            "Expected `precision` to be '32-true' or 'bf16-mixed'",
        ),
        ({"model_kwargs": {"network_options": {"gene_width": -1}}}, ValueError, "gene_width"),
        ({"model_kwargs": {"width": 0}}, ValueError, "Expected `width` to be at least 1, found 0"),
        ({"model_kwargs": {"width": 16.5}}, TypeError, "Expected `width` to be a whole number"),
        ({"model_kwargs": {"n_blocks": -1}}, ValueError, "Expected `n_blocks` to be at least 1"),
        ({"max_steps": 0}, ValueError, "Expected `max_steps` to be at least 1, found 0"),
        ({"max_steps": 2.5}, TypeError, "Expected `max_steps` to be a whole number"),
        ({"plan_kwargs": {"batch_size": 0}}, ValueError, "Expected `batch_size` to be at least 1"),
        ({"plan_kwargs": {"patience": 0}}, ValueError, "Expected `patience` to be at least 1"),
        ({"plan_kwargs": {"learning_rate": 0.0}}, ValueError, "Expected `learning_rate` to be above 0"),
        ({"plan_kwargs": {"weight_decay": -0.1}}, ValueError, "Expected `weight_decay` to be at least 0"),
        (
            {"plan_kwargs": {"condition_dropout": 1.0}},
            ValueError,
            "Expected `condition_dropout` to be at least 0 and below 1",
        ),
        ({"plan_kwargs": {"max_minutes": -1.0}}, ValueError, "Expected `max_minutes` to be at least 0"),
        ({"seed": -1}, ValueError, "Expected `seed` to be at least 0, found -1"),
        (
            {"trainer_kwargs": {"accelerator": "abacus"}},
            ValueError,
            "Expected `accelerator` to be 'auto' or an available torch device",
        ),
        ({"plan_kwargs": {"learning_rat": 1.0}}, TypeError, "Instead of 'learning_rat' use 'learning_rate'"),
        ({"plan_kwargs": {"width": 8}}, TypeError, "'width' is one of the model's options"),
        ({"plan_kwargs": {"lr": 1.0}}, TypeError, "'lr' is called `learning_rate`"),
        ({"plan_kwargs": {"calibrate": 1}}, TypeError, "Expected `calibrate` to be True or False"),
        ({"model_kwargs": {"seed": 8}}, TypeError, r"found \['seed'\]. 'seed' is an argument of its own"),
        ({"model_kwargs": {"batch_size": 8}}, TypeError, "'batch_size' is a key of `plan_kwargs`"),
        ({"key_added": ""}, ValueError, "Expected `key_added` to be a string of at least one character"),
        ({"key_added": "my/flow"}, ValueError, "Expected `key_added` without '/'"),
        ({"key_added": "split"}, ValueError, "found 'split', which is reserved for pf.pp.split_perturbations"),
        ({"key_added": "perturbation_fields"}, ValueError, "Choose another `key_added`"),
    ],
    ids=lambda value: "-".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_bad_settings_are_refused_before_anything_is_written(registered, unchanged, settings, error, message):
    with unchanged(registered), pytest.raises(error, match=message):
        fit_flow(registered, **but(QUICK, **settings))


def test_places_to_write_to_are_checked_before_the_fit(registered, unchanged, tmp_path):
    file = tmp_path / "file"
    file.write_text("not a directory")
    for name in ("store", "checkpoint"):
        with (
            unchanged(registered),
            pytest.raises(NotADirectoryError, match=f"Expected `{name}` to be an existing or new directory"),
        ):
            fit_flow(registered, **QUICK, **{name: file})
    assert file.read_text() == "not a directory"


def test_earlier_flow_is_replaced(fitted):
    fit_flow(fitted, **ALL)
    assert fitted.uns["flow"]["settings"]["max_steps"] == 6
    assert read_flow(fitted).fields == read_fields(fitted)


def test_options_are_few_and_their_defaults_visible():
    for function in (fit_flow, fit_dynamics):
        _, *options = inspect.signature(function).parameters.values()
        assert len(options) <= 14
        without = {option.name for option in options if option.default is None}
        assert without <= {
            "model_kwargs",
            "plan_kwargs",
            "trainer_kwargs",
            "init_from",
            "store",
            "checkpoint",
            "modality",
        }


# --- presets, guidance, earlier flows


def test_the_prior_alone_is_a_preset(registered):
    """Without a network: the prior of training and validation cells, with calibrated uncertainty, after no step."""
    split_perturbations(registered, task="combination", test_fraction=0.4, valid_fraction=0.4)
    fit_flow(registered, preset="prior", progress_bar=False)
    fitted = read_flow(registered)
    assert fitted.config["entry_time"] == 1.0
    assert not fitted.history
    assert fitted.fitted_splits == ("train", "valid")
    assert fitted.calibration.n_conditions.any()
    known = registered_cells(registered).subset((registered.obs["split"] != "test").to_numpy())
    prior = AdditiveHurdlePrior.fit(known)
    np.testing.assert_allclose(fitted.flow.prior.effects, prior.effects, rtol=1e-6)
    label = registered.uns["split"]["held_out"]["perturbation"].iloc[0]
    cells = predict_perturbation(registered, label, as_anndata=True)
    assert cells is not None
    codes = np.array([0])
    context = prior.context(codes)
    doses = read_fields(registered).vocabulary.encode_perturbations([label]).toarray()[0]
    own = cells[(cells.obs["cell_type"] == read_fields(registered).vocabulary.covariates[0][1][0]).to_numpy()]
    expected = prior.distribution(doses, context).expressed
    assert np.abs((own.X > 0).mean(axis=0) - expected).max() < 1.5 / np.sqrt(own.n_obs)
    with pytest.raises(
        ValueError, match=r"Expected the history of a trained network in `adata.uns\['flow'\]`, found none"
    ):
        training(registered)


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"max_steps": 5}, ["max_steps"]),
        ({"model_kwargs": {"network": "unet", "width": 8}}, ["network", "width"]),
        ({"plan_kwargs": {"patience": 3, "calibrate": False}}, ["patience"]),
    ],
)
def test_the_prior_alone_takes_no_choices_for_a_network(registered, options, names):
    message = rf"Expected no {re.escape(str(names))} with `preset='prior'`, which has no network"
    with pytest.raises(ValueError, match=message):
        fit_flow(registered, preset="prior", progress_bar=False, **options)
    assert "flow" not in registered.uns


def test_preset_is_fitted_and_predicts(registered):
    fit_flow(registered, preset="primeflow", **but(ALL, max_steps=2, model_kwargs={"width": 4}))
    config = registered.uns["flow"]["config"]
    assert (config["network"], config["parametrisation"], config["source"]) == ("unet", "velocity", "noise")
    predict_perturbation(registered, "B+D")
    is_control = (registered.obs["perturbation"] == "control").to_numpy()
    predicted = registered.obsm["predicted"][is_control].toarray()
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()


def test_guidance_is_chosen_or_given(registered):
    fit_flow(registered, **QUICK)
    curve = registered.uns["flow"]["guidance_curve"]
    assert registered.uns["flow"]["config"]["guidance"] in curve["weight"]
    fit_flow(registered, **but(QUICK, model_kwargs={"guidance": 2.5}))
    assert registered.uns["flow"]["config"]["guidance"] == 2.5
    assert registered.uns["flow"]["guidance_curve"] == {}
    predict_perturbation(registered, "B+D")
    first = registered.obsm["predicted"].toarray()
    predict_perturbation(registered, "B+D", guidance=2.5)
    np.testing.assert_array_equal(registered.obsm["predicted"].toarray(), first)


def test_earlier_flow_is_where_a_fit_starts(registered):
    fit_flow(registered, **ALL, key_added="first")
    fit_flow(
        registered, **but(ALL, max_steps=1, plan_kwargs={"learning_rate": 1e-12}), init_from="first", key_added="second"
    )
    first, second = (registered.uns[key]["weights"] for key in ("first", "second"))
    for name, array in first.items():
        np.testing.assert_allclose(second[name], array, rtol=1e-4, atol=1e-6)
    init = registered.uns["second"]["init"]
    assert (init["n_shared_genes"], init["new_genes"]) == (registered.n_vars, [])
    assert registered.uns["first"]["init"] == {}


def test_network_of_an_earlier_flow_is_inherited(registered):
    fit_flow(registered, **but(ALL, model_kwargs={"width": 24, "parametrisation": "velocity"}), key_added="first")
    quick = {name: value for name, value in ALL.items() if name != "model_kwargs"}
    fit_flow(registered, **quick, init_from="first", key_added="second")
    first, second = (registered.uns[key]["config"] for key in ("first", "second"))
    assert (second["width"], second["n_blocks"], second["parametrisation"]) == (24, 1, "velocity")
    assert first == second


def test_earlier_flow_of_another_network_is_an_error(registered, unchanged):
    fit_flow(registered, **ALL)
    with unchanged(registered), pytest.raises(ValueError, match="width"):
        fit_flow(registered, **but(ALL, model_kwargs={"width": 8}), init_from="flow", key_added="other")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devicez": 2}, r"`trainer_kwargs` among .*found \['devicez'\]. Instead of 'devicez' use 'devices'"),
        ({"accumulate_grad_batches": 2}, "Instead of `accumulate_grad_batches`: a larger `batch_size`"),
        ({"max_steps": 2}, "Instead of `max_steps`: `max_steps` of the fit"),
    ],
)
def test_options_of_the_trainer_are_checked_before_any_work(registered, monkeypatch, unchanged, options, message):
    monkeypatch.setattr("perturbflow.train._fit.AdditiveHurdlePrior.fit", lambda *args, **kwargs: pytest.fail("work"))
    with unchanged(registered), pytest.raises(TypeError, match=message):
        fit_flow(registered, **ALL, trainer_kwargs=options)


def test_one_callback_needs_no_list(registered):
    seen = []

    class Seen(Callback):
        def on_fit_end(self, trainer, pl_module):
            seen.append(trainer.global_step)

    fit_flow(registered, **ALL, trainer_kwargs={"callbacks": Seen()})
    assert seen == [registered.uns["flow"]["history"]["step"][-1]]


def test_half_precision_is_close_to_full(registered):
    fit_flow(registered, **ALL, key_added="full")
    fit_flow(registered, **ALL, trainer_kwargs={"precision": "bf16-mixed"}, key_added="mixed")
    full, mixed = (registered.uns[key]["history"]["loss"][-1] for key in ("full", "mixed"))
    np.testing.assert_allclose(mixed, full, rtol=0.02)
    weights = [registered.uns[key]["weights"]["write.weight"] for key in ("full", "mixed")]
    assert (weights[0] != weights[1]).any()


def test_calibration_is_stored_with_the_flow(registered):
    fit_flow(registered, **but(ALL, plan_kwargs={"calibrate": True}))
    flow = read_flow(registered)
    assert flow.calibration.n_conditions.sum() > 0
    fit_flow(registered, **ALL)
    assert read_flow(registered).calibration.n_conditions.sum() == 0
