"""What every velocity network keeps, and the perceptron's own blocks."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perturbflow.flow import NETWORKS, ResidualMLP, TokenUNet, UNet
from perturbflow.flow._network import ResidualBlock, encode_time

SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "mlp": ("mlp", {"width": 16, "n_blocks": 2}),
    "mlp, genes": ("mlp", {"width": 16, "n_blocks": 1, "gene_width": 2}),
    "unet": ("unet", {"width": 8, "multipliers": (1, 2), "n_blocks": 1}),
    "unet as in the paper": ("unet", {"width": 4, "multipliers": (1, 2, 4, 8), "n_blocks": 2}),
    "unet, attention": ("unet", {"width": 8, "multipliers": (1, 2), "attention_levels": (0, 1), "n_heads": 2}),
    "unet, patches": ("unet", {"width": 2, "patch": 2, "multipliers": (1, 2)}),
    "unet, order": ("unet", {"width": 4, "multipliers": (1, 2), "gene_order": [5, 4, 3, 0, 1, 2]}),
    "token_unet": ("token_unet", {"width": 8, "n_tokens": 4, "multipliers": (1, 2)}),
    "token_unet, one level": ("token_unet", {"width": 8, "n_tokens": 3, "multipliers": (1,), "gene_width": 1}),
}
EVERY = pytest.mark.parametrize("kind", SMALL)


def network(kind="mlp", *, n_genes=6, n_conditions=4, trained=True):
    name, options = SMALL[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        built = NETWORKS[name](n_genes, 2, n_conditions, **options)
        if trained:
            for parameter in built.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return built


def batch(n=5):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn((n, 6), generator=generator),
        torch.rand((n, 1), generator=generator),
        torch.randn((n, 4), generator=generator),
    )


def test_networks_by_name():
    assert NETWORKS == {"mlp": ResidualMLP, "unet": UNet, "token_unet": TokenUNet}


@pytest.mark.parametrize("name", NETWORKS)
def test_defaults_make_a_network(name):
    assert NETWORKS[name](6, 1, 4)(*batch()).shape == (5, 6)


@EVERY
def test_untrained_network_says_nothing(kind):
    output = network(kind, trained=False)(*batch())
    assert output.shape == (5, 12)
    assert (output == 0).all()


@EVERY
@pytest.mark.parametrize("argument", [0, 1, 2], ids=["cell", "time", "condition"])
def test_every_argument_matters(kind, argument):
    arguments, others = list(batch()), list(batch())
    others[argument] = 1 - others[argument]
    built = network(kind)
    assert ((built(*arguments) - built(*others)).abs() > 1e-4).any(dim=1).all()


@EVERY
def test_every_weight_learns(kind):
    built = network(kind)
    built(*batch()).square().sum().backward()
    assert [name for name, p in built.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@EVERY
def test_cells_do_not_see_each_other(kind):
    built, (x, t, condition) = network(kind), batch()
    alone = torch.cat([built(x[i : i + 1], t[i : i + 1], condition[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(built(x, t, condition), alone)


@EVERY
def test_conditions_and_times_broadcast(kind):
    built, (x, t, condition) = network(kind), batch()
    both = built(x[None], t[:1, None], condition[:2, None])
    assert both.shape == (2, 5, 12)
    for i in range(2):
        torch.testing.assert_close(both[i], built(x, t[:1].expand(5, 1), condition[i : i + 1].expand(5, 4)))
    # As the solver calls it: one time and one condition for all cells.
    torch.testing.assert_close(built(x, t[:1], condition[:1]), both[0])


@EVERY
def test_null_condition_adds_nothing(kind):
    built, (x, t, condition) = network(kind), batch()
    before = built(x, t, 0 * condition)
    torch.nn.init.normal_(built.condition.weight)
    assert (built(x, t, 0 * condition) == before).all()


@pytest.mark.parametrize("kind", [kind for kind in SMALL if "order" not in kind])  # an order is one panel's
def test_axes_are_those_of_genes_and_conditions(kind):
    # Lengths that nothing else has, so that an axis says what it is.
    built, other = network(kind, n_genes=1013, n_conditions=1009), network(kind, n_genes=1021, n_conditions=1019)
    kinds = {(1013, 1021): "gene", (2 * 1013, 2 * 1021): "output", (1009, 1019): "condition"}
    found = {}
    for name, weight in built.state_dict().items():
        lengths = enumerate(zip(weight.shape, other.state_dict()[name].shape, strict=True))
        found[name] = tuple((axis, kinds[pair]) for axis, pair in lengths if pair[0] != pair[1])
    assert {name: axes for name, axes in found.items() if axes} == built.axes() == other.axes()


def test_genes_have_no_networks_unless_asked():
    assert [name for name, _ in network("mlp").named_parameters() if name.startswith("genes.")] == []
    with pytest.raises(ValueError, match="`gene_width` to be at least 1, found -1"):
        ResidualMLP(6, 2, 4, gene_width=-1)


def test_narrow_perceptron_cannot_carry_every_gene_but_gene_networks_can():
    # The velocity next to t = 1 asks for a copy of the noise; the rank of the perceptron's map is at most its width.
    x, t, condition = torch.eye(40), torch.ones((1, 1)), torch.zeros((1, 4))
    for gene_width, full in ((0, False), (1, True)):
        built = ResidualMLP(40, 1, 4, width=8, n_blocks=1, gene_width=gene_width)
        generator = torch.Generator().manual_seed(0)
        for parameter in built.parameters():
            torch.nn.init.normal_(parameter, std=0.3, generator=generator)
        rank = torch.linalg.matrix_rank(built(x, t, condition) - built(0 * x, t, condition))
        assert (rank == 40) == full


def test_blocks_start_as_the_identity():
    hidden, embedding = torch.randn((2, 3, 8), generator=torch.Generator().manual_seed(0))
    assert (ResidualBlock(8)(hidden, embedding) == hidden).all()


def test_times_are_told_apart():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    encoded = encode_time(t)
    assert encoded.shape == (101, 64)
    # A sine and a cosine of every wavelength.
    torch.testing.assert_close(encoded.square().sum(1), torch.full((101,), 32.0, dtype=torch.float64))
    assert torch.pdist(encoded).min() > 0.1
