"""Effects in 16 bits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from perturbflow.flow import AdditiveHurdlePrior
from perturbflow.flow._arrays import pack, pack_variances, unpack, unpack_variances

finite = st.floats(-(2.0**60), 2.0**60, width=32)


@given(arrays(np.float32, (3, 5), elements=finite))
def test_errors_are_at_most_as_stated_and_made_once(values):
    codes, steps = pack(values)
    found = unpack(codes, steps)
    limit = 3.06e-5 * np.abs(values).max(axis=1, keepdims=True) + 1e-38
    assert (np.abs(found - values) <= limit).all()
    np.testing.assert_array_equal(unpack(*pack(found)), found)


@given(arrays(np.float32, 6, elements=st.floats(2.0**-20, 2.0**20, width=32)))
def test_standard_deviations_are_right_to_half_a_thousandth(variances):
    found = unpack_variances(pack_variances(variances))
    np.testing.assert_allclose(np.sqrt(found), np.sqrt(variances), rtol=5e-4)
    np.testing.assert_array_equal(unpack_variances(pack_variances(found)), found)


def test_zeros_stay_zeros():
    assert not unpack(*pack(np.zeros((2, 4), dtype=np.float32))).any()
    assert pack(np.zeros((2, 0), dtype=np.float32))[0].shape == (2, 0)


def test_a_stored_prior_is_small_and_predicts_the_same(hurdle_screen):
    screen = hurdle_screen(300)
    screen.add(100, np.zeros(40))
    for doses in np.eye(40):
        screen.add(20, doses, angle=0.2, mean=0.1)
    prior = AdditiveHurdlePrior.fit(screen.data())
    stored = prior.to_arrays()
    values = 3 * 2 * 40 * 300  # effects, interactions and deviations, of angles and means
    # Beside them some fifteen arrays of a context's genes, which count in so small a screen.
    assert sum(array.nbytes for array in stored.values()) < 1.19 * 2 * values
    again = AdditiveHurdlePrior.from_arrays(stored)
    context = prior.context(np.zeros(0, dtype=int))
    for doses in (*np.eye(40)[:3], np.eye(40)[:2].sum(axis=0)):
        one, two = prior.distribution(doses, context), again.distribution(doses, context)
        np.testing.assert_array_equal(one.expressed, two.expressed)
        np.testing.assert_array_equal(one.mean, two.mean)
        np.testing.assert_array_equal(
            prior.distribution_sd(doses, context).angle, again.distribution_sd(doses, context).angle
        )


@pytest.mark.parametrize("name", ["effects", "interactions"])
def test_a_changed_prior_is_stored_to_the_stated_precision(hurdle_screen, name):
    screen = hurdle_screen(30)
    for doses in ([0, 0], [1, 0], [0, 1], [1, 1]):
        screen.add(50, doses)
    prior = AdditiveHurdlePrior.fit(screen.data())
    values = np.random.default_rng(0).normal(size=getattr(prior, name).shape).astype(np.float32)
    again = AdditiveHurdlePrior.from_arrays(replace(prior, **{name: values}).to_arrays())
    np.testing.assert_allclose(getattr(again, name), values, atol=3.1e-5 * np.abs(values).max())
