"""Shares as angles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perturbflow.flow._hurdle_distribution import angle, share_at, share_error


@given(st.floats(0, 1))
def test_there_and_back(share):
    assert share_at(angle(np.array([share])))[0] == pytest.approx(share, abs=1e-12)


def test_ends_and_what_lies_beyond():
    np.testing.assert_allclose(angle(np.array([0.0, 0.5, 1.0])), [0, np.pi / 2, np.pi])
    np.testing.assert_array_equal(share_at(np.array([-1.0, 4.0])), [0, 1])


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_sampling_variance_does_not_depend_on_the_share(share):
    n = 400
    found = angle(np.random.default_rng(0).binomial(n, share, 100_000) / n)
    assert found.var() == pytest.approx(1 / n, rel=0.02)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 1.0])
@pytest.mark.parametrize("sd", [0.02, 0.3])
def test_error_of_a_share_is_that_of_simulated_angles(share, sd):
    rng = np.random.default_rng(0)
    angles = 2 * np.arcsin(np.sqrt(share)) + sd * rng.standard_normal(400_000)
    simulated = np.sqrt(np.mean(((1 - np.cos(angles)) / 2 - share) ** 2))
    assert share_error(np.array([share]), np.array([sd]))[0] == pytest.approx(simulated, rel=0.01)
