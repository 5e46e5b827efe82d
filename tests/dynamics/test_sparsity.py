from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from perturbflow.dynamics import (
    SPARSITIES,
    FieldConfig,
    Sparsity,
    build_field,
    expected_gates,
    open_probability,
    path_product,
    sample_gates,
)

D, REGULATORS = 4, (0, 2, 3)
GATED = ["l0", "pathreg", "pathreg_edge"]


def field_of(structure="per_target", *, seed=0, **changes):
    settings_ = {"hidden": () if structure == "linear" else (5,), "self_regulation": True}
    return build_field(FieldConfig(D, REGULATORS, structure=structure, **(settings_ | changes)), seed=seed)


def sparsity_of(name, field, **options) -> Any:
    return SPARSITIES[name](field, **options)


def factors_of(seed=1):
    return 0.2 + torch.rand(D, len(REGULATORS), generator=torch.Generator().manual_seed(seed))


def gates_of(sparsity):
    """Parameters of the gates, a tensor a layer; none without gates."""
    return list(getattr(sparsity, "log_alpha", []))


def spread_gates(sparsity, seed=2):
    """Give every gate a parameter of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for log_alpha in sparsity.log_alpha:
            log_alpha.copy_(2 * torch.randn(log_alpha.shape, generator=generator))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


# Proximal steps


@pytest.mark.parametrize("structure", ["per_target", "linear", "dense"])
def test_l1_takes_the_proximal_step_of_every_weight(structure):
    field, factors = field_of(structure), factors_of()
    before = [m.detach().clone() for m in field.matrices]
    steps = {f"matrices.{k}": 0.1 + torch.rand(m.shape, generator=generator(k)) for k, m in enumerate(before)}
    sparsity_of("l1", field, factors=factors).proximal_(field, 2.0, steps)
    for k, (old, new) in enumerate(zip(before, field.matrices, strict=True)):
        for entry in np.ndindex(*old.shape):
            amount = 2.0 / D * steps[f"matrices.{k}"][entry]
            if k == 0:  # the first layer: input j (of target i, or of all)
                amount = amount * (
                    factors.mean(dim=0)[entry[-1]] if structure == "dense" else factors[entry[0], entry[-1]]
                )
            shrunk = math.copysign(max(abs(old[entry]) - amount, 0), old[entry])
            assert new[entry].item() == pytest.approx(shrunk, abs=1e-6)
    assert any((m == 0).any() for m in field.matrices)


@pytest.mark.parametrize("structure", ["per_target", "linear", "dense"])
def test_group_lasso_shrinks_the_norm_of_what_leaves_an_input(structure):
    field, factors = field_of(structure), factors_of()
    before = field.matrices[0].detach().clone()
    step = torch.full_like(before, 0.3)
    sparsity_of("group_lasso", field, factors=factors).proximal_(field, 3.0, {"matrices.0": step})
    after, dense = field.matrices[0].detach(), structure == "dense"
    for i in range(1 if dense else D):
        for j in range(len(REGULATORS)):
            old, new = (m[:, j] if dense else m[i, :, j] for m in (before, after))
            # In a dense network a group is penalised once for every target, and penalties are means over targets.
            amount = 0.3 * 3.0 * (factors[:, j].sum() if dense else factors[i, j]) / D
            torch.testing.assert_close(new.norm(), (old.norm() - amount).clamp(min=0), atol=1e-6, rtol=1e-5)
            torch.testing.assert_close(new * old.norm(), old * new.norm())  # the direction stays
    assert all(torch.equal(a, b) for a, b in zip(field.matrices[1:], field_of(structure).matrices[1:], strict=True))


def test_group_lasso_penalises_less_what_was_large_in_a_first_fit():
    field = field_of()
    with torch.no_grad():
        field.matrices[0].copy_(torch.tensor([1.0, 2.0, 0.0]).expand(D, 5, 3) / math.sqrt(5))  # norms 1, 2 and 0
    sparsity = sparsity_of("group_lasso", field, factors=torch.full((D, 3), 3.0))
    sparsity.adapt(field)
    expected = torch.tensor([3 / 1.1, 3 / 2.1, 3 / 0.1]).expand(D, 3)
    torch.testing.assert_close(sparsity.factors, expected)


# Penalties


@pytest.mark.parametrize("name", ["none", "l1", "group_lasso"])
def test_proximal_ways_have_no_smooth_penalty(name):
    field = field_of()
    assert SPARSITIES[name](field).penalty(field.weights()).item() == 0
    assert not list(SPARSITIES[name](field).parameters())


def test_cnode_by_hand():
    field = build_field(FieldConfig(2, (0, 1), structure="dense", hidden=(2,)))
    with torch.no_grad():
        field.matrices[0].copy_(torch.tensor([[1.0, -2.0], [0.0, 3.0]]))
        field.matrices[1].copy_(torch.tensor([[-1.0, 0.5], [4.0, 0.0]]))
    # |W2| |W1| = [[1, 3.5], [4, 8]]
    assert sparsity_of("cnode", field).penalty(field.weights()).item() == pytest.approx(16.5 / 2)
    factors = torch.tensor([[1.0, 0.0], [0.5, 2.0]])
    penalty = sparsity_of("cnode", field, factors=factors).penalty(field.weights())
    assert penalty.item() == pytest.approx((1 + 2 + 16) / 2)


def test_a_linear_skip_is_a_path_of_its_own():
    plain, skip = field_of(), field_of(skip=True)
    difference = sparsity_of("cnode", skip).penalty(skip.weights()) - sparsity_of("cnode", plain).penalty(
        plain.weights()
    )
    torch.testing.assert_close(difference, skip.linear.abs().sum() / D)


@pytest.mark.parametrize("structure", ["per_target", "linear"])
def test_l0_is_the_expected_number_of_inputs_of_a_target(structure):
    field, factors = field_of(structure), factors_of()
    sparsity = sparsity_of("l0", field, factors=factors)
    assert sparsity.penalty(field.weights()).item() == pytest.approx(
        factors.sum().item() / D / (1 + math.exp(-(math.log(4) + 2 / 3 * math.log(11)))), rel=1e-6
    )  # all gates alike, log alpha = logit 0.8
    spread_gates(sparsity)
    log_alpha = sparsity.log_alpha[0][:, 0]
    assert log_alpha.shape == (D, len(REGULATORS))
    torch.testing.assert_close(sparsity.penalty(field.weights()), (factors * open_probability(log_alpha)).sum() / D)
    # Its meaning: how many gates are drawn open.
    drawn = torch.stack([sample_gates(log_alpha, generator=generator(k)) != 0 for k in range(3000)])
    assert (drawn * factors).sum(dim=(1, 2)).mean().item() / D == pytest.approx(
        sparsity.penalty(field.weights()).item(), rel=0.02
    )


def test_l0_of_a_dense_network_counts_weights():
    field, factors = field_of("dense"), factors_of()
    sparsity = sparsity_of("l0", field, factors=factors)
    spread_gates(sparsity)
    first, second = (open_probability(a) for a in sparsity.log_alpha)
    assert first.shape == (5, 3)
    assert second.shape == (D, 5)
    torch.testing.assert_close(
        sparsity.penalty(field.weights()), ((first * factors.mean(dim=0)).sum() + second.sum()) / D
    )


def test_released_pathreg_multiplies_the_columns_of_every_layer_by_the_gates_of_its_inputs():
    field = field_of("dense", hidden=(5, 4))
    sparsity = sparsity_of("pathreg", field)
    spread_gates(sparsity)
    assert [a.shape[-1] for a in sparsity.log_alpha] == [3, 5, 4]
    drawn = sparsity.draw(field.weights(), generator=generator())
    for weights, gates, found in zip(field.weights(), sparsity.drawn, drawn, strict=True):
        torch.testing.assert_close(found, weights @ torch.diag(gates[0]))


def test_the_gate_product_of_released_pathreg_is_the_same_for_all_targets():
    field, factors = field_of("dense", hidden=(5, 4)), factors_of()
    sparsity = sparsity_of("pathreg", field, factors=factors)
    spread_gates(sparsity)
    sparsity.draw(field.weights(), generator=generator())
    z1, z2, z3 = (gates[0] for gates in sparsity.drawn)
    product = path_product([z.expand_as(w) for z, w in zip(sparsity.drawn, field.weights(), strict=True)])
    assert torch.equal(product, product[:1].expand_as(product))
    torch.testing.assert_close(product[0], z1 * z2.sum() * z3.sum())
    first, second, third = (w.abs() for w in field.weights())
    by_hand = ((third @ second @ first) * factors).sum() / D
    by_hand = by_hand + 0.1 * (z1 * factors).sum() / D * z2.sum() * z3.sum()
    torch.testing.assert_close(sparsity.penalty(field.weights()), by_hand)


def test_released_pathreg_before_the_first_draw_is_open():
    field = field_of("dense")
    gates = 0.1 * len(REGULATORS) * 5  # three inputs, five paths from each
    expected = sparsity_of("cnode", field).penalty(field.weights()).item() + gates
    assert sparsity_of("pathreg", field).penalty(field.weights()).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("structure", ["per_target", "dense"])
def test_pathreg_edge_expects_the_share_of_open_paths(structure):
    field = field_of(structure)
    sparsity = sparsity_of("pathreg_edge", field)
    with torch.no_grad():
        for layer, log_alpha in zip((-0.4, 1.3), sparsity.log_alpha, strict=True):
            log_alpha.fill_(layer)
    p1, p2 = (open_probability(torch.tensor(a)).item() for a in (-0.4, 1.3))
    weights = path_product([w.abs() for w in sparsity.expected(field.weights())]).sum().item() / D
    # Two layers of equal probabilities: every path is open with p1 p2.
    assert sparsity.penalty(field.weights()).item() == pytest.approx(weights + len(REGULATORS) * p1 * p2, rel=1e-5)


def test_the_share_of_open_paths_is_what_drawn_gates_have_on_average():
    field = field_of("dense")
    sparsity = sparsity_of("pathreg_edge", field)
    spread_gates(sparsity)
    weights = path_product([w.abs() for w in sparsity.expected(field.weights())]).sum() / D
    share = (sparsity.penalty(field.weights()) - weights).item()
    assert 0 <= share <= len(REGULATORS)
    counts = []
    for seed in range(3000):
        draw = generator(seed)
        counts.append(
            path_product([(sample_gates(a, generator=draw) != 0).float() for a in sparsity.log_alpha]).sum() / D / 5
        )
    assert torch.stack(counts).mean().item() == pytest.approx(share, rel=0.02)


def test_gates_of_pathreg_edge_can_close_one_target_alone():
    field = field_of("dense")
    sparsity = sparsity_of("pathreg_edge", field)
    with torch.no_grad():
        sparsity.log_alpha[0].fill_(10)
        sparsity.log_alpha[1].fill_(10)
        sparsity.log_alpha[0][:3, 1] = -10
        sparsity.log_alpha[1][2, 3:] = -10
    paths = path_product([w.abs() for w in sparsity.expected(field.weights())])
    closed = torch.zeros(D, 3, dtype=torch.bool)
    closed[2, 1] = True
    assert torch.equal(paths == 0, closed)


@pytest.mark.parametrize("name", ["cnode", "l0", "pathreg", "pathreg_edge"])
@pytest.mark.parametrize("structure", ["per_target", "dense"])
def test_penalties_are_means_over_targets(name, structure):
    small, large = (build_field(FieldConfig(d, (0, 1), structure=structure, self_regulation=True)) for d in (2, 6))
    with torch.no_grad():
        # Three copies of every target.
        for mine, other in zip(large.matrices, small.matrices, strict=True):
            mine.copy_(other if mine.shape == other.shape else other.repeat(3, *[1] * (other.dim() - 1)))
    found = []
    for field in (small, large):
        sparsity = SPARSITIES[name](field)
        found.append(sparsity.penalty(field.weights()).item())
    if (name, structure) == ("l0", "dense"):  # weights of the first layer serve all targets
        p = open_probability(gates_of(sparsity)[0][0, 0]).item()
        assert found == pytest.approx([(2 * 10 + 10 * d) * p / d for d in (2, 6)], rel=1e-5)
    else:
        assert found[0] == pytest.approx(found[1], rel=1e-5)


@pytest.mark.parametrize("structure", ["per_target", "dense"])
@pytest.mark.parametrize("name", ["cnode", "l0", "pathreg", "pathreg_edge"])
def test_penalties_are_linear_in_the_factors_of_the_inputs(name, structure):
    field, factors = field_of(structure), factors_of()

    def penalty(values):
        sparsity = SPARSITIES[name](field, factors=values)
        return sparsity.penalty(field.weights()).item()

    none = penalty(torch.zeros_like(factors))
    if (name, structure) == ("l0", "dense"):
        assert none > 0  # weights after the first layer belong to no input
    else:
        assert none == 0
    assert penalty(3 * factors) - none == pytest.approx(3 * (penalty(factors) - none), rel=1e-5)
    less = factors.clone()
    less[1, 2] /= 2
    assert penalty(less) < penalty(factors)


@pytest.mark.parametrize("structure", ["per_target", "dense"])
@pytest.mark.parametrize("name", ["cnode", "l0", "pathreg_edge"])
def test_gradients_of_penalties_agree_with_finite_differences(name, structure):
    field = field_of(structure).double()
    sparsity = SPARSITIES[name](field, factors=factors_of()).double()
    if name != "cnode":
        spread_gates(sparsity)
    gates = [a.detach().clone().requires_grad_() for a in gates_of(sparsity)]
    matrices = [m.detach().clone().requires_grad_() for m in field.matrices]

    stored = dict(sparsity.named_children()).get("log_alpha")

    def penalty(*values):
        if stored is not None:
            for k, log_alpha in enumerate(values[len(matrices) :]):
                stored._parameters[str(k)] = log_alpha
        return sparsity.penalty(values[: len(matrices)])

    assert torch.autograd.gradcheck(penalty, (*matrices, *gates))


# Draws


@pytest.mark.parametrize("name", GATED)
@pytest.mark.parametrize("structure", ["per_target", "dense"])
def test_gates_multiply_weights(name, structure):
    field = field_of(structure)
    sparsity = SPARSITIES[name](field)
    spread_gates(sparsity)
    weights = field.weights()
    for found, transform in (
        (sparsity.expected(weights), expected_gates),
        (sparsity.draw(weights, generator=(draw := generator())), lambda a: sample_gates(a, generator=draw)),
    ):
        draw.manual_seed(0)
        for k, (before, after) in enumerate(zip(weights, found, strict=True)):
            gates = gates_of(sparsity)[k : k + 1]
            torch.testing.assert_close(after, before * transform(gates[0]) if gates else before)
    once, again, other = (sparsity.draw(weights, generator=generator(s)) for s in (1, 1, 2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(once, other, strict=True))


@pytest.mark.parametrize("name", sorted(set(SPARSITIES) - set(GATED)))
def test_without_gates_the_weights_are_those_of_the_field(name):
    field = field_of(skip=True)
    sparsity, weights = SPARSITIES[name](field), field.weights()
    for found in (sparsity.draw(weights, generator=generator()), sparsity.expected(weights)):
        assert all(a is b for a, b in zip(found, weights, strict=True))


@pytest.mark.parametrize("name", ["l0", "pathreg"])
def test_a_closed_gate_of_an_input_also_closes_its_skip(name):
    field = field_of(skip=True, decay=False)
    sparsity = SPARSITIES[name](field)
    with torch.no_grad():
        gates_of(sparsity)[0][..., 1] = -5  # gene 2
    weights = [w.detach() for w in sparsity.expected(field.weights())]
    slope = torch.autograd.functional.jacobian(lambda s: field.highest_rates(s[None], weights)[0], torch.randn(D))
    assert (slope[:, 2] == 0).all()
    assert (slope[:, [0, 3]] != 0).all()


@pytest.mark.parametrize("name", GATED)
def test_gates_can_be_copied_after_a_draw(name):
    field = field_of()
    sparsity = SPARSITIES[name](field)
    sparsity.draw(field.weights(), generator=generator())
    expected = sparsity.penalty(field.weights())
    for other in (copy.deepcopy(sparsity), pickle.loads(pickle.dumps(sparsity))):
        torch.testing.assert_close(other.penalty(field.weights()), expected)
        assert gates_of(other)[0] is not gates_of(sparsity)[0]


@pytest.mark.parametrize("name", SPARSITIES)
def test_every_name_works_in_every_structure_it_claims(name):
    kind = SPARSITIES[name]
    for structure in kind.structures:
        field = field_of(structure, skip=kind.needs_skip)
        sparsity = kind(field)
        weights = field.weights()
        drawn = sparsity.draw(weights, generator=generator())
        assert [w.shape for w in drawn] == [w.shape for w in weights]
        assert sparsity.penalty(weights).shape == ()
        sparsity.proximal_(field, 0.1, {n: torch.full_like(p, 0.1) for n, p in field.named_parameters()})
        assert all(p.isfinite().all() for p in field.parameters())


def test_no_sparsity_changes_nothing():
    field = field_of()
    sparsity = Sparsity(field)
    sparsity.proximal_(field, 10.0, {})
    assert all(torch.equal(a, b) for a, b in zip(field.parameters(), field_of().parameters(), strict=True))
    assert (sparsity.factors == 1).all()
