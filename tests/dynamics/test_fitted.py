from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.linalg import expm

from perturbflow.dynamics import DenseField, FieldConfig, FittedDynamics, TargetField, Units, build_field
from perturbflow.dynamics._fitted import keep_support, strong_inputs

MATRIX = np.array([[-0.5, 1.0, 0.0], [-1.0, -0.5, 0.3], [0.0, 0.0, -1.0]])
STARTS = np.array([[1.0, 0.0, 2.0], [-1.0, 0.5, 0.3]])
SCALE, TIME_SCALE = np.array([1.0, 0.5, 2.0]), 0.8
TIME = np.linspace(0, 3, 13)


def fitted(field, **options) -> FittedDynamics:
    order, d = field.config.order, field.config.n_genes
    empty: dict[str, Any] = {"rates": np.zeros((0, 0)), "evidence": np.zeros((0, 0), dtype=np.float32)}
    return FittedDynamics(
        field=field,
        units=Units(scale=np.resize(SCALE, d), time=TIME_SCALE),
        names=("a", "b"),
        start=np.zeros((2, order * d)),
        span=np.array([[0.0, 3.0], [0.0, 2.0]]),
        clamped=np.zeros((2, d), dtype=bool),
        states=np.zeros((4, order * d), dtype=np.float32),
        **(empty | options),
    )


def linear(*, matrix=MATRIX, order=1, **options) -> FittedDynamics:
    """Dynamics x' = A x, or x'' = A (x, x') in second order."""
    config = FieldConfig(
        3, (0, 1, 2), structure="linear", hidden=(), order=order, decay=False, production="free", self_regulation=True
    )
    field = build_field(config)
    units = np.concatenate([SCALE / TIME_SCALE**k for k in range(order)])
    with torch.no_grad():
        field.matrices[0].copy_(torch.tensor(matrix * units / SCALE[:, None] * TIME_SCALE**order)[:, None])
    return fitted(field, **options)


def exact(matrix, starts, time=TIME):
    return np.stack([[expm(t * matrix) @ start for t in time] for start in starts])


def test_solution_of_a_linear_system_in_the_units_of_the_data():
    model = linear()
    found = model.solve(model.state(STARTS), TIME)
    np.testing.assert_allclose(found, exact(MATRIX, STARTS), atol=2e-4)
    np.testing.assert_allclose(found[:, 0], STARTS, rtol=1e-12)
    # Times need not be regular, nor start at 0.
    late = np.array([5.0, 5.5, 8.0])
    np.testing.assert_allclose(model.solve(model.state(STARTS), late), exact(MATRIX, STARTS, late - 5), atol=2e-4)
    assert model.solve(model.state(STARTS), [1.0]).shape == (2, 1, 3)


def test_clamped_gene_is_at_its_level_and_acts_from_there():
    model = linear()
    found = model.solve(model.state(STARTS), TIME, clamp={1: 0.7})
    assert (found[..., 1] == 0.7).all()
    held = np.where(np.arange(3)[:, None] == 1, 0, MATRIX)
    starts = np.where(np.arange(3) == 1, 0.7, STARTS)
    np.testing.assert_allclose(found, exact(held, starts), atol=2e-4)
    # No path leads from gene 1 to gene 2.
    np.testing.assert_array_equal(found[..., 2], model.solve(model.state(STARTS), TIME)[..., 2])


def test_several_genes_and_starts_held_at_their_own_level():
    model = linear()
    found = model.solve(model.state(STARTS), TIME, clamp={0: 0.0, 1: 2.0})
    assert (found[..., 0] == 0).all()
    np.testing.assert_allclose(found[..., 1], 2, rtol=1e-12)
    clamped = np.array([[True, False, False], [False, False, True]])
    found = model.solve(model.state(STARTS), TIME, clamped=clamped)
    np.testing.assert_allclose(found[0, :, 0], 1.0, rtol=1e-12)
    np.testing.assert_allclose(found[1, :, 2], 0.3, rtol=1e-12)
    assert np.ptp(found[1, :, 0]) > 0.1


def test_replaced_mechanism():
    model = linear()
    stronger = MATRIX.copy()
    stronger[1] = [0.0, -2.0, 1.0]  # of a gene whose unit is not 1
    found = model.solve(model.state(STARTS), TIME, mechanisms={1: lambda x: x[:, 2] - 2 * x[:, 1]})
    np.testing.assert_allclose(found, exact(stronger, STARTS), atol=5e-4)


def test_second_order():
    acceleration = np.hstack([MATRIX, -0.3 * np.eye(3)])
    model = linear(matrix=acceleration, order=2)
    whole = np.block([[np.zeros((3, 3)), np.eye(3)], [acceleration]])
    state = np.array([[1.0, 0.0, 2.0, 0.5, -0.5, 0.1]])
    scaled = state / np.concatenate([SCALE, SCALE / TIME_SCALE])
    np.testing.assert_allclose(model.solve(scaled, TIME), exact(whole, state)[..., :3], atol=1e-3)
    # A held gene has no rate.
    found = model.solve(scaled, TIME, clamp={0: 1.5})
    np.testing.assert_allclose(found[..., 0], 1.5, rtol=1e-12)
    found = model.solve(scaled, TIME, mechanisms={0: lambda x: -9 * x[:, 0] + x[:, 3]})
    whole[3] = [-9, 0, 0, 1, 0, 0]
    np.testing.assert_allclose(found, exact(whole, state)[..., :3], atol=0.05)


