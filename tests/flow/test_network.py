from __future__ import annotations

import pytest
import torch

from perturbflow.flow import NETWORKS, ResidualMLP
from perturbflow.flow._network import ResidualBlock, encode_time


def network(*, trained=True):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        mlp = ResidualMLP(6, 2, 4, width=16, n_blocks=2)
        if trained:
            for parameter in mlp.parameters():
                torch.nn.init.normal_(parameter, std=0.3)
    return mlp


def batch(n=5):
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn((n, 6), generator=generator),
        torch.rand((n, 1), generator=generator),
        torch.randn((n, 4), generator=generator),
    )


def test_untrained_network_says_nothing():
    output = network(trained=False)(*batch())
    assert output.shape == (5, 12)
    assert (output == 0).all()


def test_blocks_start_as_the_identity():
    hidden, embedding = torch.randn((2, 3, 8), generator=torch.Generator().manual_seed(0))
    assert (ResidualBlock(8)(hidden, embedding) == hidden).all()


@pytest.mark.parametrize("argument", [0, 1, 2], ids=["cell", "time", "condition"])
def test_every_argument_matters(argument):
    arguments, others = list(batch()), list(batch())
    others[argument] = 1 - others[argument]
    mlp = network()
    assert ((mlp(*arguments) - mlp(*others)).abs() > 1e-4).any(dim=1).all()


def test_every_weight_learns():
    mlp = network()
    mlp(*batch()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in mlp.parameters())


def test_cells_do_not_see_each_other():
    mlp, (x, t, condition) = network(), batch()
    alone = torch.cat([mlp(x[i : i + 1], t[i : i + 1], condition[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(mlp(x, t, condition), alone)


def test_conditions_and_times_broadcast():
    mlp, (x, t, condition) = network(), batch()
    both = mlp(x[None], t[:1, None], condition[:2, None])
    for i in range(2):
        torch.testing.assert_close(both[i], mlp(x, t[:1].expand(5, 1), condition[i : i + 1].expand(5, 4)))


def test_null_condition_adds_nothing():
    mlp, (x, t, condition) = network(), batch()
    before = mlp(x, t, 0 * condition)
    torch.nn.init.normal_(mlp.condition.weight)
    assert (mlp(x, t, 0 * condition) == before).all()


def test_times_are_told_apart():
    t = torch.linspace(0, 1, 101, dtype=torch.float64)[:, None]
    encoded = encode_time(t)
    assert encoded.shape == (101, 64)
    # A sine and a cosine of every wavelength.
    torch.testing.assert_close(encoded.square().sum(1), torch.full((101,), 32.0, dtype=torch.float64))
    assert torch.pdist(encoded).min() > 0.1


def test_networks_by_name():
    assert NETWORKS["mlp"] is ResidualMLP
