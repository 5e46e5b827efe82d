"""The U-Net over tokens."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from perturbflow.flow import TokenUNet

SMALL: dict[str, Any] = {"width": 8, "n_tokens": 4}


def token_unet(n_genes=6, n_outputs=2, n_conditions=3, *, trained=True, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TokenUNet(n_genes, n_outputs, n_conditions, **SMALL | options)
        if trained:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return network


def batch(n=5, n_genes=6):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn((n, n_genes), generator=generator),
        torch.rand((n, 1), generator=generator),
        torch.randn((n, 3), generator=generator),
    )


def test_every_gene_has_a_network_of_its_own():
    # Without a state of the cell an output depends on its own gene alone: the closed form of the docstring.
    network, (x, t, condition) = token_unet(gene_width=3), batch()
    genes = network.genes
    with torch.no_grad():
        network.norm.weight.zero_()
        network.norm.bias.zero_()
        network.write.bias.zero_()
        embedding = network.embed(t, condition)
        gain, scale, shift = genes.modulation(embedding)[..., None].chunk(3, dim=1)
        hidden = torch.nn.functional.silu((1 + gain) * genes.gain * x[:, None] + shift)
        expected = torch.einsum("ncg,ocg->nog", (1 + scale) * hidden, genes.write)
        expected += genes.skip(embedding)[..., None] * x[:, None]
        torch.testing.assert_close(network(x, t, condition), expected.flatten(1))


def test_all_genes_are_seen_through_the_tokens():
    network, (x, t, condition) = token_unet(), batch(n=1)
    jacobian = torch.autograd.functional.jacobian(lambda x: network(x, t, condition)[0], x)[:, 0]
    assert (jacobian.abs() > 1e-6).all()


def test_permuted_genes_give_permuted_outputs():
    network, other, (x, t, condition) = token_unet(), token_unet(), batch()
    order = torch.tensor([3, 0, 5, 1, 2, 4])
    weights = network.state_dict()
    for name, axes in network.axes().items():
        for axis, kind in axes:
            if kind != "condition":
                blocks = weights[name].unflatten(axis, (-1, 6))
                weights[name] = blocks.index_select(axis + 1, order).flatten(axis, axis + 1)
    other.load_state_dict(weights)
    output = network(x, t, condition).unflatten(1, (2, 6))[..., order].flatten(1)
    torch.testing.assert_close(other(x[:, order], t, condition), output)


def test_early_and_late_times_differ():
    network, (x, _, condition) = token_unet(), batch()
    early, late = (network(x, torch.full((5, 1), t), condition) for t in (0.1, 0.9))
    assert ((early - late).abs() > 0.01 * early.abs().max()).any(dim=1).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_tokens": 3}, "`n_tokens` to be a positive multiple of 2, found 3"),
        ({"n_tokens": 0}, "positive multiple of 2, found 0"),
        ({"multipliers": (1, 1, 1, 1)}, "positive multiple of 8, found 4"),
        ({"gene_width": 0}, "`gene_width` to be at least 1, found 0"),
        ({"width": 6}, "multiple of 4 channels, found 6"),
        ({"n_heads": 3}, "`n_heads` to divide"),
    ],
)
def test_settings_that_make_no_network(options, message):
    with pytest.raises(ValueError, match=message):
        token_unet(**options)
