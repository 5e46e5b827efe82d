from __future__ import annotations

import copy
import logging
import os
import signal
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData

from perturbflow.datasets import hill_network
from perturbflow.dynamics import SPARSITIES, DynamicsTrainer
from perturbflow.pp import setup_dynamics
from perturbflow.predict import read_dynamics
from perturbflow.tl import fit_dynamics, forecast, infer_graph, simulate_knockout
from perturbflow.train._fit_dynamics import prior_factors

QUICK: dict[str, Any] = {"effort": 0.01, "progress_bar": False}
SHORT: dict[str, Any] = QUICK | {"strength": 0.01, "plan_kwargs": {"n_candidates": 1}}


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        if isinstance(value, dict):
            assert_same(value, other[name])
        elif isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(value, other[name])
        else:
            np.testing.assert_array_equal(value, other[name], err_msg=name)


def few(**options):
    return hill_network(**({"n_genes": 5, "n_trajectories": 4, "n_times": 10} | options))


@pytest.fixture
def small():
    adata = few()
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    return adata


def test_everything_that_is_promised(time_courses, unchanged):
    with unchanged(time_courses):
        copied = fit_dynamics(time_courses, **QUICK, copy=True)
    assert copied is not None
    found = copied.uns["dynamics"]
    path = found["sparsity_path"]
    assert list(path) == ["strength", "train_error", "valid_error", "valid_error_se", "n_edges", "chosen"]
    assert path["strength"].is_monotonic_increasing
    assert path["chosen"].sum() == 1
    assert found["n_edges"] == read_dynamics(copied).model.support().sum()
    assert np.isfinite(path[["train_error", "valid_error"]]).all().all()
    assert list(found["history"]) == ["stage", "step", "loss"]
    assert found["genes"].tolist() == list(time_courses.var_names)
    assert found["names"].tolist() == [*(f"{k}|control" for k in range(6)), "6|gene1", "7|gene1"]
    assert found["config"]["decay"]
    assert found["config"]["production"] == "bounded"
    assert not found["config"]["self_regulation"]
    # The gene that is held is marked in the runs where it is.
    np.testing.assert_array_equal(found["clamped"], (np.arange(8) > 5)[:, None] & (np.arange(5) == 1))
    assert fit_dynamics(copied, **SHORT) is None


def test_same_seed_same_fit(small):
    first = fit_dynamics(small, **SHORT, seed=2, copy=True)
    second = fit_dynamics(small, **SHORT, seed=2, copy=True)
    other = fit_dynamics(small, **SHORT, seed=3, copy=True)
    assert first is not None
    assert second is not None
    assert other is not None
    assert_same(first.uns["dynamics"], second.uns["dynamics"])
    assert not np.array_equal(
        first.uns["dynamics"]["weights"]["matrices_0"], other.uns["dynamics"]["weights"]["matrices_0"]
    )


def test_order_of_the_cells_does_not_matter(small):
    shuffled = small[np.random.default_rng(0).permutation(small.n_obs)].copy()
    for adata in (small, shuffled):
        fit_dynamics(adata, **SHORT)
        forecast(adata, n_times=3)
    np.testing.assert_allclose(shuffled.uns["forecast"]["values"], small.uns["forecast"]["values"], rtol=1e-4)


def test_fields_that_a_sparsity_has_not_are_refused(small, unchanged):
    for sparsity, kind in SPARSITIES.items():
        for field in {"per_target", "linear", "dense"} - set(kind.structures):
            options: dict[str, Any] = SHORT | {"sparsity": sparsity, "field": field, "model_kwargs": {"hidden": (6,)}}
            with unchanged(small), pytest.raises(ValueError, match="Expected `field` to be one of .* with `sparsity="):
                fit_dynamics(small, **options)


# All pairs are fitted in the tests of the trainer.
@pytest.mark.parametrize(
    ("sparsity", "field"), [*((name, "per_target") for name in SPARSITIES), ("l0", "linear"), ("l1", "dense")]
)
def test_every_sparsity_and_field(small, sparsity, field):
    options: dict[str, Any] = SHORT | {"sparsity": sparsity, "field": field, "model_kwargs": {"hidden": (6,)}}
    fit_dynamics(small, **options)
    forecast(small, n_times=4)
    assert np.isfinite(small.uns["forecast"]["values"]).all()
    for method in ("jacobian", "gates"):
        infer_graph(small, method=method, n_bootstraps=0)
        assert np.isfinite(small.varp["dynamics_graph"].data).all()
    simulate_knockout(small, "gene2")
    found = small.uns["knockout"]
    assert (found["perturbed"][..., 2] == 0).all()
    assert np.isfinite(found["perturbed"]).all()
    # What is not downstream of the gene does not change at all.
    reached, graph = {2}, small.varp["dynamics_graph"].toarray()
    support = read_dynamics(small).model.support()  # all genes are regulators
    for _ in range(5):
        reached |= {int(i) for j in reached for i in np.flatnonzero(support[:, j])}
    apart = [k for k in range(5) if k not in reached]
    assert (found["perturbed"] == found["unperturbed"])[..., apart].all()
    assert ((graph != 0).T <= support).all()


