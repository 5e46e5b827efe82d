"""The U-Net over genes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from perturbflow.flow import UNet, point_on_path

SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "n_blocks": 1}


def unet(n_genes=16, n_outputs=2, n_conditions=3, *, trained=True, seed=0, **options):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = UNet(n_genes, n_outputs, n_conditions, **SMALL | options)
        if trained:
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


def without_embedding(network):
    """The same network, to which all genes are one."""
    with torch.no_grad():
        network.genes.zero_()
    network.genes.requires_grad_(requires_grad=False)
    return network


def batch(n=5, n_genes=16, n_conditions=3):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn((n, n_genes), generator=generator),
        torch.rand((n, 1), generator=generator),
        torch.randn((n, n_conditions), generator=generator),
    )


def bump(position, n_genes=128):
    """Cells that are zero but for eight genes in a row: the ends look the same wherever those are."""
    x = torch.zeros((5, n_genes))
    x[:, position : position + 8] = batch(n_genes=8)[0]
    return x


def shift_error(network, distance):
    """How far the output for a shifted cell is from the shifted output, in the middle, relative to the largest."""
    _, t, condition = batch()
    output, shifted = network(bump(60), t, condition), network(bump(60 + distance), t, condition)
    error = (shifted.roll(-distance, dims=1) - output)[:, 52:76].abs().amax(dim=0)
    return error / output.abs().max()


@pytest.mark.parametrize("distance", [2, 4])
def test_only_the_embedding_tells_genes_apart(distance):
    options = {"attention_levels": (0,), "n_outputs": 1}
    assert (shift_error(without_embedding(unet(128, **options)), distance) < 1e-5).all()
    assert (shift_error(unet(128, **options), distance) > 1e-3).all()


def test_shifts_below_the_stride_are_seen():
    assert shift_error(without_embedding(unet(128, 1)), 1).max() > 1e-2


def test_early_and_late_times_differ():
    network, (x, _, condition) = unet(), batch()
    early, late = (network(x, torch.full((5, 1), t), condition) for t in (0.1, 0.9))
    assert ((early - late).abs() > 0.01 * early.abs().max()).any(dim=1).all()


def test_padding_is_a_token_of_zeros():
    # The same weights over 16 genes, of which the last three are silenced, are the network over 13.
    deep = {"multipliers": (1, 2, 4)}
    short, long = unet(13, **deep), unet(16, **deep)
    weights = short.state_dict()
    silent = (-weights["token.bias"]).expand(3, -1)
    long.load_state_dict(weights | {"genes": torch.cat([weights["genes"], silent])})
    x, t, condition = batch(n_genes=13)
    padded = torch.cat([x, torch.zeros(5, 3)], dim=1)
    output = short(x, t, condition)
    assert output.shape == (5, 26)
    torch.testing.assert_close(output.unflatten(1, (2, 13)), long(padded, t, condition).unflatten(1, (2, 16))[..., :13])


@pytest.mark.parametrize("options", [{}, {"width": 2, "patch": 2}], ids=["gene", "patch"])
def test_order_is_undone(options):
    order = np.random.default_rng(0).permutation(13)
    plain, ordered = unet(13, **options), unet(13, gene_order=order.tolist(), **options)
    weights = plain.state_dict()
    x, t, condition = batch(n_genes=13)
    # Genes permuted beforehand, embedding included, give the permuted output.
    unordered = torch.as_tensor(order).argsort()
    ordered.load_state_dict(weights | {"genes": weights["genes"][unordered]})
    output = ordered(x[:, unordered], t, condition).unflatten(1, (2, 13))
    torch.testing.assert_close(output, plain(x, t, condition).unflatten(1, (2, 13))[..., unordered])


def test_patch_joins_neighbours():
    network = unet(width=2, patch=4)
    hidden = torch.arange(2 * 3 * 8.0).view(2, 3, 8)
    folded = network._fold(hidden)
    assert folded.shape == (2, 12, 2)
    assert folded[0, :, 0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19]
    assert (network._unfold(folded) == hidden).all()


def test_features_start_the_embedding():
    rng = np.random.default_rng(0)
    features = np.column_stack([rng.integers(0, 2, 16), rng.standard_normal(16), np.full(16, 7.0)])
    features[3] = features[5]
    genes = unet(trained=False, gene_features=features).genes.detach()
    assert (genes[3] == genes[5]).all()
    assert torch.linalg.matrix_rank(genes) == 2
    torch.testing.assert_close(genes.mean(dim=0), torch.zeros(8), rtol=0, atol=1e-5)
    scaled = unet(trained=False, gene_features=(10 * features).tolist()).genes.detach()
    torch.testing.assert_close(scaled, genes)


def test_dropout_only_in_training():
    network, arguments = unet(dropout=0.5), batch()
    torch.testing.assert_close(network(*arguments), unet()(*arguments))
    assert not torch.allclose(network.train()(*arguments), unet()(*arguments))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 6}, "multiple of 4 channels, found 6"),
        ({"width": 0}, "multiple of 4 channels, found 0"),
        ({"multipliers": ()}, r"`multipliers` to be at least one positive number, found \[\]"),
        ({"multipliers": (1, 0)}, r"positive number, found \[1, 0\]"),
        ({"n_blocks": 0}, "`n_blocks` to be at least 1, found 0"),
        ({"attention_levels": (0, 2)}, r"`attention_levels` between 0 and 1, found \[2\]"),
        ({"n_heads": 3}, r"`n_heads` to divide \[16\] channels, found 3"),
        ({"n_heads": 0}, "found 0"),
        ({"dropout": 1.0}, "`dropout` to be at least 0 and below 1, found 1.0"),
        ({"patch": 0}, "`patch` to be at least 1, found 0"),
        ({"gene_order": [0, 1]}, r"permutation of 0..15, found 2 entries"),
        ({"gene_order": [0, *range(15)]}, r"permutation of 0..15"),
        ({"gene_features": np.ones((3, 2))}, r"16 rows, one per gene, found shape \(3, 2\)"),
        ({"gene_features": np.full((16, 2), np.nan)}, "finite `gene_features`"),
    ],
)
def test_settings_that_make_no_network(options, message):
    with pytest.raises(ValueError, match=message):
        unet(**options)


def generated(network, cells, *, n_steps, seed=0):
    """Train the velocity of an unconditional flow and follow it from noise to some new cells."""
    generator = torch.Generator().manual_seed(seed)
    condition = torch.zeros((1, 1))
    optimiser = torch.optim.Adam(network.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-2, total_steps=n_steps)
    network.train()
    for _ in range(n_steps):
        x1 = cells[torch.randint(len(cells), (8,), generator=generator)]
        x0, t = torch.randn(x1.shape, generator=generator), torch.rand((8, 1), generator=generator)
        loss = (network(point_on_path(x0, x1, t), t, condition) - (x1 - x0)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.inference_mode():
        x = torch.randn((96, cells.shape[1]), generator=generator)
        for step in range(10):
            x = x + network(x, torch.full((1, 1), step / 10), condition) / 10
    return x


@pytest.fixture(scope="module")
def marginals():
    """Correlation over genes of generated and true means, and shares of zeros, with and without the embedding.

    Genes near the ends are left out: what the network sees of the padding there tells them apart.
    """
    rng = np.random.default_rng(0)
    n_genes, interior = 112, slice(32, 80)
    expressed = rng.random((256, n_genes)) < rng.uniform(0.1, 0.9, n_genes)
    values = rng.uniform(1.5, 3.0, n_genes) + 0.2 * rng.standard_normal(expressed.shape)
    cells = torch.as_tensor(np.where(expressed, values, 0), dtype=torch.float32)
    found = {}
    for embedded in (True, False):
        network = unet(n_genes, 1, 1, trained=False)
        network = network if embedded else without_embedding(network)
        new = generated(network, cells, n_steps=110 if embedded else 55)  # it has less to learn
        statistics = [torch.stack([x.mean(dim=0), (x < 0.75).float().mean(dim=0)])[:, interior] for x in (cells, new)]
        found[embedded] = [float(torch.corrcoef(torch.stack(pair))[0, 1]) for pair in zip(*statistics, strict=True)]
    return found


def test_marginals_of_genes_come_from_noise(marginals):
    assert min(marginals[True]) > 0.9


def test_without_embedding_all_genes_are_one(marginals):
    assert max(marginals[False]) < 0.5
