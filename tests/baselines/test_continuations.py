from __future__ import annotations

import numpy as np
import pytest

from perturbflow.baselines import CONTINUATIONS

hold_last, constant_rate, observed_mean, repeat_cycle, replay_analogue = CONTINUATIONS.values()


def wave(n: int, *, period: float = 20.0, phase: float = 0.0, offset: float = 0.0, d: int = 3):
    """Waves of d genes, evenly sampled."""
    angle = 2 * np.pi * (np.arange(n)[:, None] / period + phase + np.arange(d) / d)
    return offset + np.sin(angle)


@pytest.mark.parametrize("name", CONTINUATIONS)
def test_one_form(name):
    train = [wave(100), wave(90, phase=0.3)]
    predicted = CONTINUATIONS[name](train, wave(60), 30)
    assert predicted.shape == (30, 3)
    predicted[:] = np.nan  # nothing of the input is returned itself
    assert np.isfinite(train[0]).all()


def test_closed_forms():
    line = np.arange(10.0)[:, None] * [1.0, -2.0]
    assert hold_last([], line, 2).tolist() == [[9, -18], [9, -18]]
    assert constant_rate([], line, 2).tolist() == [[10, -20], [11, -22]]
    assert observed_mean([], line, 2).tolist() == [[4.5, -9], [4.5, -9]]


@pytest.mark.parametrize("period", [16, 20, 31])
def test_periodic_series_are_continued_exactly(period):
    whole = wave(160, period=period)
    np.testing.assert_allclose(repeat_cycle([], whole[:70], 90), whole[70:], atol=1e-12)


def test_short_series_are_held():
    whole = wave(60)
    np.testing.assert_array_equal(repeat_cycle([], whole[:24], 5), hold_last([], whole[:24], 5))
    np.testing.assert_allclose(repeat_cycle([], whole[:30], 5), whole[30:35], atol=1e-12)
    np.testing.assert_allclose(repeat_cycle([], whole[:24], 5, overlap=4), whole[24:29], atol=1e-12)


def test_analogue_is_what_followed_in_training():
    train = [wave(100, phase=0.13), wave(100)]
    whole = wave(60)
    np.testing.assert_allclose(replay_analogue(train, whole[:20], 40), whole[20:], atol=1e-12)
    shifted = replay_analogue(train, whole[:1] + 0.01, 40, shifted=True)
    np.testing.assert_allclose(shifted, whole[1:41] + 0.01, atol=1e-12)
    # Only the last times count.
    other = whole[:20].copy()
    other[:15] += 7
    np.testing.assert_allclose(replay_analogue(train, other, 40), whole[20:], atol=1e-12)


def test_what_follows_has_to_be_there():
    with pytest.raises(
        ValueError,
        match="a training series of at least 45 times \\(5 to compare, 40 to continue\\), found none among 1",
    ):
        replay_analogue([wave(44)], wave(20), 40)
    assert len(replay_analogue([wave(45)], wave(20), 40)) == 40


@pytest.mark.parametrize("name", CONTINUATIONS)
def test_bad_series_are_refused(name):
    baseline, train = CONTINUATIONS[name], [wave(90)]
    with pytest.raises(
        ValueError, match=r"`observed` to have shape \(times, genes\) with at least . times, found shape \(0, 3\)"
    ):
        baseline(train, wave(0), 2)
    with pytest.raises(ValueError, match="series of 2 genes, as in `observed`"):
        baseline(train, wave(20, d=2), 2)
    unknown = wave(30)
    unknown[2] = np.nan
    with pytest.raises(ValueError, match="finite values in all series, found NaN"):
        baseline(train, unknown, 2)
    with pytest.raises(ValueError, match="`n_steps` to be at least 1, found 0"):
        baseline(train, wave(20), 0)


def test_a_rate_needs_two_times():
    with pytest.raises(ValueError, match="with at least 2 times"):
        constant_rate([], wave(1), 3)


@pytest.mark.parametrize("options", [{"shortest": 0}, {"overlap": 0}])
def test_cycles_have_a_length(options):
    with pytest.raises(ValueError, match="to be at least 1, found 0"):
        repeat_cycle([], wave(40), 3, **options)


def test_windows_have_a_length():
    with pytest.raises(ValueError, match="`window` to be at least 1, found 0"):
        replay_analogue([wave(40)], wave(40), 3, window=0)


def test_registry_is_read_only():
    with pytest.raises(TypeError, match="does not support item assignment"):
        CONTINUATIONS["x"] = hold_last  # type: ignore[index]