@pytest.mark.parametrize("checkpoint", [False, True])
@pytest.mark.parametrize("stage", ["match", "eliminate", "solve"])
def test_interrupted_fit_keeps_what_was_learned(small, monkeypatch, caplog, tmp_path, stage, checkpoint):
    folder = tmp_path / "checkpoint" if checkpoint else None
    with monkeypatch.context() as patch:

        def stop(self) -> None:
            raise KeyboardInterrupt

        patch.setattr(DynamicsTrainer, stage, stop)
        with caplog.at_level(logging.WARNING):
            fit_dynamics(small, **SHORT, checkpoint=folder)
    assert "Interrupted" in caplog.text
    assert small.uns["dynamics"]["settings"]["interrupted"] is True
    with pytest.warns(UserWarning, match="from an interrupted fit"):
        forecast(small, n_times=3)
    assert np.isfinite(small.uns["forecast"]["values"]).all()
    with pytest.warns(UserWarning, match="from an interrupted fit"):
        infer_graph(small, n_bootstraps=0)
    if folder is None:
        return
    # The same call goes on to what a fit without a break gives.
    assert folder.is_dir()
    fit_dynamics(small, **SHORT, checkpoint=folder)
    assert not folder.exists()
    whole = fit_dynamics(small, **SHORT, copy=True)
    assert whole is not None
    assert_same(small.uns["dynamics"], whole.uns["dynamics"])
    assert small.uns["dynamics"]["settings"]["interrupted"] is False


def test_interruption_before_anything_was_learned_leaves_the_cells_as_they_were(
    small, monkeypatch, tmp_path, unchanged
):
    def stop(self) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(DynamicsTrainer, "choose_strength", stop)
    with unchanged(small), pytest.raises(KeyboardInterrupt):
        fit_dynamics(small, **SHORT, checkpoint=tmp_path / "checkpoint")
    assert not (tmp_path / "checkpoint").exists()


@pytest.mark.parametrize("stage", ["path", "matching", "shooting", "solving"])
def test_sigterm_keeps_what_was_learned(small, monkeypatch, stage):
    record, handler = DynamicsTrainer._recorder, signal.getsignal(signal.SIGTERM)

    def killing(self, now):
        recorded = record(self, now)

        def and_kill(loss):
            recorded(loss)
            if now == stage:
                os.kill(os.getpid(), signal.SIGTERM)

        return and_kill

    monkeypatch.setattr(DynamicsTrainer, "_recorder", killing)
    fit_dynamics(small, **SHORT)
    assert small.uns["dynamics"]["settings"]["interrupted"] is True
    assert small.uns["dynamics"]["history"]["stage"].iloc[-1] == stage
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_loss_that_is_not_finite_names_the_genes(small, monkeypatch):
    from perturbflow.dynamics import _matching

    whole = _matching.window_errors

    def errors(*args, **kwargs):
        miss, size = whole(*args, **kwargs)
        spoiled = torch.where((torch.arange(len(miss)) == 3) & miss.requires_grad, torch.nan, 0.0)  # in training only
        return miss + spoiled, size

    monkeypatch.setattr(_matching, "window_errors", errors)
    with pytest.warns(
        UserWarning, match=r"became infinite or NaN in path by \['gene3'\] and matching by \['gene3'\]"
    ) as said:
        fit_dynamics(small, **SHORT)
    assert {one.filename for one in said} == {__file__}
    forecast(small, n_times=3)
    assert np.isfinite(small.uns["forecast"]["values"]).all()


def test_foreign_checkpoint_is_refused(small, monkeypatch, tmp_path, unchanged):
    def stop(self) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(DynamicsTrainer, "match", stop)
        fit_dynamics(small.copy(), **SHORT, checkpoint=tmp_path)
    with (
        unchanged(small),
        pytest.raises(ValueError, match=r"to belong to this fit, found another one: different \['settings'\]"),
    ):
        fit_dynamics(small, **SHORT, seed=1, checkpoint=tmp_path)
    small.obs["time"] *= 2
    with unchanged(small), pytest.raises(ValueError, match=r"different \['trajectories'\]"):
        fit_dynamics(small, **SHORT, checkpoint=tmp_path)


