from __future__ import annotations

import numpy as np
import pytest

from perturbflow.datasets import HillNetwork, solve_system, time_courses

START = np.array([[1.0, 2.0], [0.5, 3.0]])


def decay(x):
    return -np.array([1.0, 0.3]) * x


def test_exponential_decay():
    times = np.array([0.0, 0.4, 2.0])
    expected = START[:, None] * np.exp(-np.array([1.0, 0.3]) * times[:, None])
    np.testing.assert_allclose(solve_system(decay, START, times), expected, rtol=1e-7)


def test_times_of_its_own_for_every_run():
    times = np.array([[0.1, 2.0], [0.7, 1.0]])
    separate = [solve_system(decay, START, row)[run] for run, row in enumerate(times)]
    np.testing.assert_allclose(solve_system(decay, START, times), np.stack(separate), rtol=1e-7)


def test_held_variables_stay_exactly():
    held = np.array([[True, False], [False, True]])
    values = solve_system(decay, START, np.linspace(0.0, 3.0, 7), held=held)
    assert (values[0, :, 0] == 1.0).all()
    assert (values[1, :, 1] == 3.0).all()
    np.testing.assert_allclose(values[0, -1, 1], 2.0 * np.exp(-0.9), rtol=1e-7)


def test_growth_without_bound_is_an_error():
    with np.errstate(over="ignore", invalid="ignore"), pytest.raises(RuntimeError, match="bounded levels up to time 2"):
        solve_system(lambda x: x**2, START, np.array([0.0, 2.0]))  # ends at time 1/3


def runs(held):
    """What is seen of 4,000 times of a run without and a run with an intervention (2, 4000, 2), and the levels."""
    values = np.random.default_rng(0).normal(2.0, 3.0, size=(2, 4000, 2))
    values[1] *= 100.0  # an intervention, which does not count
    values[:, :, 0] = np.where(held[:, [0]], 0.5, values[:, :, 0])
    adata = time_courses(
        values,
        np.arange(4000.0),
        ["x", "y"],
        graph=np.zeros((2, 2)),
        perturbation=["control", "a"],
        held=held,
        noise=0.1,
        rng=np.random.default_rng(1),
    )
    return adata, adata.X.reshape(values.shape), values


def test_noise_is_relative_to_the_runs_without_intervention():
    adata, observed, values = runs(np.zeros((2, 2), dtype=bool))
    # 8,000 draws a run: the standard error of a standard deviation is 0.8 %.
    np.testing.assert_allclose((observed - values).std(axis=(1, 2)), 0.1 * values[0].std(), rtol=0.04)
    assert adata.uns["simulation"]["noise_sd"] == pytest.approx(0.1 * values[0].std())
    assert "held_at" not in adata.obs


def test_held_levels_have_no_noise():
    adata, observed, values = runs(np.array([[False, False], [True, False]]))
    assert (observed[1, :, 0] == 0.5).all()
    assert (observed[:, :, 1] != values[:, :, 1]).all()
    np.testing.assert_array_equal(adata.obs["held_at"].to_numpy()[[0, 4000]], [np.nan, 0.5])


def test_edges_of_a_graph():
    values = np.ones((1, 2, 2))
    adata = time_courses(values, np.arange(2.0), ["a", "b"], graph=np.array([[0.0, -0.3], [7.0, 2.0]]))
    graph = adata.varp["true_graph"]
    assert graph.dtype == np.float32
    np.testing.assert_array_equal(graph.toarray(), [[0, -1], [1, 1]])
    assert adata.uns["true_edges"].to_numpy().tolist() == [["a", "b", -1], ["b", "a", 1], ["b", "b", 1]]


@pytest.mark.parametrize(
    ("times", "match"),
    [
        *[(times, "`times` to be at least two finite numbers") for times in ([0.0], [0.0, np.nan], [[[0.0, 1.0]]])],
        *[(times, "`times` to increase and to be at least 0") for times in ([0.0, 0.0], [1.0, 0.5], [-1.0, 0.0])],
        ([[0.0, 1.0], [1.0, 0.0]], "`times` to increase and to be at least 0"),
    ],
)
def test_times_have_to_ascend(times, match):
    network = HillNetwork.random(2, np.random.default_rng(0))
    with pytest.raises(ValueError, match=match):
        network.simulate(np.ones((2, 2)), times)
