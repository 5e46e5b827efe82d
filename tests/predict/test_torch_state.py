"""What other code has set in torch changes neither results nor what comes after."""

from __future__ import annotations

from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from scipy import sparse

import perturbflow as pf
from perturbflow.predict._torch_state import usual_torch
from perturbflow.train import train_flow


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def meta():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


STATES = {
    "float64": double,
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "default_device": meta,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}


def found():
    return {
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "autocast": torch.is_autocast_enabled("cpu"),
        "chance": torch.get_rng_state().tolist(),
    }


@usual_torch()
def broken(within):
    within |= found() | {"tensor": torch.ones(1, requires_grad=True) * 2}
    raise RuntimeError


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_the_usual_state_holds_within_and_the_other_one_comes_back(state):
    usual = found()
    with state():
        before, within = found(), dict[str, Any]()
        with pytest.raises(RuntimeError):
            broken(within)
        assert found() == before
    tensor = within.pop("tensor")
    assert within == usual
    assert tensor.dtype == torch.float32
    assert tensor.requires_grad
    assert not tensor.is_inference()


def flow_results(adata):
    pf.tl.fit_flow(
        adata,
        max_steps=2,
        model_kwargs={"width": 8, "n_blocks": 1},
        plan_kwargs={"batch_size": 16, "calibrate": False},
        progress_bar=False,
        split_key="none",
    )
    adata.uns["flow"]["config"] |= {"entry_time": 0.5, "correction_scale": 1.0}
    pf.tl.predict_perturbation(adata, "A", n_steps=2)
    pf.tl.evaluate(
        adata,
        metrics=["rmse_of_mean_effects"],
        baselines=[],
        n_cells=20,
        n_resamples=2,
        n_steps=2,
        progress_bar=False,
        splits=["test"],
    )
    return [
        *adata.uns["flow"]["weights"].values(),
        adata.obsm["predicted"].toarray(),
        adata.uns["evaluation"]["value"].to_numpy(),
    ]


def dynamics_results(adata):
    pf.tl.fit_dynamics(adata, effort=0.01, sparsity="none", strength=0.0, eliminate=False, progress_bar=False)
    pf.tl.infer_graph(adata, n_bootstraps=0)
    pf.tl.forecast(adata, n_times=5)
    pf.tl.simulate_knockout(adata, "gene0", n_times=5)
    return [
        adata.varp["dynamics_graph"].toarray(),
        adata.uns["forecast"]["values"],
        adata.uns["knockout"]["perturbed"],
    ]


@pytest.fixture(scope="module")
def usual(_registered, _time_courses):
    return {"flow": flow_results(_registered.copy()), "dynamics": dynamics_results(_time_courses.copy())}


@pytest.mark.parametrize("state", STATES.values(), ids=STATES)
def test_fits_and_predictions_are_those_of_the_usual_state(state, usual, registered, time_courses):
    with state():
        before = found()
        flow, dynamics = flow_results(registered), dynamics_results(time_courses)
        assert found() == before
    for one, other in zip([*flow, *dynamics], [*usual["flow"], *usual["dynamics"]], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("state", [torch.no_grad, torch.inference_mode])
def test_trainers_alone_have_their_gradients(state):
    """Where no fields of an AnnData stand between, as with `pf.flow` and `pf.dynamics` themselves."""
    time = np.linspace(0.0, 6.0, 13)
    run = pf.dynamics.Trajectory("run", time, np.exp(-time)[:, None], np.ones(13), np.zeros(1, dtype=bool))
    config = pf.dynamics.FieldConfig(1, (0,), structure="linear", self_regulation=True)
    settings = pf.dynamics.DynamicsSettings(
        sparsity="none",
        strength=0.0,
        eliminate=False,
        matching_steps=2,
        path_steps=2,
        shooting_steps=2,
        solving_steps=2,
    )
    solutions = []
    for context in (state, torch.enable_grad):
        with context():
            fitted = pf.dynamics.DynamicsTrainer([run], config, settings).fit()
        solutions.append(fitted.solve(fitted.start, [0.0, 1.0]))
    np.testing.assert_array_equal(solutions[0], solutions[1])


@pytest.mark.parametrize("state", [double, torch.no_grad, torch.inference_mode])
def test_training_alone(state):
    rng = np.random.default_rng(0)
    doses = sparse.csr_matrix(np.repeat([[0.0], [1.0]], 40, axis=0).astype(np.float32))
    cells = pf.flow.CellData(rng.gamma(1.0, size=(80, 3)).astype(np.float32), doses, np.zeros((80, 0), dtype=np.int64))
    config = pf.flow.FlowConfig(n_genes=3, n_components=1, n_categories=(), width=8, n_blocks=1, n_steps=2)
    with state():
        flow = pf.flow.ConditionalFlow(config, pf.flow.AdditiveHurdlePrior.fit(cells))
        train_flow(flow, cells, pf.flow.TrainingSettings(max_steps=2, batch_size=16))
        sampled = flow.sample(cells.x[:5], np.ones(1, np.float32), np.zeros(0, dtype=np.int64), rng=rng)
    assert sampled.dtype == np.float32
    assert np.isfinite(sampled).all()
    assert {weight.dtype for weight in flow.network.state_dict().values() if weight.is_floating_point()} == {
        torch.float32
    }