def test_regulators_and_prior(small):
    prior = pd.DataFrame({"source": ["gene3", "gene3"], "target": ["gene2", "gene4"], "weight": [5.0, 5.0]})
    setup_dynamics(small, time_key="time", trajectory_key="trajectory", regulators=["gene1", "gene3"], prior=prior)
    options: dict[str, Any] = QUICK | {"strength": 1.0, "eliminate": False, "effort": 0.03}
    weights = []
    for trust in (0.0, 1e5):
        fit_dynamics(small, **options, plan_kwargs={"prior_weight": trust})
        found = small.uns["dynamics"]
        assert found["config"]["regulators"] == [1, 3]
        infer_graph(small, n_bootstraps=0)
        weights.append(np.abs(small.varp["dynamics_graph"].toarray()))
        assert not weights[-1][[0, 2, 4]].any()
    ignored, trusted = weights
    # Edges of the prior are penalised less, others as before.
    assert trusted[3, 2] > ignored[3, 2]
    assert trusted[3, 4] > ignored[3, 4]
    np.testing.assert_allclose(trusted[1, 2] + trusted[1, 4], ignored[1, 2] + ignored[1, 4], atol=0.1)


def test_prior_factors_are_shares_of_the_mean_weight():
    from scipy import sparse

    from perturbflow.dynamics import FieldConfig

    prior = sparse.csr_matrix(np.array([[0, 1.0, 0], [0, 0, 0], [-3.0, 0, 0]]))
    found = prior_factors(prior, FieldConfig(3, (0, 2), order=2), weight=2.0)
    one = [[1.0, 1 / 4], [1 / 2, 1.0], [1.0, 1.0]]  # relative weights 1/2 and 3/2
    np.testing.assert_allclose(found, np.hstack([one, one]))


def test_second_order():
    adata = few(n_trajectories=4)
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    fit_dynamics(adata, **SHORT, order=2)
    config = adata.uns["dynamics"]["config"]
    assert (config["order"], config["decay"], config["production"], config["self_regulation"]) == (
        2,
        False,
        "free",
        True,
    )
    forecast(adata, n_times=3)
    simulate_knockout(adata, "gene0", start=np.ones(5))
    assert np.isfinite(adata.uns["forecast"]["values"]).all()
    assert (adata.uns["knockout"]["perturbed"][..., 0] == 0).all()


def test_levels_below_zero_are_not_produced(small):
    small.X = small.X - 5
    fit_dynamics(small, **SHORT)
    config = small.uns["dynamics"]["config"]
    assert (config["decay"], config["production"], config["self_regulation"]) == (False, "free", True)


def test_cells_are_binned():
    adata = few(n_times=30)
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    fit_dynamics(adata, **(SHORT | {"plan_kwargs": {"n_candidates": 1, "n_bins": 6}}))
    span = adata.uns["dynamics"]["span"]
    np.testing.assert_allclose(span, np.tile([0.2, 2.7], (4, 1)), atol=1e-9)


def test_view_becomes_a_copy(small, unchanged):
    view = small[small.obs["trajectory"].isin(["0", "1"])]
    with unchanged(small), pytest.warns(UserWarning, match="is a view"):
        fit_dynamics(view, **SHORT)
    assert not view.is_view
    assert view.uns["dynamics"]["names"].tolist() == ["0", "1"]