def test_new_starts_of_second_order_have_the_usual_rates():
    rates = np.array([[0.1, 0.2, 0.3], [1.0, 0, 0], [0, 2.0, 0], [0, 0, 3.0]])
    model = linear(matrix=np.zeros((3, 6)), order=2, rates=rates)
    levels = np.array([[1.0, 1.0, 2.0]])
    np.testing.assert_allclose(model.state(levels), [[1, 2, 1, 1.1, 4.2, 3.3]])


def test_jacobian_is_scaled_and_over_the_states():
    model = linear()
    scaled = MATRIX * SCALE / SCALE[:, None] * TIME_SCALE
    np.testing.assert_allclose(model.jacobian().mean, scaled, rtol=1e-5)
    model.solve(model.state(STARTS), TIME)  # in double precision
    np.testing.assert_allclose(model.jacobian(np.ones((2, 3))).signed, scaled, rtol=1e-5)
    np.testing.assert_array_equal(model.support(), MATRIX != 0)


FIELDS: dict[str, dict[str, Any]] = {
    "per_target": {},
    "dense": {"structure": "dense", "hidden": (6, 5)},
    "skip": {"skip": True},
    "second_order": {"order": 2, "decay": False, "production": "free", "self_regulation": True},
}


@pytest.mark.parametrize("name", FIELDS)
def test_plain_values_give_the_same_model(name):
    config = FieldConfig(4, (0, 2, 3), **FIELDS[name])
    field = build_field(config, seed=5)
    with torch.no_grad():
        field.allowed[1, 0] = 0
        field.centre.fill_(0.3)
    d, order = 4, config.order
    model = fitted(field, rates=np.ones((5, 4)) if order == 2 else np.zeros((0, 0)), strength=0.05, threshold=0.2)
    again = FittedDynamics.from_dict(model.to_dict())
    start = np.random.default_rng(0).uniform(0, 1, (2, order * d))
    np.testing.assert_array_equal(model.solve(start, TIME), again.solve(start, TIME))
    np.testing.assert_array_equal(model.support(), again.support())
    np.testing.assert_array_equal(model.state(start[:, :d]), again.state(start[:, :d]))
    np.testing.assert_array_equal(again.span, model.span)
    assert (again.config, again.names, again.strength, again.threshold) == (config, ("a", "b"), 0.05, 0.2)
    model.threshold = None
    assert FittedDynamics.from_dict(model.to_dict()).threshold is None


def test_support_follows_paths_and_the_skip():
    field = TargetField(FieldConfig(3, (0, 1, 2), hidden=(2,), skip=True, self_regulation=True), range(3))
    with torch.no_grad():
        field.matrices[0].zero_()
        field.matrices[0][0, 1, 2] = 1.0
        field.matrices[0][1, 0, 0] = 1.0
        field.matrices[1][1] = 0.0  # cut further on
        field.linear.zero_()
        field.linear[2, 0, 1] = -1.0
    expected = np.zeros((3, 3), dtype=bool)
    expected[0, 2] = expected[2, 1] = True
    np.testing.assert_array_equal(fitted(field).support(), expected)


@pytest.mark.parametrize("skip", [False, True])
def test_kept_support_of_a_network_per_target(skip):
    field = TargetField(FieldConfig(3, (0, 1, 2), hidden=(2,), skip=skip, self_regulation=True), range(3))
    weights = [w.detach().clone() for w in field.weights()]
    weights[0][:] = 1.0
    weights[1][:] = 1.0
    weights[0][0, :, 1] = 0.001
    weights[0][1, :, 2] = 0.0
    weights[0][2] *= 100
    weights[0][2, :, 0] = 0.1  # little beside the others of its target, whatever their size
    if skip:
        weights[2][:] = 0.0
        weights[2][0, 0, 1] = 3.0
    assert strong_inputs(field, weights, smallest=0.0).sum() == 8  # all but the one without a path
    keep_support(field, weights, smallest=0.01)
    expected = np.ones((3, 3), dtype=bool)
    expected[0, 1] = skip
    expected[1, 2] = expected[2, 0] = False
    np.testing.assert_array_equal(field.allowed.numpy() > 0, expected)
    np.testing.assert_array_equal(fitted(field).support(), expected)
    for mine, given in zip(field.matrices, weights, strict=False):
        torch.testing.assert_close(mine.detach(), given)


def test_kept_support_of_a_dense_network_is_single_weights():
    field = DenseField(FieldConfig(3, (0, 1, 2), structure="dense", hidden=(4,)), range(3))
    weights = [w.detach().clone() for w in field.weights()]
    weights[0][1, 2] = 0.0
    weights[1][0, 3] = 0.0
    weights[1][0, 2] = 1e-9  # nothing beside the others
    weights[1][1, 2] = 0.01 * weights[1].abs().max()
    keep_support(field, weights, smallest=0.01)
    for mask, given in zip(field.masks(), weights, strict=True):
        assert torch.equal(mask > 0, given.abs() > 1e-3 * given.abs().max())
    with torch.no_grad():
        for matrix in field.matrices:
            matrix.add_(1.0)
    assert field.weights()[0][1, 2] == field.weights()[1][0, 3] == field.weights()[1][0, 2] == 0
    assert field.weights()[1][1, 2] != 0
