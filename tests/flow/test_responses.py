"""Latents of responses: found where they are, carried where they are not known, and with the marginals of the prior."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from perturbflow.flow import AdditiveHurdlePrior, CellData, ConditionalFlow, FlowConfig, ResponseFactor, Responses
from perturbflow.flow._response_fit import ControlStates

N_GENES, N_RESPONDING = 60, 12
HERE = np.zeros(1, dtype=np.int64)


class Screen:
    """Poisson cells of which a fraction responds to a perturbation in its own genes."""

    def __init__(self, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.level = self.rng.uniform(0.2, 0.6, N_GENES)
        self.state_genes = np.arange(40, N_GENES)
        self.parts: list[tuple[np.ndarray, list[float], int]] = []

    def add(self, n_cells, doses=(0, 0), fractions=(0, 0), *, context=0, by_state=False, together=False):
        """Cells; with ``together`` all respond, by an amount of their own."""
        state = self.rng.standard_normal(n_cells)
        rate = np.tile(self.level * (1 + 0.3 * context), (n_cells, 1))
        rate[:, self.state_genes] *= np.exp(0.9 * state[:, None])
        for place, (dose, fraction) in enumerate(zip(doses, fractions, strict=True)):
            if dose:
                chance = 1 / (1 + np.exp(-6 * state)) if by_state else self.rng.random(n_cells)
                responds = chance < fraction
                rate[:, place * N_RESPONDING : (place + 1) * N_RESPONDING] *= np.where(responds, 6, 1)[:, None]
        if together:
            rate[:, :N_RESPONDING] *= np.exp(0.8 * self.rng.standard_normal((n_cells, 1)) - 0.32)
        x = np.log1p(self.rng.poisson(rate)).astype(np.float32)
        self.parts.append((x, list(doses), context))
        return x

    def data(self, container=np.asarray):
        return CellData(
            container(np.concatenate([x for x, _, _ in self.parts])),
            np.concatenate([np.tile(np.array(doses), (len(x), 1)) for x, doses, _ in self.parts], dtype=np.float32),
            np.concatenate([np.full((len(x), 1), context) for x, _, context in self.parts]),
        )


def fitted(screen):
    cells = screen.data()
    prior = AdditiveHurdlePrior.fit(cells)
    return prior, Responses.fit(prior, cells)


def predict(prior, responses, controls, doses, context=0, seed=0):
    place = prior.context(np.array([context]), controls)
    distribution = prior.distribution(np.float32(doses), place)
    factors = responses.of(prior, np.float32(doses), place)
    return responses.move(prior, controls, distribution, place, factors, rng=np.random.default_rng(seed))


def program(cells, place=0):
    return cells[:, place * N_RESPONDING : (place + 1) * N_RESPONDING]


def correlation(cells):
    return float(np.corrcoef(cells.T)[np.triu_indices(cells.shape[1], k=1)].mean())


def responding(cells, controls, real, place=0):
    """Share of cells beyond the middle between controls and cells that respond."""
    top = np.quantile(program(real, place).mean(axis=1), 0.95)
    return float((program(cells, place).mean(axis=1) > (program(controls, place).mean() + top) / 2).mean())


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8])
def test_responders_of_a_training_condition_are_predicted(fraction):
    screen = Screen()
    controls, real = screen.add(600), screen.add(400, (1, 0), (fraction, 0))
    prior, responses = fitted(screen)
    found = predict(prior, responses, controls, (1, 0))
    alone = prior.move(
        controls,
        prior.distribution(np.array([1, 0], dtype=np.float32), prior.context(HERE)),
        prior.context(HERE),
        rng=screen.rng,
    )
    assert abs(correlation(program(alone))) < 0.02  # what moving gene by gene loses
    # Somewhat too large where most respond: values of a gene spread more where they are higher, and a distribution has one variance.
    assert 0.8 < correlation(program(found)) / correlation(program(real)) < 1.35
    assert responding(found, controls, real) == pytest.approx(responding(real, controls, real), abs=0.05)


def test_cells_that_all_respond_alike_have_no_latent():
    for seed in range(5):
        screen = Screen(seed=seed)
        screen.add(400), screen.add(300, (1, 0), (1, 0)), screen.add(300, (0, 1), (0, 0))
        prior, responses = fitted(screen)
        assert len(responses.groups) == 0
        assert responses.tested.all()


def test_without_latents_cells_move_as_the_prior_moves_them():
    screen = Screen()
    controls = screen.add(100)
    screen.add(80, (1, 0), (1, 0))
    prior, responses = fitted(screen)
    context = prior.context(HERE)
    distribution = prior.distribution(np.array([1, 0], dtype=np.float32), context)
    expected = prior.move(controls, distribution, context, rng=np.random.default_rng(3))
    for each in (responses, Responses.none(prior)):
        found = each.move(prior, controls, distribution, context, [], rng=np.random.default_rng(3))
        np.testing.assert_array_equal(found, expected)


def test_shares_and_means_are_those_of_the_law():
    """Whatever the latent, as long as its amounts have a mean of 0."""
    screen = Screen()
    controls = screen.add(2000)
    screen.add(500, (1, 0), (1, 0))
    prior, responses = fitted(screen)
    context = prior.context(HERE)
    distribution = prior.distribution(np.array([1, 0], dtype=np.float32), context)
    share, value = np.full(N_GENES, 0.15), np.full(N_GENES, 0.1)
    factor = ResponseFactor(share, value, np.repeat([-0.5, 1.0, -0.5], [20, 20, 20]), np.zeros(0))
    states = Responses.none(prior)
    moved = states.move(prior, controls, distribution, context, [factor], rng=np.random.default_rng(0))
    np.testing.assert_allclose((moved > 0).mean(axis=0), distribution.expressed, atol=0.004)
    plain = prior.move(controls, distribution, context, rng=np.random.default_rng(0))
    np.testing.assert_allclose(moved.mean(axis=0), plain.mean(axis=0), atol=0.03)
    assert correlation(moved) > correlation(plain) + 0.03


def test_what_the_law_lacks_along_a_latent_is_added():
    screen = Screen()
    controls = screen.add(1000)
    screen.add(500, (1, 0), (1, 0))
    prior, _ = fitted(screen)
    context = prior.context(HERE)
    distribution = prior.distribution(np.array([1, 0], dtype=np.float32), context)
    share = np.where(np.arange(N_GENES) < 5, 0.1, 0.0)
    factor = ResponseFactor(share, np.zeros(N_GENES), np.linspace(-1, 2, 50), np.zeros(0))
    moved = Responses.none(prior).move(prior, controls, distribution, context, [factor], rng=np.random.default_rng(0))
    np.testing.assert_allclose((moved > 0).mean(axis=0), np.minimum(distribution.expressed + 0.5 * share, 1), atol=0.01)


def test_correlations_that_change_without_the_means_are_predicted():
    screen = Screen()
    controls, real = screen.add(600), screen.add(400, (1, 0), (0, 0), together=True)
    prior, responses = fitted(screen)
    found = predict(prior, responses, controls, (1, 0))
    assert correlation(program(controls)) < 0.03 < correlation(program(real))
    assert correlation(program(found)) == pytest.approx(correlation(program(real)), rel=0.25)


def test_responders_are_the_cells_of_the_state_that_responds():
    screen = Screen()
    controls, real = screen.add(800), screen.add(600, (1, 0), (0.5, 0), by_state=True)
    prior, responses = fitted(screen)
    (factor,) = responses.of(prior, np.array([1, 0], dtype=np.float32), prior.context(HERE))
    assert np.linalg.norm(factor.coupling) > 0.5
    found = predict(prior, responses, controls, (1, 0))
    with_state = [
        np.corrcoef(cells[:, screen.state_genes].mean(axis=1), program(cells).mean(axis=1))[0, 1]
        for cells in (controls, real, found)
    ]
    assert abs(with_state[0]) < 0.1
    assert with_state[1] < -0.4
    assert with_state[2] < 0.6 * with_state[1]
    # State genes stay as the control cells have them.
    assert correlation(found[:, screen.state_genes]) == pytest.approx(
        correlation(real[:, screen.state_genes]), abs=0.05
    )


def test_latents_are_carried_to_contexts_without_cells():
    screen = Screen()
    for context in (0, 1):
        screen.add(400, context=context)
        screen.add(300, (1, 0), (0.4, 0), context=context)
    controls = screen.add(400, context=2)
    prior, responses = fitted(screen)
    real = screen.add(300, (1, 0), (0.4, 0), context=2)
    found = predict(prior, responses, controls, (1, 0), context=2)
    assert correlation(program(found)) > 0.5 * correlation(program(real))
    assert responding(found, controls, real) == pytest.approx(responding(real, controls, real), abs=0.1)
    # A context that was never seen is placed by its controls.
    new = predict(prior, responses, controls, (1, 0), context=7)
    assert correlation(program(new)) > 0.5 * correlation(program(real))


def test_components_of_a_combination_respond_independently():
    screen = Screen()
    controls = screen.add(800)
    screen.add(400, (1, 0), (0.3, 0))
    screen.add(400, (0, 1), (0, 0.6))
    prior, responses = fitted(screen)
    real = screen.add(400, (1, 1), (0.3, 0.6))
    found = predict(prior, responses, controls, (1, 1))
    for place in (0, 1):
        assert correlation(program(found, place)) > 0.7 * correlation(program(real, place))
        expected = responding(real, controls, real, place)
        assert responding(found, controls, real, place) == pytest.approx(expected, abs=0.1)
    between = np.corrcoef(program(found, 0).mean(axis=1), program(found, 1).mean(axis=1))[0, 1]
    assert abs(between) < 0.15


def test_controls_and_unknown_components_have_no_latent():
    screen = Screen()
    screen.add(200), screen.add(200, (1, 0), (0.5, 0))
    prior, responses = fitted(screen)
    context = prior.context(HERE)
    assert responses.of(prior, np.array([1, 0], dtype=np.float32), context)
    assert responses.of(prior, np.array([0, 0], dtype=np.float32), context) == []
    assert responses.of(prior, np.array([0, 1], dtype=np.float32), context) == []


def test_a_dose_has_the_latent_of_the_nearest():
    screen = Screen()
    screen.add(400), screen.add(300, (1, 0), (0.2, 0)), screen.add(300, (4, 0), (0.8, 0))
    prior, responses = fitted(screen)
    context = prior.context(HERE)
    found = [
        responses.of(prior, np.array([dose, 0], dtype=np.float32), context)[0].amounts for dose in (1, 1.2, 3.5, 4)
    ]
    # What the distribution lacks at a measured dose is not carried to others.
    np.testing.assert_allclose(found[1], found[0] - found[0].mean(), atol=1e-6)
    np.testing.assert_allclose(found[2], found[3] - found[3].mean(), atol=1e-6)
    # Few responders are far above the others, few others far below.
    assert np.mean(found[0] > found[0].mean()) < 0.4 < 0.6 < np.mean(found[3] > found[3].mean())


def test_few_cells_are_not_looked_at():
    screen = Screen()
    screen.add(200), screen.add(20, (1, 0), (0.5, 0)), screen.add(200, (0, 1), (0, 0.5))
    prior, responses = fitted(screen)
    assert responses.tested.tolist() == [False, True]
    assert responses.of(prior, np.array([1, 0], dtype=np.float32), prior.context(HERE)) == []


def test_sparse_cells_and_arrays_survive():
    screen = Screen()
    screen.add(300), screen.add(200, (1, 0), (0.5, 0))
    prior, responses = fitted(screen)
    again = Responses.fit(prior, screen.data(sparse.csr_matrix))
    restored = Responses.from_arrays({name: np.array(array) for name, array in responses.to_arrays().items()})
    for name, array in responses.to_arrays().items():
        np.testing.assert_allclose(again.to_arrays()[name], array, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(restored.loadings, responses.loadings)
    controls = screen.parts[0][0]
    np.testing.assert_array_equal(
        predict(prior, restored, controls, (1, 0)), predict(prior, responses, controls, (1, 0))
    )


def test_a_flow_enters_its_path_with_the_latents():
    screen = Screen()
    controls = screen.add(400)
    real = screen.add(300, (1, 0), (0.5, 0))
    prior, responses = fitted(screen)
    config = FlowConfig(n_genes=N_GENES, n_components=2, n_categories=(1,), width=8, n_blocks=1)
    flow = ConditionalFlow(config, prior, responses=responses)
    moved = flow.sample(
        controls, np.array([1, 0], dtype=np.float32), HERE, rng=np.random.default_rng(0), entry_time=1.0
    )
    np.testing.assert_array_equal(moved, predict(prior, responses, controls, (1, 0)))
    # An untrained network keeps what the cells entered with, if they enter late.
    late = flow.sample(
        controls, np.array([1, 0], dtype=np.float32), HERE, rng=np.random.default_rng(0), entry_time=0.85
    )
    assert correlation(program(late)) > 0.5 * correlation(program(real))
    without = ConditionalFlow(config, prior).sample(
        controls, np.array([1, 0], dtype=np.float32), HERE, rng=np.random.default_rng(0), entry_time=1.0
    )
    assert correlation(program(without)) < 0.02


def test_a_new_prior_is_without_the_latents_of_the_old():
    screen = Screen()
    screen.add(200)
    screen.add(200, (1, 0), (0.5, 0))
    cells = screen.data()
    prior = AdditiveHurdlePrior.fit(cells)
    flow = ConditionalFlow(FlowConfig(n_genes=N_GENES, n_components=2, n_categories=(1,), width=8), prior)
    flow.responses = Responses.fit(prior, cells)
    assert flow.responses.tested.any()
    flow.prior = AdditiveHurdlePrior.fit(cells)
    assert not flow.responses.tested.any()


def test_states_are_those_beyond_noise():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((500, 30)).astype(np.float32)
    assert len(ControlStates.fit([noise], 30).loadings) == 0
    state = rng.standard_normal(500)
    with_state = noise + np.float32(state[:, None] * (np.arange(30) < 10))
    states = ControlStates.fit([with_state[:200], with_state[200:] + 3], 30)  # two contexts
    assert len(states.loadings) == 1
    found = states.of(with_state)
    assert found.std() == pytest.approx(1, abs=0.05)
    assert abs(np.corrcoef(found[:, 0], state)[0, 1]) > 0.9
    np.testing.assert_allclose(
        states.covariances[0], with_state.T @ found[:, 0] / 500 - with_state.mean(axis=0) * found.mean(), atol=0.1
    )
    assert len(ControlStates.fit([with_state[:30]], 30).loadings) == 0
    assert len(ControlStates.fit([], 30).loadings) == 0


@pytest.mark.parametrize("n_genes", [30, 500])  # fewer and more than cells
def test_states_are_the_largest_singular_vectors(n_genes):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((100, 2)) * [3.0, 2.0]
    cells = (scores @ rng.standard_normal((2, n_genes)) + rng.standard_normal((100, n_genes))).astype(np.float32)
    found = ControlStates.fit([cells], n_genes)
    centred = (cells - cells.mean(axis=0)).astype(np.float64)
    unit = np.sqrt(centred.var(axis=0) + 1e-3)
    _, sizes, axes = np.linalg.svd(centred / unit, full_matrices=False)
    assert len(found.loadings) == 2
    for state, size, axis in zip(found.covariances, sizes, axes, strict=False):
        expected = axis * size / 10 * unit
        np.testing.assert_allclose(state * np.sign(state @ expected), expected, rtol=1e-4, atol=1e-5)


def test_amounts_in_the_order_of_a_state():
    screen = Screen()
    controls = screen.add(500)
    screen.add(300, (1, 0), (1, 0))
    prior, responses = fitted(screen)
    context = prior.context(HERE)
    distribution = prior.distribution(np.array([1, 0], dtype=np.float32), context)
    share = np.where(np.arange(N_GENES) < N_RESPONDING, 0.2, 0.0)
    coupling = np.zeros(len(responses.state_loadings))
    coupling[0] = 1.0
    factor = ResponseFactor(share, np.zeros(N_GENES), np.linspace(-1, 1, 50), coupling)
    state = responses.states.of(controls)[:, 0]
    together = []
    for each in (factor, replace(factor, coupling=np.zeros(len(coupling)))):
        moved = responses.move(prior, controls, distribution, context, [each], rng=np.random.default_rng(0))
        together.append(np.corrcoef(state, (program(moved) > 0).mean(axis=1))[0, 1])
    assert together[0] > 0.5
    assert abs(together[1]) < 0.15