def test_progress_is_shown_where_somebody_looks(small, capsys, monkeypatch):
    monkeypatch.setattr("perturbflow._progress.is_watched", lambda: True)
    fit_dynamics(small, **(SHORT | {"progress_bar": True}))
    assert "fit dynamics: matching" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"field": "mlp"}, ValueError, "Expected `field` to be one of"),
        ({"sparsity": "lasso"}, ValueError, "Expected `sparsity` to be one of"),
        ({"model_kwargs": {"activation": "relu6"}}, ValueError, "Expected `activation` to be one of"),
        ({"strength": -1.0}, ValueError, "Expected `strength` to be from 0"),
        ({"strength": "best"}, TypeError, "Expected `strength` to be a number"),
        ({"plan_kwargs": {"strengths": [0.1, 0.01]}}, ValueError, "Expected `strengths` to be ascending"),
        ({"plan_kwargs": {"strengths": []}}, ValueError, "Expected `strengths` to be ascending"),
        ({"plan_kwargs": {"strengths": 0.1}}, TypeError, "Expected `strengths` to be a sequence"),
        ({"model_kwargs": {"hidden": 5}}, TypeError, "Expected `hidden` to be a sequence"),
        ({"model_kwargs": {"hidden": [0]}}, ValueError, "Expected `hidden` to be at least 1"),
        ({"order": 3}, ValueError, "Expected `order` to be 1 or 2"),
        ({"model_kwargs": {"decay": "yes"}}, TypeError, "Expected `decay` to be True, False or None"),
        ({"model_kwargs": {"self_regulation": 1}}, TypeError, "Expected `self_regulation` to be"),
        ({"model_kwargs": {"production": "linear"}}, ValueError, "Expected `production` to be one of"),
        ({"eliminate": 1}, TypeError, "Expected `eliminate` to be True or False"),
        ({"plan_kwargs": {"n_candidates": 0}}, ValueError, "Expected `n_candidates` to be at least 1"),
        ({"plan_kwargs": {"n_bins": 3}}, ValueError, "Expected `n_bins` to be at least 5"),
        ({"plan_kwargs": {"prior_weight": -1}}, ValueError, "Expected `prior_weight` to be from 0"),
        ({"plan_kwargs": {"displacement": -1}}, ValueError, "Expected `displacement` to be from 0"),
        ({"plan_kwargs": {"window": 0}}, ValueError, "Expected `window` to be from 0.01"),
        ({"effort": 0}, ValueError, "Expected `effort` to be from 0.01"),
        ({"plan_kwargs": {"n_bin": 9}}, TypeError, "Instead of 'n_bin' use 'n_bins'"),
        ({"model_kwargs": {"strengths": [1]}}, TypeError, "'strengths' is a key of `plan_kwargs`"),
        ({"model_kwargs": [("decay", True)]}, TypeError, "Expected `model_kwargs` to be a dictionary"),
        ({"seed": 1.5}, TypeError, "Expected `seed` to be a whole number"),
        (
            {"key_added": "dynamics_fields"},
            ValueError,
            "found 'dynamics_fields', which is reserved for pf.pp.setup_dynamics",
        ),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"checkpoint": __file__}, NotADirectoryError, "Expected `checkpoint` to be an existing or new directory"),
    ],
)
def test_bad_options(small, unchanged, options, error, message):
    with unchanged(small), pytest.raises(error, match=message):
        fit_dynamics(small, **(QUICK | options))


def test_dynamics_without_any_edge_are_pointed_out(small):
    with pytest.warns(UserWarning, match=r"No gene depends on any regulator.*Fit longer \(`effort`\)"):
        fit_dynamics(small, **(QUICK | {"strength": 1e3}))
    assert not read_dynamics(small).model.support().any()


def test_unregistered_or_constant_cells(small, unchanged):
    constant = copy.copy(small)
    constant.X = np.ones(small.shape, dtype=np.float32)
    with unchanged(constant), pytest.raises(ValueError, match="Expected expression that changes over time"):
        fit_dynamics(constant, **QUICK)
    del small.uns["dynamics_fields"]
    with unchanged(small), pytest.raises(KeyError, match="Run `pf.pp.setup_dynamics"):
        fit_dynamics(small, **QUICK)


LEFT_OUT = r"2 of 7 genes do not change in any trajectory .*: \['silent', 'noisy'\]"


@pytest.fixture
def with_genes_at_rest(small):
    """Five genes that move, one that is silent and one that is noise about 0."""
    noise = np.random.default_rng(0).normal(0, 0.01, small.n_obs)
    adata = AnnData(
        np.column_stack([np.zeros(small.n_obs), small.X, noise]),
        obs=small.obs,
        var=pd.DataFrame(index=["silent", *small.var_names, "noisy"]),
    )
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    return adata


def test_genes_that_do_not_move_have_no_say(small, with_genes_at_rest):
    fit_dynamics(small, **QUICK)
    with pytest.warns(UserWarning, match=LEFT_OUT) as said:
        fit_dynamics(with_genes_at_rest, **QUICK)
    assert [one.filename for one in said if "do not change" in str(one.message)] == [__file__]
    one, other = small.uns["dynamics"], with_genes_at_rest.uns["dynamics"]
    for name in ("decay", "production", "self_regulation"):
        assert one["config"][name] == other["config"][name]
    assert other["config"]["decay"]
    assert (other["strength"], other["threshold"]) == (one["strength"], one["threshold"])
    assert_close = np.testing.assert_allclose
    assert_close(other["sparsity_path"].astype(float), one["sparsity_path"].astype(float), rtol=1e-4)
    for adata in (small, with_genes_at_rest):
        infer_graph(adata, n_bootstraps=1)
        forecast(adata, n_times=4)
    for suffix in ("", "_evidence"):
        graph = with_genes_at_rest.varp[f"dynamics_graph{suffix}"].toarray()
        assert not graph[[0, 6]].any()
        assert not graph[:, [0, 6]].any()
        assert_close(graph[1:6, 1:6], small.varp[f"dynamics_graph{suffix}"].toarray(), rtol=1e-3, atol=1e-4)
    found = with_genes_at_rest.uns["forecast"]["values"]
    assert_close(found[..., 1:6], small.uns["forecast"]["values"], rtol=1e-3, atol=1e-4)
    assert not np.ptp(found[..., [0, 6]], axis=1).any()
    assert not found[..., 0].any()
    with pytest.warns(UserWarning, match="'noisy' has the same level in all cells of the fit"):
        simulate_knockout(with_genes_at_rest, {"noisy": 5.0})
    assert (with_genes_at_rest.uns["knockout"]["perturbed"][..., 6] == 5).all()


