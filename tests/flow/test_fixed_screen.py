"""What is fitted to a fixed screen, as numbers: a change that is meant to keep results keeps these.

They are recorded anew by running this file with ``PERTURBFLOW_RECORD=1``, where results are meant to change.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from perturbflow.flow import (
    NETWORKS,
    AdditiveHurdlePrior,
    Calibration,
    CellData,
    ConditionalFlow,
    FlowConfig,
    GeneSupport,
    Responses,
    draw_path,
    flow_matching_errors,
    mean_expression,
    seed_of_step,
)

G, C, P = 18, 7, 12
FILE = Path(__file__).with_name("fixed_screen.json")


def assert_recorded(name, *arrays):
    """Compare mean, standard deviation and a sum weighted by place, which exchanged entries change, of each array."""
    found = []
    for array in arrays:
        values = np.asarray(array, dtype=np.float64).ravel()
        values = np.where(np.isfinite(values), values, -1)
        weights = np.cos(np.arange(values.size))
        found += [values.mean(), values.std(), values @ weights / len(weights)] if values.size else []
    recorded = json.loads(FILE.read_text())
    if os.environ.get("PERTURBFLOW_RECORD"):
        recorded[name] = [float(f"{value:.6g}") for value in found]
        FILE.write_text(json.dumps(recorded, indent=1, sort_keys=True) + "\n")
    size = max(map(abs, recorded[name]), default=0.0)
    np.testing.assert_allclose(found, recorded[name], rtol=2e-3, atol=1e-4 * size, err_msg=name)


def screen_of_contexts(rng):
    """Cells and features: contexts, the last without perturbations, in which effects differ along a direction that controls tell."""
    place = np.linspace(-1, 1, C)
    base = rng.gamma(2.0, 0.8, G) * np.exp(np.outer(place, rng.normal(0, 0.5, G)))
    effects = rng.normal(0, 0.6, (P, G)) * (rng.random((P, G)) < 0.5)
    factors, directions = rng.normal(size=(P, 2)), rng.normal(0, 0.5, (2, G))
    others = np.stack([place, rng.permutation(place)])  # the second is not what controls differ by
    counts, doses, contexts = [], [], []

    def add(context, dose, n_cells):
        present = dose > 0
        log_fold = (effects * np.minimum(dose, 1)[:, None]).sum(axis=0) + (
            present @ factors * others[:, context]
        ) @ directions
        responds = rng.random((n_cells, 1)) < 0.7
        counts.append(rng.poisson(base[context] * np.exp(np.where(responds, log_fold, 0.0))))
        doses.append(np.repeat(dose[None], n_cells, axis=0))
        contexts.extend([context] * n_cells)

    for context in range(C):
        add(context, np.zeros(P), 60)
        for component in range(P - 1 if context < C - 1 else 0):
            if context != 1 or component % 3:  # the second context has some of the perturbations
                add(context, np.eye(P)[component], 25)
    for dose in np.geomspace(0.05, 0.9, 9):  # more than there are levels
        add(0, dose * np.eye(P)[0], 25)
    for other in range(1, 5):
        add(0, np.eye(P)[0] + np.eye(P)[other], 25)
    cells = CellData(np.log1p(np.concatenate(counts)), np.concatenate(doses), np.array(contexts)[:, None])
    return cells, effects[:, :3] + rng.normal(0, 0.1, (P, 3))


@pytest.fixture(scope="module")
def screen():
    return screen_of_contexts(np.random.default_rng(7))


@pytest.fixture(scope="module")
def cells(screen):
    return screen[0]


@pytest.fixture(scope="module")
def prior(screen):
    return AdditiveHurdlePrior.fit(screen[0], features=screen[1])


@pytest.fixture(scope="module")
def responses(prior, cells):
    return Responses.fit(prior, cells)


@pytest.fixture(scope="module")
def new_controls(cells):
    return cells.x[:30] * 0.9


def test_prior(prior):
    assert prior.told_variances[:, 1].any()  # by the effects that were measured there
    assert prior.told_variances[:, -1].any()  # by controls alone
    assert prior.slope.any()
    assert prior.fraction.any()
    for name, array in prior.to_arrays().items():
        assert_recorded(f"prior.{name}", array)


def test_prior_of_a_single_context(screen):
    cells, features = screen
    prior = AdditiveHurdlePrior.fit(cells.subset(cells.covariates[:, 0] == 0), features=features)
    for name in ("shared", "effects", "effect_variances", "interactions", "interaction_variances", "fraction"):
        assert_recorded(f"single.{name}", getattr(prior, name))


CONDITIONS = {
    "control": np.zeros(P),
    "one": np.eye(P)[3],
    "below": 0.2 * np.eye(P)[0],
    "above": 3.0 * np.eye(P)[2],
    "pair": np.eye(P)[0] + np.eye(P)[2],
    "new pair": np.eye(P)[4] + np.eye(P)[5],
    "unseen": np.eye(P)[P - 1],
}


@pytest.mark.parametrize("name", CONDITIONS)
@pytest.mark.parametrize("place", [0, 1, C - 1, 99])
def test_distributions(prior, new_controls, name, place):
    context = prior.context(np.array([place]), new_controls)
    found = prior.distribution(CONDITIONS[name], context)
    sd = prior.distribution_sd(CONDITIONS[name], context)
    assert_recorded(f"{name}.{place}.distribution", found.expressed, found.mean)
    assert_recorded(f"{name}.{place}.sd", sd.angle, sd.mean, sd.correlation)
    assert_recorded(f"{name}.{place}.mean_expression", *mean_expression(prior, CONDITIONS[name], context))


def test_moved_and_drawn_cells(prior, responses, cells, new_controls):
    for place in (0, 99):
        context = prior.context(np.array([place]), new_controls)
        for name in ("one", "pair"):
            found = prior.distribution(CONDITIONS[name], context)
            latents = responses.of(prior, CONDITIONS[name], context)
            rng = np.random.default_rng(0)
            assert_recorded(f"{name}.{place}.latents", *(each.evidence for each in latents), len(latents))
            assert_recorded(f"{name}.{place}.moved", prior.move(cells.x[:60], found, context, rng=rng))
            moved = responses.move(prior, cells.x[:60], found, context, latents, rng=rng)
            assert_recorded(f"{name}.{place}.moved jointly", moved)
            assert_recorded(f"{name}.{place}.drawn", prior.sample(found, 50, rng=rng))


def test_responses(prior, responses):
    assert len(responses.groups)
    for group in np.unique(responses.groups):
        context = prior.context(prior.contexts[prior.group_contexts[group]])
        found = responses.of(prior, prior.groups.doses[[group]].toarray()[0], context)
        assert [each.evidence for each in found] == responses.evidence[responses.groups == group].tolist()
    for name, array in responses.to_arrays().items():
        assert_recorded(f"responses.{name}", array)


def test_calibration(cells):
    is_few = ~cells.perturbations[:, 3:].toarray().any(axis=1)
    part = cells.subset(np.isin(cells.covariates[:, 0], [0, 2]) & is_few)
    for field, array in Calibration.fit(part, n_folds=2).to_arrays().items():
        assert_recorded(f"calibration.{field}", array)


OPTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"gene_width": 2},
    "unet": {"multipliers": (1, 2), "attention_levels": (0,), "n_heads": 2, "patch": 2, "gene_order": range(G)[::-1]},
    "token_unet": {"n_heads": 2},
}
CHANGES: dict[str, dict[str, Any]] = {
    "control": {},
    "noise": {"source": "noise", "guidance": 1.5, "correction_scale": 0.5},
    "dopri5": {"method": "dopri5", "stratified": False},
    "rk4": {"method": "rk4", "n_steps": 2, "entry_time": 0.2},
    "prior": {"entry_time": 1.0},
}


@pytest.mark.parametrize("parametrisation", ["zero_inflated", "gaussian", "velocity"])
@pytest.mark.parametrize("network", NETWORKS)
def test_flow(prior, responses, cells, network, parametrisation):
    config = FlowConfig(
        n_genes=G,
        n_components=P,
        n_categories=(C,),
        parametrisation=parametrisation,
        network=network,
        width=8,
        network_options=OPTIONS[network],
    )
    flow = ConditionalFlow(config, prior, responses=responses, support=GeneSupport.of([cells.x]).rounded())
    with torch.no_grad():  # the same on all versions of torch
        for number, weights in enumerate(flow.network.parameters()):
            weights.copy_(0.3 * torch.sin(number + torch.arange(weights.numel()) ** 1.1).view_as(weights))
    for name, changes in CHANGES.items() if network == "mlp" else [("control", CHANGES["control"])]:
        found = flow.sample(cells.x[:20], CONDITIONS["pair"], np.array([0]), rng=np.random.default_rng(0), **changes)
        assert_recorded(f"{network}.{parametrisation}.{name}", found)
    doses, codes = cells.perturbations[::200].toarray(), cells.covariates[::200]
    x = torch.from_numpy(cells.x[::200])
    distribution = flow.gene_distribution(prior.distributions(doses, codes))
    t = torch.linspace(0, 0.95, len(x))[:, None]
    errors = flow_matching_errors(flow, x, distribution, flow.encode(doses, codes), t=t, x0=torch.cos(3 * x))
    assert_recorded(f"{network}.{parametrisation}.errors", errors.detach())


def test_what_a_step_draws():
    t, x0 = draw_path(5000, 2, torch.Generator().manual_seed(0))
    assert t.shape == (5000, 1)
    assert float(t.max()) == pytest.approx(0.99)
    assert float(t.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(x0.mean()) == pytest.approx(0.0, abs=0.05)
    assert float(x0.std()) == pytest.approx(1.0, abs=0.05)
    assert seed_of_step(0, 0) == 0xE220A8397B1DCDAF  # the first number of splitmix64 from 0
    assert seed_of_step(3, 7) == 10740533222099876715
    assert len({seed_of_step(seed, step) for seed in range(20) for step in range(20)}) == 400
