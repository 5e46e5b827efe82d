from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist

from perturbflow.metrics import METRICS, Moments, energy_distance, energy_loss
from perturbflow.metrics._clouds import energy_distance_of
from perturbflow.metrics._principal_components import PrincipalComponents
from perturbflow.metrics._samples import Comparison, Pair, Sample, Space, distances_together


@pytest.fixture(params=[None, "cpu"], ids=["numpy", "torch"])
def samples(request):
    rng = np.random.default_rng(0)
    cells = [np.log1p(rng.poisson(rate, (n, 12))).astype(np.float32) for rate, n in ((1.0, 40), (2.0, 25))]
    components = PrincipalComponents.of(cells[0], n_components=4)
    device = None if request.param is None else torch.device(request.param)
    space = Space(cells[0].mean(axis=0, dtype=np.float64), components, device)
    return [Sample(one, space) for one in cells]


@pytest.mark.parametrize("kept", [2000, 10], ids=["distances_kept", "distances_computed_again"])
@pytest.mark.parametrize("block", [1024, 7])
def test_distances_are_those_of_the_cells(samples, kept, block, monkeypatch):
    monkeypatch.setattr("perturbflow.metrics._samples.MOST_CELLS_KEPT", kept)
    monkeypatch.setattr("perturbflow.metrics._samples.BLOCK", block)
    x, y = samples
    half, other = x.part(np.arange(0, 40, 2)), x.part(np.arange(1, 40, 2))
    for one, two in ((x, y), (x, x), (half, other), (half, half), (half, x), (other, y)):
        np.testing.assert_allclose(one.distances_to(two), cdist(one.cells, two.cells).mean(axis=1), atol=1e-5)
    assert energy_distance_of(half, y) == pytest.approx(energy_distance(half.cells, y.cells), abs=1e-5)
    assert energy_distance_of(x, x) == pytest.approx(energy_distance(x.cells, x.cells), abs=1e-5)
    together = np.concatenate([half.cells, y.cells])
    np.testing.assert_allclose(distances_together(half, y), cdist(together, together), atol=1e-5)


def test_distances_that_were_kept_are_not_changed_by_who_reads_them(samples):
    x, y = samples
    before = np.array(x.within.tolist())
    x.distances_to(x), x.part(np.arange(9)).distances_to(x), distances_together(x, y)
    np.testing.assert_array_equal(x.within.tolist(), before)


def test_a_sample_goes_with_its_last_name(samples):
    x, y = samples
    one = Sample(x.cells, x.space)
    assert energy_distance_of(one, y) == pytest.approx(energy_distance_of(x, y))
    assert energy_distance_of(one, one) == pytest.approx(energy_distance_of(x, x))
    part = one.part(np.arange(9))
    assert part.distances_to(part).shape == (9,)
    gone = weakref.ref(one)
    gc.disable()
    try:
        del one, part
        assert gone() is None  # cells of one condition are in memory at a time, without waiting for the collector
    finally:
        gc.enable()


def test_a_part_is_a_sample_of_its_own(samples):
    x, _ = samples
    rows = np.array([3, 8, 11, 20])
    part, alone = x.part(rows), Sample(x.cells[rows], x.space)
    for name in ("cells", "centred", "components", "by_gene", "sorted_projections", "expressed", "most_variable"):
        np.testing.assert_allclose(getattr(part, name), getattr(alone, name), atol=1e-6, err_msg=name)
    assert part.mean_distance == pytest.approx(alone.mean_distance, abs=1e-6)
    np.testing.assert_array_equal(part.moments.variance, Moments.of(x.cells[rows]).variance)


def test_energy_loss_in_components_is_that_of_the_components(samples):
    x, y = samples
    expected = energy_loss(x.components, y.components)
    assert expected > 0.1
    assert Pair(x, y).energy_loss_in_components() == pytest.approx(expected, rel=1e-9)
    assert Pair(y, x).energy_loss_in_components() == pytest.approx(expected, rel=1e-9)
    near = [Sample(1e-6 * one.cells, x.space) for one in (x, y)]  # nearer than what geomloss tells apart
    expected = energy_loss(*(one.components for one in near))
    assert Pair(*near).energy_loss_in_components() == pytest.approx(expected, abs=1e-12)


def test_metrics_of_components_are_means_over_predictions(samples):
    x, y = samples
    parts = [x.part(np.arange(20)), x.part(np.arange(20, 40))]
    comparison = Comparison((x.moments, y.moments, y.moments), pairs=[Pair(part, y) for part in parts])
    for name in ("cosine_in_components", "energy_loss_in_components"):
        metric = METRICS[name]
        expected = np.mean([metric.function(part.components, y.components) for part in parts])
        assert metric.value(comparison) == pytest.approx(expected, rel=1e-9)


def test_a_sample_has_two_cells(samples):
    with pytest.raises(ValueError, match="at least 2 cells"):
        samples[0].part(np.array([0]))
