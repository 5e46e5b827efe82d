from __future__ import annotations

import itertools
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from perturbflow.dynamics import (
    ACTIVATIONS,
    DenseField,
    FieldConfig,
    TargetField,
    build_field,
    path_weights,
    solve_rk4,
)

SHAPES: list[dict[str, Any]] = [
    {"structure": "per_target"},
    {"structure": "per_target", "hidden": (4, 3), "activation": "tanh"},
    {"structure": "per_target", "skip": True, "self_regulation": True},
    {"structure": "linear", "production": "free"},
    {"structure": "dense", "hidden": (6, 5)},
]


def field_of(*, n_genes=4, regulators=(0, 2, 3), seed=0, **changes):
    field = build_field(FieldConfig(n_genes, tuple(regulators), **changes), seed=seed).double()
    with torch.no_grad():  # nothing stays at the zeros and ones it starts with
        generator = torch.Generator().manual_seed(9)
        field.centre.copy_(torch.randn(field.centre.shape, generator=generator))
        for bias in field.biases:
            bias.copy_(torch.randn(bias.shape, generator=generator))
        field.raw_decay.copy_(torch.randn(field.raw_decay.shape, generator=generator))
        field.raw_range.copy_(torch.randn(field.raw_range.shape, generator=generator))
    return field