def test_prior_edges_of_genes_that_do_not_move_change_nothing(small, with_genes_at_rest):
    from perturbflow.models import DynamicsOptions
    from perturbflow.trajectories import read_dynamics_fields, trajectories_of

    prior = pd.DataFrame({"source": ["gene0", "gene1"], "target": ["gene1", "gene1"], "weight": [2.0, 9.0]})
    more = pd.DataFrame({"source": ["silent", "gene0"], "target": ["gene1", "noisy"], "weight": [50.0, 50.0]})
    factors = []
    for adata, table in ((small, prior), (with_genes_at_rest, pd.concat([prior, more]))):
        setup_dynamics(adata, time_key="time", trajectory_key="trajectory", prior=table)
        trajectories = trajectories_of(adata, read_dynamics_fields(adata))
        config = DynamicsOptions().config(trajectories, range(adata.n_vars))
        factors.append(prior_factors(adata.varp["dynamics_prior"], config, weight=1.0))
    # And no gene regulates itself here: its edge makes no other weaker.
    assert factors[0][1, 0] == 0.5
    assert (factors[1][[0, 6]] == 1).all()
    np.testing.assert_array_equal(factors[1][1:6], factors[0])


def test_a_gene_that_is_constant_but_held_at_other_levels_regulates():
    adata = few(knockouts=["gene1"], n_knockout_trajectories=2)
    held = adata.obs["perturbation"].astype(str) == "gene1"
    adata.X[:, 1] = np.where(held, 0.0, 2.0)
    setup_dynamics(adata, time_key="time", trajectory_key="trajectory", perturbation_key="perturbation")
    with pytest.warns(UserWarning, match=r"1 of 5 genes do not .*\['gene1'\] may still regulate others"):
        fit_dynamics(adata, **SHORT)
    config = adata.uns["dynamics"]["config"]
    assert (config["at_rest"], config["regulators"]) == ([1], [0, 1, 2, 3, 4])
    infer_graph(adata, n_bootstraps=0)
    assert not adata.varp["dynamics_graph"].toarray()[:, 1].any()
    forecast(adata, n_times=3)
    values = adata.uns["forecast"]["values"][..., 1]
    is_held = np.array(["gene1" in name for name in adata.uns["dynamics"]["names"]])
    np.testing.assert_allclose(values, np.tile(np.where(is_held, 0, 2)[:, None], 3), rtol=1e-6)


def test_regulators_that_do_not_vary(with_genes_at_rest, unchanged):
    setup_dynamics(with_genes_at_rest, time_key="time", trajectory_key="trajectory", regulators=["silent", "noisy"])
    with (
        unchanged(with_genes_at_rest),
        pytest.raises(
            ValueError, match="Expected a regulator whose level changes over time .*, found none among 2. Register"
        ),
    ):
        fit_dynamics(with_genes_at_rest, **QUICK)


def test_one_gene_that_moves(small):
    small.X[:, 1:] = 1.0
    with pytest.warns(UserWarning, match="4 of 5 genes do not change"):
        fit_dynamics(small, **SHORT)
    infer_graph(small, n_bootstraps=1)
    assert small.varp["dynamics_graph"].nnz == 0
    forecast(small, n_times=3)
    assert np.isfinite(small.uns["forecast"]["values"]).all()
    assert (small.uns["forecast"]["values"][..., 1:] == 1).all()


def test_genes_that_are_the_same_are_pointed_out(small):
    small.X[:, 3] = small.X[:, 1]
    with pytest.warns(UserWarning, match=r"the same levels everywhere: \[\['gene1', 'gene3'\]\]"):
        fit_dynamics(small, **SHORT)
    infer_graph(small, n_bootstraps=0)
    assert np.isfinite(small.varp["dynamics_graph"].data).all()
