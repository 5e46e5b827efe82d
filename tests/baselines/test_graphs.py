from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg, sparse
from sklearn.linear_model import Ridge

from perturbflow.baselines import (
    correlation_graph,
    degree_graph,
    derivative_ridge_graph,
    expression_level_graph,
    partial_correlation_graph,
    random_graph,
)
from perturbflow.dynamics import Trajectory
from perturbflow.metrics import auroc, average_precision, network_scores

few = settings(max_examples=20, deadline=None)

# Row regulates column: a cascade 0 -> 1 -| 2 -> 3, every gene decaying.
CASCADE = np.array([[0, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


def linear_trajectories(seed: int = 0, *, n: int = 60, noise: float = 0.0, clamped: int | None = None, count: int = 4):
    """Courses of the linear cascade from random starts, at irregular times; `clamped` is held at its start."""
    rng = np.random.default_rng(seed)
    matrix = (CASCADE - 0.5 * np.eye(4)).T
    held = np.arange(4) == (-1 if clamped is None else clamped)
    matrix[held] = 0
    found = []
    for k in range(count):
        time = np.sort(rng.uniform(0, 5, n))
        start = rng.uniform(-1, 1, 4)
        values = np.stack([linalg.expm(matrix * t) @ start for t in time]) + noise * rng.normal(size=(n, 4))
        found.append(Trajectory(str(k), time, values, np.ones(n), held))
    return found


def chain(seed: int, n: int = 20_000):
    """Gaussian chain 0 - 1 - 2 with correlation 0.8 of neighbours."""
    rng = np.random.default_rng(seed)
    a = rng.normal(size=n)
    b = 0.8 * a + 0.6 * rng.normal(size=n)
    return np.column_stack([a, b, 0.8 * b + 0.6 * rng.normal(size=n)])


def test_correlation_agrees_with_numpy():
    x = np.random.default_rng(0).gamma(1.0, size=(30, 5))
    expected = np.corrcoef(x, rowvar=False)
    np.testing.assert_allclose(correlation_graph(x), expected - np.eye(5), atol=1e-12)


def test_partial_correlation_sees_through_the_middle_of_a_chain():
    x = chain(0)
    assert correlation_graph(x)[0, 2] == pytest.approx(0.64, abs=0.02)
    partial = partial_correlation_graph(x, shrinkage=0.0)
    assert partial[0, 2] == pytest.approx(0.0, abs=0.02)
    assert partial[0, 1] == pytest.approx(0.8 * 0.6 / np.sqrt(1 - 0.64**2), abs=0.02)  # (r01 - r02 r12) / ...


def test_partial_correlation_is_that_of_residuals():
    x = np.random.default_rng(1).normal(size=(40, 5)) @ np.random.default_rng(2).normal(size=(5, 5))
    others = np.column_stack([x[:, 2:], np.ones(40)])
    residual = x[:, :2] - others @ np.linalg.lstsq(others, x[:, :2], rcond=None)[0]
    expected = np.corrcoef(residual, rowvar=False)[0, 1]
    assert partial_correlation_graph(x, shrinkage=0.0)[0, 1] == pytest.approx(expected, abs=1e-10)


def test_shrinkage_intensity_follows_its_definition():
    x = np.random.default_rng(3).normal(size=(12, 6))
    x[:, 1] += x[:, 0]
    z = (x - x.mean(axis=0)) / x.std(axis=0, ddof=1)
    n = len(z)
    variance = squares = 0.0
    for i in range(6):
        for j in range(6):
            if i != j:
                w = z[:, i] * z[:, j]
                variance += n / (n - 1) ** 3 * ((w - w.mean()) ** 2).sum()
                squares += (n / (n - 1) * w.mean()) ** 2
    assert 0 < variance / squares < 1
    np.testing.assert_allclose(
        partial_correlation_graph(x), partial_correlation_graph(x, shrinkage=variance / squares), atol=1e-12
    )


def test_limits_of_shrinkage():
    rng = np.random.default_rng(4)
    assert (partial_correlation_graph(rng.normal(size=(9, 4)), shrinkage=1.0) == 0).all()
    few_cells, many_cells = chain(5, n=5), chain(5)
    assert (
        np.abs(partial_correlation_graph(few_cells)).max()
        < np.abs(partial_correlation_graph(few_cells, shrinkage=1e-3)).max()
    )
    np.testing.assert_allclose(
        partial_correlation_graph(many_cells), partial_correlation_graph(many_cells, shrinkage=0.0), atol=1e-3
    )
    assert (partial_correlation_graph(np.ones((5, 3))) == 0).all()


def test_more_genes_than_rows_need_shrinkage():
    x = np.random.default_rng(6).normal(size=(8, 20))
    assert np.isfinite(partial_correlation_graph(x)).all()
    with pytest.raises(ValueError, match="found 20 genes in 8 rows, which are linearly dependent at shrinkage 0"):
        partial_correlation_graph(x, shrinkage=0.0)
    with pytest.raises(ValueError, match="Expected `shrinkage` to be from 0 to 1, found 1.5"):
        partial_correlation_graph(x, shrinkage=1.5)


SYMMETRIC = [correlation_graph, partial_correlation_graph]


@pytest.mark.parametrize("function", SYMMETRIC)
@given(st.integers(0, 10_000))
@few
def test_scale_offset_and_order_of_genes_do_not_matter(function, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(15, 5))
    scores = function(x)
    order = rng.permutation(5)
    np.testing.assert_allclose(function(x * rng.uniform(0.5, 9, 5) + 3), scores, atol=1e-9)
    np.testing.assert_allclose(function(x[:, order]), scores[order][:, order], atol=1e-12)
    assert (scores == scores.T).all() or np.allclose(scores, scores.T, atol=1e-12)
    assert (np.abs(scores) <= 1).all()


@pytest.mark.parametrize("function", SYMMETRIC)
def test_genes_that_do_not_vary_have_no_edges(function):
    x = np.random.default_rng(7).normal(size=(20, 4))
    x[:, [1, 3]] += 2 * x[:, :1]
    x[:, 2] = 0.1  # its mean is off by rounding
    scores = function(x)
    assert (scores[2] == 0).all()
    assert (scores[:, 2] == 0).all()
    assert (scores[0, [1, 3]] != 0).all()


def test_random_graph_is_chance_and_repeatable():
    truth = np.zeros((200, 200))
    truth[:20] = np.random.default_rng(0).choice([-1, 1, 0], (20, 200))
    scores = random_graph(200, rng=np.random.default_rng(1))
    found = network_scores(scores, truth)
    assert found["auroc"] == pytest.approx(0.5, abs=0.02)
    assert found["sign_accuracy"] == pytest.approx(0.5, abs=0.15)
    assert found["average_precision"] == pytest.approx(found["edge_density"], rel=0.15)
    assert (np.diag(scores) == 0).all()
    assert (scores == random_graph(200, rng=np.random.default_rng(1))).all()
    with pytest.raises(ValueError, match="Expected `n_genes` to be at least 1, found 0"):
        random_graph(0, rng=np.random.default_rng(0))


def test_level_of_source_and_target():
    x = np.array([[1.0, 2.0, 6.0], [3.0, 4.0, 6.0]])
    assert expression_level_graph(x, of="source").tolist() == [[0, 2, 2], [3, 0, 3], [6, 6, 0]]
    assert (expression_level_graph(x, of="target") == expression_level_graph(x, of="source").T).all()
    with pytest.raises(ValueError, match=r"Expected `of` to be one of \['source', 'target'\], found 'both'"):
        expression_level_graph(x, of="both")  # type: ignore[arg-type]


@pytest.mark.parametrize("container", [np.asarray, sparse.csr_matrix])
def test_degrees(container):
    network = container(np.array([[5, 1, -1], [0, 0, 0], [0, 1, 0]]))
    assert degree_graph(network, of="source").tolist() == [[0, 2, 2], [0, 0, 0], [1, 1, 0]]
    assert degree_graph(network, of="target").tolist() == [[0, 2, 1], [0, 0, 1], [0, 2, 0]]
    with pytest.raises(ValueError, match="Expected `of`"):
        degree_graph(network, of="x")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"a square matrix of finite numbers, found shape \(2, 3\)"):
        degree_graph(network[:2], of="source")


def test_degrees_tell_hubs_but_no_targets():
    truth = np.zeros((30, 30))
    truth[:3] = np.random.default_rng(2).choice([0, 1, -1], (3, 30))
    hubs = degree_graph(truth, of="source")
    assert auroc(hubs, truth) > 0.95
    assert auroc(hubs, truth, within="regulator") == 0.5


def test_linear_dynamics_are_recovered():
    trajectories = linear_trajectories()
    scores = derivative_ridge_graph(trajectories, bandwidth=1e-6, penalty=1e-9)
    spread = np.concatenate([one.values for one in trajectories]).std(axis=0)
    np.testing.assert_allclose(scores, CASCADE * spread[:, None] / spread, atol=0.1)
    found = network_scores(derivative_ridge_graph(trajectories), CASCADE)
    assert (found["auroc"], found["average_precision"], found["sign_accuracy"]) == (1.0, 1.0, 1.0)


def test_direction_is_seen_where_correlation_sees_none():
    trajectories = linear_trajectories(1, noise=0.02, count=8)
    ridge = derivative_ridge_graph(trajectories)
    correlation = correlation_graph(np.concatenate([one.values for one in trajectories]))
    assert average_precision(ridge, CASCADE) > 0.9 > average_precision(correlation, CASCADE)


def test_ridge_agrees_with_sklearn():
    (one,) = linear_trajectories(2, n=40, count=1)
    scores = derivative_ridge_graph([one], bandwidth=1e-9, penalty=0.03)
    # With a vanishing kernel the line goes through a row and its two neighbours, weighted; levels are close to it.
    level, slope = lines(one)
    spread = level.std(axis=0, ddof=1)
    model = Ridge(alpha=0.03 * 40, tol=1e-12).fit(level / spread, slope / spread)
    np.testing.assert_allclose(scores, model.coef_.T * (1 - np.eye(4)), atol=1e-8)


def lines(one):
    """Lines around every row with a bandwidth of the distance of the second nearest other row, one row at a time."""
    found = []
    for t in one.time:
        offset = one.time - t
        width = np.sort(np.abs(offset))[2]
        weight = np.exp(-0.25 * (offset / width) ** 2)  # polyfit squares it
        found.append(np.polyfit(offset, one.values, 1, w=weight))
    slope, level = np.array(found).transpose(1, 0, 2)
    return level, slope


def test_scale_time_and_order_of_genes_only_rescale_derivative_ridge():
    trajectories = linear_trajectories(3, n=20, noise=0.05)
    scores = derivative_ridge_graph(trajectories, penalty=0.01)
    order = np.array([2, 0, 3, 1])
    changed = [
        Trajectory(x.name, 3 * x.time + 1, 7 * x.values[:, order] - 2, x.weight, x.clamped) for x in trajectories
    ]
    np.testing.assert_allclose(
        derivative_ridge_graph(changed, penalty=0.01), scores[order][:, order] / 3, rtol=1e-6, atol=1e-9
    )


def test_large_penalty_shrinks_all_edges():
    trajectories = linear_trajectories(4, n=20)
    small, large = (np.abs(derivative_ridge_graph(trajectories, penalty=h)).sum() for h in (1e-3, 1e3))
    assert 0 < large < 0.01 * small


def test_clamped_genes_are_regressors_but_no_targets():
    wild_type, clamped = linear_trajectories(5), linear_trajectories(6, clamped=2)
    scores = derivative_ridge_graph([*wild_type, *clamped])
    assert network_scores(scores, CASCADE)["average_precision"] == 1.0
    assert scores[1, 2] < -0.5  # not pulled to zero by the trajectories in which gene 2 does not move
    alone = derivative_ridge_graph(clamped)
    assert (alone[:, 2] == 0).all()
    assert alone[2, 3] > 0.5


def test_short_trajectories_and_constant_genes():
    pairs = [Trajectory("a", np.array([0.0, 1.0]), np.array([[0.0, 5], [1, 5]]), np.ones(2), np.zeros(2, dtype=bool))]
    assert (derivative_ridge_graph(pairs) == 0).all()


@pytest.mark.parametrize("option", ["bandwidth", "penalty"])
def test_options_of_derivative_ridge_are_positive(option):
    with pytest.raises(ValueError, match=f"Expected `{option}` to be above 0, found 0.0"):
        derivative_ridge_graph(linear_trajectories(), **{option: 0.0})


def test_derivative_ridge_refuses_bad_trajectories():
    with pytest.raises(ValueError, match="Expected trajectories of the same genes, found \\[\\] genes"):
        derivative_ridge_graph([])
    one, other = linear_trajectories(count=2)
    smaller = Trajectory("small", one.time, one.values[:, :3], one.weight, one.clamped[:3])
    with pytest.raises(ValueError, match="Expected trajectories of the same genes, found \\[4, 3\\] genes"):
        derivative_ridge_graph([other, smaller])
    one.values[2, 1] = np.nan
    with pytest.raises(ValueError, match="Expected finite levels, found nan at row 2, column 1"):
        derivative_ridge_graph([one])


@pytest.mark.parametrize(
    ("function", "least"),
    [
        (correlation_graph, 2),
        (partial_correlation_graph, 3),
        (lambda x: expression_level_graph(x, of="source"), 1),
    ],
)
def test_bad_levels_are_refused(function, least):
    with pytest.raises(ValueError, match=f"at least {least} rows, found \\({least - 1}, 2\\)"):
        function(np.ones((least - 1, 2)))
    with pytest.raises(ValueError, match=r"shape \(rows, genes\) .*found \(4,\)"):
        function(np.ones(4))
    with pytest.raises(ValueError, match="Expected finite levels, found inf at row 3, column 1"):
        function(np.where(np.arange(8).reshape(4, 2) == 7, np.inf, 1.0))


def test_genes_of_a_table_have_one_order():
    network = pd.DataFrame([[0, 1, -1], [0, 0, 0], [0, 1, 0]], index=list("abc"), columns=list("abc"))
    expected = degree_graph(network.to_numpy(), of="source")
    np.testing.assert_array_equal(degree_graph(network[list("cab")], of="source"), expected)
