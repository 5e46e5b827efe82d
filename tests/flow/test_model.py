from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from perturbflow.flow import PARAMETRISATIONS, AdditiveHurdlePrior, ConditionalFlow, FlowConfig, integrate
from perturbflow.flow import _model as model_module

N_GENES = 12
DOSES, CODES = np.array([1.0, 0.0], dtype=np.float32), np.array([1])


@pytest.fixture
def screen(hurdle_screen):
    screen = hurdle_screen(N_GENES)
    effects = screen.rng.normal(0, 0.3, (2, N_GENES))
    for code in range(2):
        screen.add(300, [0, 0], [code], angle=0.15 * code)
        for j, doses in enumerate(([2, 0], [0, 1])):
            screen.add(200, doses, [code], angle=0.15 * code + effects[j])
    return screen


@pytest.fixture
def prior(screen):
    return AdditiveHurdlePrior.fit(screen.data())


@pytest.fixture
def controls(screen):
    return screen.cells(50, screen.angle + 0.15, screen.mean)


def flow_of(prior, *, trained=True, **settings):
    """A flow; "trained" weights are random, so that every part of the network matters."""
    flow = ConditionalFlow(FlowConfig(N_GENES, 2, (2,), width=16, **{"stratified": False} | settings), prior)
    if trained:
        generator = torch.Generator().manual_seed(1)
        for parameter in flow.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.2
    return flow


def sample(flow, controls, *, seed=0, doses=DOSES, codes=CODES, **settings):
    return flow.sample(controls, doses, codes, rng=np.random.default_rng(seed), **settings)


def by_hand(flow, n, field, *, n_steps=10):
    """The flow from noise with a given velocity field, and its last step with the condition's distribution."""
    distribution = flow.gene_distribution(flow.prior.distribution(DOSES, flow.prior.context(CODES)))
    condition = flow.encode(DOSES[None], CODES[None])
    noise = np.random.default_rng(0).standard_normal((n, N_GENES), dtype=np.float32)
    stop = flow.parametrisation.last_time
    with torch.inference_mode():
        x = integrate(
            lambda t, x: field(torch.full((1, 1), t), x, distribution, condition),
            torch.as_tensor(noise),
            start=0.0,
            stop=stop,
            n_steps=n_steps,
            method="multistep",
            spacing="sine",
        )
        time = torch.full((1, 1), stop)
        output = flow.network(flow.parametrisation.inputs(x, time, distribution), time, condition)
        return flow.parametrisation.finish(x, time, distribution, output).numpy()


@pytest.mark.parametrize("parametrisation", sorted(PARAMETRISATIONS))
def test_without_guidance_it_is_the_conditional_flow(prior, controls, parametrisation):
    flow = flow_of(prior, source="noise", parametrisation=parametrisation)
    expected = by_hand(
        flow, len(controls), lambda t, x, distribution, condition: flow.velocity(x, t, distribution, condition)
    )
    assert (sample(flow, controls, guidance=1.0) == expected).all()


@pytest.mark.parametrize("parametrisation", sorted(PARAMETRISATIONS))
@pytest.mark.parametrize("guidance", [0.0, 2.5])
def test_guidance_in_one_batch_equals_both_halves_apart(prior, controls, parametrisation, guidance):
    flow = flow_of(prior, source="noise", parametrisation=parametrisation)
    null = flow.gene_distribution(prior.pooled_distribution())

    def field(t, x, distribution, condition):
        without = flow.velocity(x, t, null, torch.zeros_like(condition))
        return without + guidance * (flow.velocity(x, t, distribution, condition) - without)

    expected = by_hand(flow, len(controls), field)
    # The batch of both rounds differently, and near t = 1 a difference grows with the slope of the velocity.
    np.testing.assert_allclose(sample(flow, controls, guidance=guidance), expected, rtol=1e-3, atol=1e-3)


