from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from perturbflow.metrics import energy_distance, energy_loss, mmd
from perturbflow.metrics._clouds import Cloud
from perturbflow.metrics._samples import Sample, Space


def sample(cells, device=None):
    return Sample(cells, Space(np.full(cells.shape[1], 0.5), device=device))


@pytest.fixture
def clouds():
    rng = np.random.default_rng(0)
    return [rng.poisson(level, (n, 8)).astype(np.float32) for level, n in ((1.0, 31), (1.5, 25), (1.0, 31))]


def test_one_pass_gives_both_distances(clouds):
    x, y, again = clouds
    found = Cloud(sample(y)).scores(sample(x))
    assert found.energy_distance == pytest.approx(energy_distance(x, y), abs=1e-5)
    assert found.mmd == pytest.approx(mmd(x, y), abs=1e-5)
    assert found.energy_loss == pytest.approx(energy_loss(x, y), abs=1e-5)
    twice = Cloud(sample(y)).scores(sample(x), sample(again))
    assert twice.energy_distance == pytest.approx(energy_distance(x, y, again=again), abs=1e-5)
    assert twice.mmd == pytest.approx(mmd(x, y, again=again), abs=1e-5)


@pytest.mark.parametrize("kept", [2000, 10])
@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["numpy", "torch"])
def test_where_most_cells_are_equal_only_mmd_has_no_value(device, kept, monkeypatch):
    for module in ("_clouds", "_samples"):
        monkeypatch.setattr(f"perturbflow.metrics.{module}.MOST_CELLS_KEPT", kept)
    x, y = np.random.default_rng(0).poisson(0.1, (2, 40, 2)).astype(np.float32)
    with pytest.raises(ValueError, match="found a median distance of 0"):
        mmd(x, y)
    found = Cloud(sample(y, device)).scores(sample(x, device))
    assert np.isnan(found.mmd)
    assert found.energy_distance == pytest.approx(energy_distance(x, y), abs=1e-5)
    assert found.energy_loss == pytest.approx(energy_loss(x, y), abs=1e-5)


@pytest.mark.parametrize("device", [None, torch.device("cpu")], ids=["numpy", "torch"])
@pytest.mark.parametrize("kept", [2000, 31, 30, 10])
def test_what_is_kept_and_where_it_is_computed_change_nothing(clouds, device, kept, monkeypatch):
    x, y, again = clouds
    expected = Cloud(sample(y)).scores(sample(x), sample(again))
    for module in ("_clouds", "_samples"):
        monkeypatch.setattr(f"perturbflow.metrics.{module}.MOST_CELLS_KEPT", kept)
    found = Cloud(sample(y, device)).scores(sample(x, device), sample(again, device))
    for name, value in vars(expected).items():
        np.testing.assert_allclose(getattr(found, name), value, atol=1e-5, err_msg=name)


def test_scores_of_real_cells_by_their_definition(clouds):
    x, y, again = (one.astype(float) for one in clouds)
    found = Cloud(sample(y)).scores(sample(x))
    n, between, within = len(x), cdist(x, y), cdist(x, x)
    np.testing.assert_allclose(found.energy_scores, between.mean(axis=0) - within.sum() / (n * (n - 1)) / 2, atol=1e-5)
    influence = between.mean(axis=1) - within.sum(axis=1) / (n - 1)
    assert found.sampling_variance == pytest.approx(4 * influence.var(ddof=1) / n, rel=1e-4)
    # Of two predictions pairs are between them, and both ends of a pair are of the same weight.
    twice = Cloud(sample(y)).scores(sample(x), sample(again))
    crossed = cdist(x, again) * (1 - np.eye(n))
    to_real = (between + cdist(again, y)) / 2
    half = crossed.sum() / (n * (n - 1)) / 2
    np.testing.assert_allclose(twice.energy_scores, to_real.mean(axis=0) - half, atol=1e-5)
    influence = to_real.mean(axis=1) - (crossed.sum(axis=0) + crossed.sum(axis=1)) / 2 / (n - 1)
    assert twice.sampling_variance == pytest.approx(4 * influence.var(ddof=1) / n, rel=1e-4)


def test_three_real_cells_set_the_same_bandwidths(clouds):
    x, y, _ = clouds
    assert Cloud(sample(y[:3])).scores(sample(x)).mmd == pytest.approx(mmd(x, y[:3]), abs=1e-5)


def test_energy_scores_differ_as_energy_distances_do(clouds):
    x, y, other = clouds
    cloud = Cloud(sample(y))
    one, two = cloud.scores(sample(x)), cloud.scores(sample(other[:20]))
    assert len(one.energy_scores) == len(y)
    difference = 2 * (one.energy_scores - two.energy_scores).mean()
    assert difference == pytest.approx(one.energy_distance - two.energy_distance, abs=1e-5)


def test_single_cells_are_refused(clouds):
    with pytest.raises(ValueError, match="at least 2 cells"):
        sample(clouds[0][:1])


def test_sampling_variance_is_that_of_new_predictions():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(200, 4))
    cloud = Cloud(sample(y))
    found = [cloud.scores(sample(rng.normal(0.7, 1.0, (40, 4)))) for _ in range(300)]
    spread = np.var([one.energy_distance for one in found])
    assert np.mean([one.sampling_variance for one in found]) == pytest.approx(spread, rel=0.25)
    sources = [rng.normal(0.7, 1.0, (40, 4)) for _ in range(300)]
    twice = [cloud.scores(sample(x), sample(x + rng.normal(0, 0.1, x.shape))) for x in sources]
    spread = np.var([one.energy_distance for one in twice])
    assert np.mean([one.sampling_variance for one in twice]) == pytest.approx(spread, rel=0.25)


def test_float32_is_precise_where_distances_are_large():
    rng = np.random.default_rng(0)
    x, y = (np.log1p(rng.poisson(1.0, (300, 1500))).astype(np.float32) + 3 for _ in range(2))
    found = Cloud(sample(y)).scores(sample(x))
    off = 4e-6 * cdist(x, y).mean()  # the centre is far from the cells; near them nothing is lost
    assert found.energy_distance == pytest.approx(energy_distance(x, y), abs=off)
    assert found.mmd == pytest.approx(mmd(x, y), abs=2e-6)
    again = Cloud(sample(y)).scores(sample(y.copy()), sample(y.copy()))
    assert again.energy_distance == pytest.approx(energy_distance(y, y, again=y), abs=off)
    near = [Sample(cells, Space(y.mean(axis=0, dtype=np.float64))) for cells in (x, y)]
    assert Cloud(near[1]).scores(near[0]).energy_distance == pytest.approx(energy_distance(x, y), abs=1e-6)
