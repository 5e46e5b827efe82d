from __future__ import annotations

import math

import pytest
import torch

from perturbflow.dynamics._progress import StrengthPath

NOTHING = torch.tensor([math.nan, math.nan])


def path_of(*valid) -> StrengthPath:
    path = StrengthPath()
    for k, errors in enumerate(valid):
        outside = None if errors is None else torch.tensor(errors)
        path.add(0.1 * (k + 1), torch.tensor([1.0, 2.0]), outside, 10 - k)
    return path


def test_best_is_the_smallest_mean():
    assert path_of([3.0, 3.0], [1.0, 2.0], [1.0, 1.0], [2.0, 2.0]).best() == 2
    assert path_of([1.0, 1.0], [1.0, 1.0]).best() == 0


def test_standard_error_is_that_of_the_difference_from_the_best():
    path = path_of([1.0, 2.0], [1.0, 4.0])
    # Differences 0 and 2: standard deviation sqrt(2), over the root of two targets.
    assert path.standard_errors() == pytest.approx([0.0, 1.0])
    alone = path_of([1.0], [2.0])
    assert alone.standard_errors() == [0.0, 0.0]


def test_strongest_within_a_standard_error_is_chosen():
    best, close, far = [1.0, 1.0, 1.0], [0.9, 1.0, 1.3], [1.5, 1.5, 1.6]
    assert path_of(best, close, far).choose() == 1  # mean 0.067 above, standard error 0.12
    assert path_of(best, far, close).choose() == 2  # also past a worse one
    assert path_of(best, far, far).choose() == 0
    assert path_of(far, best).choose() == 1
    assert path_of(close, best).choose() == 1
    assert path_of(best, [1.01, 1.01, 1.01]).choose() == 0  # certainly worse


def test_nothing_held_out_leaves_the_weakest():
    path = path_of(None, None)
    assert path.best() == path.choose() == 0
    assert all(valid.isnan().all() for valid in path.valid)


def test_a_strength_whose_error_is_undefined_is_never_chosen():
    assert path_of([math.nan, 1.0], [1.0, 1.0], [2.0, 3.0]).choose() == 1


def test_columns_of_the_table():
    columns = path_of([3.0, 3.0], [1.0, 2.0]).to_columns(1)
    assert list(columns) == ["strength", "train_error", "valid_error", "valid_error_se", "n_edges", "chosen"]
    assert columns["strength"] == pytest.approx([0.1, 0.2])
    assert columns["train_error"] == [1.5, 1.5]
    assert columns["valid_error"] == [3.0, 1.5]
    assert columns["n_edges"] == [10, 9]
    assert columns["chosen"] == [False, True]