def states(n, n_state, *, seed=1):
    return torch.randn(n, n_state, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def jacobians(field, points):
    """Derivatives of all rates by all parts of the state, shape (B, n_rates, n_state)."""
    return torch.stack(
        [torch.autograd.functional.jacobian(lambda s: field.highest_rates(s[None])[0], p) for p in points]
    )


def by_hand(field, state):
    """Rates of one state, one target after the other, from the parameters."""
    config, inputs = field.config, state[field.inputs] - field.centre
    activation = ACTIVATIONS[config.activation]
    rates = []
    for k, target in enumerate(field.targets.tolist()):
        allowed = inputs.clone()
        if not config.self_regulation and target in config.regulators:
            allowed[torch.tensor(config.regulators).repeat(config.order) == target] = 0
        values = allowed
        for n, (matrix, bias) in enumerate(zip(field.matrices, field.biases, strict=True)):
            values = activation(values) if n else values
            values = matrix[k] @ values + bias[k]
        output = values[0] + (field.linear[k, 0] @ allowed if config.skip else 0)
        if config.production == "bounded":
            output = functional.softplus(field.raw_range[k]) / (1 + torch.exp(-output))
        if config.decay:
            output = output - torch.log1p(torch.exp(field.raw_decay[k])) * state[target]
        rates.append(output)
    return torch.stack(rates)


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("production", ["bounded", "free"])
@pytest.mark.parametrize("decay", [True, False])
@pytest.mark.parametrize(
    "changes", [{}, {"hidden": (4, 3), "activation": "silu"}, {"skip": True, "self_regulation": True}]
)
def test_rates_of_networks_side_by_side_are_those_of_each_alone(order, production, decay, changes):
    field = field_of(order=order, production=production, decay=decay, **changes)
    points = states(5, 4 * order)
    expected = torch.stack([by_hand(field, point) for point in points])
    torch.testing.assert_close(field.highest_rates(points), expected)


def test_a_dense_field_is_one_network():
    field = field_of(structure="dense", hidden=(6, 5), activation="tanh", production="free")
    points = states(5, 4)
    first, second, third = field.matrices
    hidden = torch.tanh((points[:, [0, 2, 3]] - field.centre) @ first.T + field.biases[0])
    hidden = torch.tanh(hidden @ second.T + field.biases[1])
    expected = hidden @ third.T + field.biases[2] - field.decay_rates() * points
    torch.testing.assert_close(field(points), expected)


def test_a_linear_structure_is_linear_whatever_the_hidden_widths():
    field = field_of(structure="linear", production="free", hidden=(7,), order=2)
    slopes = jacobians(field, states(6, 8))
    torch.testing.assert_close(slopes, slopes[:1].expand_as(slopes))
    assert [tuple(m.shape) for m in field.matrices] == [(4, 1, 6)]


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("order", [1, 2])
def test_rates_depend_on_regulators_and_the_own_decay_only(changes, order):
    field = field_of(order=order, **changes)
    slopes = jacobians(field, states(3, 4 * order))
    expected = torch.zeros(4, 4 * order, dtype=torch.bool)
    expected[:, [part * 4 + gene for part in range(order) for gene in (0, 2, 3)]] = True
    if not field.config.self_regulation and not isinstance(field, DenseField):
        expected[:, :4] &= ~torch.eye(4, dtype=torch.bool)
        if order == 2:
            expected[:, 4:] &= ~torch.eye(4, dtype=torch.bool)
    expected[:, :4] |= torch.eye(4, dtype=torch.bool)
    assert torch.equal((slopes != 0).any(dim=0), expected)


@pytest.mark.parametrize("changes", SHAPES)
def test_a_zeroed_input_has_a_jacobian_of_exactly_zero(changes):
    field = field_of(decay=False, **changes)
    weights = [w.detach().clone() for w in field.weights()]
    for layer in (weights[0], *([weights[-1]] if field.config.skip else [])):
        layer[..., 1] = 0  # gene 2
    chain = weights[:-1] if field.config.skip else weights
    assert (path_weights(chain)[:, 1] == 0).all()
    for point in states(3, 4):
        slope = torch.autograd.functional.jacobian(lambda s: field.highest_rates(s[None], weights)[0], point)
        assert (slope[:, 2] == 0).all()
        assert (slope[[1, 2], 0] != 0).all()


def test_without_regulators_genes_decay_exponentially():
    field = field_of(production="free")
    with torch.no_grad():
        for parameter in (*field.matrices, *field.biases):
            parameter.zero_()
    start, times = states(3, 4), torch.linspace(0, 2, 5, dtype=torch.float64)
    found = solve_rk4(field, start, times.expand(3, 5), max_step=0.01)
    rates = torch.log1p(field.raw_decay.exp())
    torch.testing.assert_close(found, start[:, None] * torch.exp(-times[:, None] * rates), atol=1e-8, rtol=0)


def test_bounded_production_stays_within_its_bounds():
    field = field_of(decay=False)
    rates = field(100 * states(200, 4))
    highest = functional.softplus(field.raw_range)
    assert (rates >= 0).all()
    assert (rates <= highest).all()
    assert (rates.amax(dim=0) > 0.99 * highest).all()


def test_the_decay_a_field_starts_with_is_one():
    torch.testing.assert_close(build_field(FieldConfig(3, (0,))).decay_rates(), torch.ones(3))


@pytest.mark.parametrize("changes", SHAPES)
def test_in_second_order_levels_change_at_their_rates(changes):
    field = field_of(order=2, **changes)
    points = states(3, 8)
    change = field(points)
    assert torch.equal(change[:, :4], points[:, 4:])
    assert torch.equal(change[:, 4:], field.highest_rates(points))
    assert field.inputs.tolist() == [0, 2, 3, 4, 6, 7]


def test_a_second_order_field_solves_the_damped_oscillator():
    field = build_field(
        FieldConfig(1, (0,), structure="linear", order=2, decay=False, production="free", self_regulation=True)
    ).double()
    with torch.no_grad():
        field.matrices[0].copy_(torch.tensor([[[-1.5, -0.5]]]))
    times = torch.linspace(0, 6, 13, dtype=torch.float64)
    found = solve_rk4(field, torch.tensor([[0.4, 0.3]], dtype=torch.float64), times[None], max_step=0.02)[0, :, 0]
    frequency = math.sqrt(1.5 - 0.25**2)
    sine = (0.3 + 0.25 * 0.4) / frequency
    expected = torch.exp(-0.25 * times) * (0.4 * torch.cos(frequency * times) + sine * torch.sin(frequency * times))
    torch.testing.assert_close(found, expected, atol=1e-8, rtol=0)


def test_masked_weights_of_a_dense_field_do_not_count():
    field = field_of(structure="dense", hidden=(6, 5), decay=False)
    with torch.no_grad():
        field.masks()[0][:, 1] = 0  # gene 2
        field.masks()[2][3] = 0  # of target 3 only the bias is left
    slopes = jacobians(field, states(3, 4))
    assert (slopes[:, :, 2] == 0).all()
    assert (slopes[:, 3] == 0).all()
    assert (slopes[:, :3][..., [0, 3]] != 0).all()


@pytest.mark.parametrize("changes", [c for c in SHAPES if c["structure"] != "dense"])
@pytest.mark.parametrize("order", [1, 2])
def test_selected_mechanisms_have_the_same_rates(changes, order):
    field = field_of(order=order, **changes)
    heads, points = torch.tensor([3, 1, 1]), states(5, 4 * order)
    some = field.select(heads)
    assert some.targets.tolist() == [3, 1, 1]
    torch.testing.assert_close(
        some.highest_rates(points), field.highest_rates(points)[:, heads], rtol=1e-12, atol=1e-12
    )
    again = some.select(torch.tensor([1]))
    torch.testing.assert_close(again.highest_rates(points), field.highest_rates(points)[:, [1]], rtol=1e-12, atol=1e-12)
    with torch.no_grad():
        some.matrices[0].zero_()
    assert (field.matrices[0] != 0).all()  # a copy


def test_weights_can_be_replaced():
    field, other = field_of(), field_of(seed=1)
    points = states(4, 4)
    for bias, own in zip(other.biases, field.biases, strict=True):
        bias.data.copy_(own)
    torch.testing.assert_close(field(points, other.weights()), other(points))
    assert not torch.allclose(field(points), other(points))


@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("order", [1, 2])
def test_gradients_of_a_solution_by_the_parameters_agree_with_finite_differences(changes, order):
    field = field_of(order=order, **changes)
    start = states(2, 4 * order)
    times = torch.tensor([[0.0, 0.3, 0.6]] * 2, dtype=torch.float64)
    coefficients = states(3, 4 * order, seed=5)

    def loss():
        return (solve_rk4(field, start, times, max_step=0.3) * coefficients).sum()

    loss().backward()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in field.named_parameters():
            if parameter.grad is None:
                assert name == "raw_range"  # nothing to bound
                assert field.config.production == "free"
                continue
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            ends = []
            for size in (1e-5, -1e-5):
                parameter += size * direction
                ends.append(loss())
                parameter -= size * direction
            slope = (ends[0] - ends[1]) / 2e-5
            torch.testing.assert_close((parameter.grad * direction).sum(), slope, rtol=1e-5, atol=1e-6)


def test_a_configuration_survives_a_file():
    config = FieldConfig(5, (0, 3), structure="linear", hidden=(), order=2, decay=False, skip=True, activation="tanh")
    assert FieldConfig.from_dict(config.to_dict()) == config
    stored: dict[str, Any] = {
        name: np.array(value) if isinstance(value, list) else np.asarray(value)[()]
        for name, value in config.to_dict().items()
    }
    stored |= {"n_genes": np.int64(5), "order": np.array(2), "decay": np.bool_(False)}
    read = FieldConfig.from_dict(stored)
    assert read == config
    assert {name: type(value) for name, value in asdict(read).items()} == {
        name: type(value) for name, value in asdict(config).items()
    }


def test_seeds_repeat():
    for structure in ("per_target", "dense"):
        one, again, other = (field_of(structure=structure, seed=s).matrices[0] for s in (3, 3, 4))
        assert torch.equal(one, again)
        assert not torch.equal(one, other)


def test_structures():
    assert isinstance(build_field(FieldConfig(3, (0, 1))), TargetField)
    assert isinstance(build_field(FieldConfig(3, (0, 1), structure="linear")), TargetField)
    assert isinstance(build_field(FieldConfig(3, (0, 1), structure="dense")), DenseField)
    field = build_field(FieldConfig(3, (0, 1), hidden=(5, 4)))
    assert [tuple(m.shape) for m in field.matrices] == [
        (3, n_out, n_in) for n_in, n_out in itertools.pairwise((2, 5, 4, 1))
    ]


@pytest.mark.parametrize("structure", ["per_target", "dense"])
@pytest.mark.parametrize("order", [1, 2])
def test_genes_at_rest_have_no_mechanism_and_stay(structure, order):
    options = {"structure": structure, "order": order, "decay": False, "production": "free"}
    field = build_field(FieldConfig(4, (0, 3), at_rest=(1, 2), **options), seed=1)
    without = build_field(FieldConfig(2, (0, 1), **options), seed=1)
    assert field.targets.tolist() == list(field.config.targets) == [0, 3]
    state = torch.randn(6, 4 * order, generator=torch.Generator().manual_seed(0))
    moving = torch.tensor([0, 3, 4, 7][: 2 * order])
    change = field(state)
    torch.testing.assert_close(change[:, moving], without(state[:, moving]))
    at_rest = torch.tensor([1, 2, 5, 6][: 2 * order])
    assert not change[:, at_rest].any()


def test_genes_at_rest_survive_and_are_none_in_earlier_files():
    config = FieldConfig(4, (0, 3), at_rest=(1,))
    assert FieldConfig.from_dict(config.to_dict()) == config
    earlier = {name: value for name, value in config.to_dict().items() if name != "at_rest"}
    assert FieldConfig.from_dict(earlier) == FieldConfig(4, (0, 3))