def test_guidance_of_nearly_one(prior, controls):
    flow = flow_of(prior, source="noise")
    np.testing.assert_allclose(sample(flow, controls, guidance=1 + 1e-7), sample(flow, controls), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("source", ["noise", "control"])
def test_without_trust_it_is_the_flow_of_the_prior(prior, controls, source):
    flow = flow_of(prior, source=source)
    untrained = flow_of(prior, source=source, trained=False)
    assert (sample(flow, controls, correction_scale=0.0) == sample(untrained, controls)).all()
    assert (sample(flow, controls, correction_scale=1.0) == sample(flow, controls)).all()
    assert not np.array_equal(sample(flow, controls, correction_scale=0.5), sample(flow, controls))


def test_the_flow_of_the_prior_has_the_marginals_of_its_law(prior):
    n = 6000
    flow = flow_of(prior, source="noise", trained=False)
    cells = sample(flow, np.zeros((n, N_GENES), dtype=np.float32), n_steps=100)
    distribution = prior.distribution(DOSES, prior.context(CODES))
    n_expressing = (cells > 0).sum(0)
    assert (
        np.abs(n_expressing / n - distribution.expressed)
        < 4 * np.sqrt(distribution.expressed * (1 - distribution.expressed) / n)
    ).all()
    assert (
        np.abs(cells.sum(0) / n_expressing - distribution.mean) < 4 * np.sqrt(distribution.variance / n_expressing)
    ).all()


def test_from_noise_only_the_number_of_controls_matters(prior, controls):
    flow = flow_of(prior)
    assert (sample(flow, controls, source="noise") == sample(flow, 0 * controls, source="noise")).all()
    assert not np.array_equal(sample(flow, controls, source="control"), sample(flow, 0 * controls, source="control"))


def test_a_prediction_belongs_to_its_control_cell(screen, prior):
    controls = screen.cells(400, screen.angle + 0.15, screen.mean)
    flow = flow_of(prior, trained=False)

    def likeness(start):
        predicted = sample(flow, controls, doses=np.zeros(2, dtype=np.float32), entry_time=start)
        x, y = (a - a.mean(0) for a in (controls, predicted))
        return float((x * y).sum() / np.sqrt((x**2).sum() * (y**2).sum()))

    found = [likeness(start) for start in (0.0, 0.5, 0.7, 0.95)]
    assert abs(found[0]) < 4 / np.sqrt(controls.size)
    assert found == sorted(found)
    assert found[-1] > 0.9


def test_a_late_start_is_the_moved_control_cell(prior, controls):
    predicted = sample(flow_of(prior, trained=False), controls, entry_time=0.99)
    rng, context = np.random.default_rng(0), prior.context(CODES)
    rng.standard_normal(controls.shape, dtype=np.float32)
    moved = prior.move(controls, prior.distribution(DOSES, context), context, rng=rng)
    assert not np.array_equal(moved > 0, controls > 0)
    assert ((predicted > 0) == (moved > 0)).all()
    np.testing.assert_allclose(predicted, moved, atol=0.06)  # six s.d. of the noise that is left


def test_the_latest_start_is_the_moved_control_cell_itself(prior, controls):
    context = prior.context(CODES)
    moved = prior.move(controls, prior.distribution(DOSES, context), context, rng=np.random.default_rng(0))
    assert (sample(flow_of(prior), controls, entry_time=1.0) == moved).all()


def test_control_source_without_a_start_is_the_noise_source(prior, controls):
    flow = flow_of(prior)
    assert (sample(flow, controls, source="control", entry_time=0.0) == sample(flow, controls, source="noise")).all()


@pytest.mark.parametrize("source", ["noise", "control"])
def test_the_seed_decides(prior, controls, source):
    flow = flow_of(prior, source=source)
    assert (sample(flow, controls, seed=3) == sample(flow, controls, seed=3)).all()
    assert not np.array_equal(sample(flow, controls, seed=3), sample(flow, controls, seed=4))


@pytest.mark.parametrize("source", ["noise", "control"])
@pytest.mark.parametrize("parametrisation", sorted(PARAMETRISATIONS))
def test_predictions_are_expression(prior, controls, source, parametrisation):
    flow = flow_of(prior, source=source, parametrisation=parametrisation)
    before = controls.copy()
    predicted = sample(flow, controls)
    assert predicted.shape == controls.shape
    assert predicted.dtype == np.float32
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()
    assert 0 < (predicted == 0).mean() < 1
    assert (controls == before).all()
    assert sample(flow, controls[:0]).shape == (0, N_GENES)


@pytest.mark.parametrize("source", ["noise", "control"])
def test_many_cells_go_through_in_pieces(screen, prior, monkeypatch, source):
    n = 2000
    controls = screen.cells(n, screen.angle + 0.15, screen.mean)
    flow = flow_of(prior, source=source)
    whole = sample(flow, controls)
    sizes = set()
    velocity = ConditionalFlow.velocity

    def recorded(self, x, *args, **kwargs):
        sizes.add(len(x))
        return velocity(self, x, *args, **kwargs)

    monkeypatch.setattr(ConditionalFlow, "velocity", recorded)
    monkeypatch.setattr(model_module, "_CELLS_AT_ONCE", 300)
    pieces = sample(flow, controls)
    assert sizes == {300, 200}
    assert pieces.shape == whole.shape
    both = np.concatenate([whole, pieces])
    p = (both > 0).mean(0)
    assert (np.abs((whole > 0).mean(0) - (pieces > 0).mean(0)) < 4 * np.sqrt(2 * p * (1 - p) / n) + 1e-9).all()
    assert (np.abs(whole.mean(0) - pieces.mean(0)) < 4 * both.std(0) * np.sqrt(2 / n) + 1e-9).all()


def test_the_global_generator_is_left_alone(prior, controls):
    before, numpy_before = torch.get_rng_state(), np.random.get_state(legacy=False)  # noqa: NPY002
    sample(flow_of(prior), controls, guidance=2.0)
    assert (torch.get_rng_state() == before).all()
    assert str(np.random.get_state(legacy=False)) == str(numpy_before)  # noqa: NPY002


def test_initial_weights_follow_the_seed(prior):
    config = FlowConfig(N_GENES, 2, (2,), width=16)
    first, again, other = (ConditionalFlow(config, prior, seed=seed).network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["read.weight"], other["read.weight"])


def test_doses_are_relative_to_the_largest_in_training(prior, controls):
    flow = flow_of(prior)
    encoded = flow.encode(np.array([[1.0, 0], [2, 0], [7, 1]]), np.array([[0], [1], [1]]))
    assert encoded.tolist() == [[1, 0.5, 0, 1, 0], [1, 1, 0, 0, 1], [1, 1, 1, 0, 1]]
    most = np.array([2, 0], dtype=np.float32)
    assert (sample(flow, controls, doses=most) == sample(flow, controls, doses=5 * most)).all()
    assert not np.array_equal(sample(flow, controls, doses=most), sample(flow, controls, doses=0.5 * most))


def test_steps_follow_the_start(prior, controls, monkeypatch):
    asked = []

    def recorded(field, x, **settings):
        asked.append((settings["start"], settings["n_steps"], settings["method"]))
        return integrate(field, x, **settings)

    monkeypatch.setattr(model_module, "integrate", recorded)
    flow = flow_of(prior)
    sample(flow, controls, source="noise")
    sample(flow, controls, entry_time=0.5)
    sample(flow, controls, entry_time=0.98)
    sample(flow, controls, entry_time=0.5, n_steps=7, method="heun")
    assert asked == [
        (0.0, 10, "multistep"),
        (0.5, 5, "multistep"),
        (0.98, 4, "multistep"),
        (0.5, 7, "heun"),
    ]


def test_laws_of_cells(prior):
    flow = flow_of(prior)
    doses, codes = np.array([[0, 0], [1, 1], [2, 0]], dtype=np.float32), np.array([[0], [1], [0]])
    distributions = flow.gene_distribution(flow.prior.distributions(doses, codes))
    for i in range(3):
        distribution = prior.distribution(doses[i], prior.context(codes[i]))
        assert (distributions.expressed[i].numpy() == distribution.expressed).all()
        assert (distributions.mean[i].numpy() == distribution.mean).all()


def test_settings_of_prediction_can_be_changed(prior, controls):
    flow = flow_of(prior)
    expected = sample(flow, controls, entry_time=0.3, correction_scale=0.5)
    assert flow.configure(entry_time=0.3, correction_scale=0.5) is flow
    assert (flow.config.source, flow.config.entry_time, flow.config.correction_scale) == ("control", 0.3, 0.5)
    assert (sample(flow, controls) == expected).all()


def test_configuration_survives_json():
    config = FlowConfig(5, 2, (3, 4), source="noise", correction_scale=0.5)
    assert FlowConfig(**json.loads(json.dumps(config.to_dict()))) == config


BAD_SETTINGS = [
    ({"source": "cells"}, r"`source` to be one of \['control', 'noise'\], found 'cells'"),
    ({"entry_time": 1.1}, r"`entry_time` between 0 and 1, found 1.1"),
    ({"entry_time": -0.1}, r"`entry_time` between 0 and 1, found -0.1"),
    ({"correction_scale": 1.5}, r"`correction_scale` between 0 and 1, found 1.5"),
    ({"correction_scale": float("nan")}, r"`correction_scale` between 0 and 1, found nan"),
    ({"guidance": float("inf")}, r"`guidance` to be finite, found inf"),
    ({"method": "leapfrog"}, r"`method` to be one of \[.*'midpoint'.*\], found 'leapfrog'"),
    ({"n_steps": 0}, r"`n_steps` to be None or at least 1, found 0"),
]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        *BAD_SETTINGS,
        ({"parametrisation": "score"}, r"`parametrisation` to be one of \['gaussian', 'velocity', 'zero_inflated'\]"),
        ({"network": "transformer"}, r"`network` to be one of \[.*'mlp'.*\], found 'transformer'"),
    ],
)
def test_bad_configuration(changed, message):
    with pytest.raises(ValueError, match=message):
        FlowConfig(**{"n_genes": 5, "n_components": 2, "n_categories": (3,)} | changed)


@pytest.mark.parametrize(("changed", "message"), BAD_SETTINGS)
def test_bad_settings_of_prediction(prior, controls, changed, message):
    flow = flow_of(prior)
    before = flow.config
    with pytest.raises(ValueError, match=message):
        sample(flow, controls, **changed)
    with pytest.raises(ValueError, match=message):
        flow.configure(**changed)
    assert flow.config == before


def test_prior_of_other_cells(prior):
    with pytest.raises(ValueError, match=r"prior of 12 genes and 3 components, found one of 12 and 2"):
        ConditionalFlow(FlowConfig(N_GENES, 3, (2,)), prior)


def test_new_context_without_controls(prior):
    flow = flow_of(replace(prior, contexts=np.array([[0], [2]])))
    with pytest.raises(ValueError, match=r"control cells for the new context with covariate codes \[1\]"):
        sample(flow, np.zeros((0, N_GENES), dtype=np.float32))
