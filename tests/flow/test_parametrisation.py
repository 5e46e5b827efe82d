from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from perturbflow.flow import (
    PARAMETRISATIONS,
    Gaussian,
    GeneDistribution,
    Velocity,
    ZeroInflated,
    integrate,
    point_on_path,
)

# Rare, frequent and nearly always expressed genes; (1, G).
EXPRESSED, MEAN, SD = [0.03, 0.3, 0.6, 0.98], [1.2, 1.8, 3.0, 2.5], [0.2, 0.4, 0.5, 0.6]
TIMES = [0.0, 0.2, 0.5, 0.8, 0.95]


def gene_distribution(dtype=torch.float64):
    expressed, mean, sd = (torch.tensor([values], dtype=dtype) for values in (EXPRESSED, MEAN, SD))
    return GeneDistribution(expressed, mean, sd**2)


def zero_output(parametrisation, x):
    return torch.zeros((len(x), parametrisation.n_outputs * x.shape[1]), dtype=x.dtype)


def posterior_mean(x, t, expressed, mean, sd):
    """E[x1 | x_t] of one gene by the trapezium rule over x1, with the point mass at 0 added."""
    grid = np.linspace(mean - 30 * sd, mean + 30 * sd, 50_001)
    log_joint = stats.norm.logpdf(grid, mean, sd) + stats.norm.logpdf(x, t * grid, 1 - t)
    log_zero = stats.norm.logpdf(x, 0, 1 - t)
    highest = max(log_joint.max(), log_zero)
    joint = expressed * np.exp(log_joint - highest)
    total = np.trapezoid(joint, grid) + (1 - expressed) * math.exp(log_zero - highest)
    return np.trapezoid(joint * grid, grid) / total


@pytest.mark.parametrize("t", TIMES)
def test_zero_inflated_without_network_is_the_posterior_of_the_law(t):
    parametrisation, distribution = ZeroInflated(), gene_distribution()
    x = torch.tensor([[-1.0], [0.0], [0.4], [1.1], [2.7]], dtype=torch.float64).repeat(1, 4)
    velocity = parametrisation.velocity(
        x, torch.full((5, 1), t, dtype=x.dtype), distribution, zero_output(parametrisation, x)
    )
    found = (velocity * (1 - t) + x).numpy()
    expected = [
        [posterior_mean(value, t, *gene) for gene in zip(EXPRESSED, MEAN, SD, strict=True)]
        for value in x[:, 0].tolist()
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)  # the trapezium rule's error


@pytest.mark.parametrize("t", TIMES)
def test_zero_inflated_network_moves_log_odds_and_mean(t):
    parametrisation, distribution = ZeroInflated(), gene_distribution()
    x = torch.tensor([[-0.5, 0.3, 1.7, 2.0]], dtype=torch.float64)
    shift, move = np.array([2.0, -1.0, 0.5, -3.0]), np.array([1.0, -0.5, 0.3, 2.0])
    output = torch.as_tensor(np.concatenate([shift, move])[None])
    found = parametrisation.velocity(x, torch.full((1, 1), t, dtype=x.dtype), distribution, output) * (1 - t) + x
    odds = np.array(EXPRESSED) / (1 - np.array(EXPRESSED)) * np.exp(shift)
    mean = np.array(MEAN) + np.array(SD) * move
    expected = [posterior_mean(*gene) for gene in zip(x[0].tolist(), [t] * 4, odds / (1 + odds), mean, SD, strict=True)]
    np.testing.assert_allclose(found[0], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("t", TIMES)
def test_gaussian_without_network_is_the_posterior_of_a_gaussian_gene(t):
    parametrisation, distribution = Gaussian(), gene_distribution()
    mean, variance = distribution.moments()
    x = torch.tensor([[-2.0], [0.1], [3.0]], dtype=torch.float64).repeat(1, 4)
    velocity = parametrisation.velocity(
        x, torch.full((3, 1), t, dtype=x.dtype), distribution, zero_output(parametrisation, x)
    )
    moments = list(zip(mean[0].tolist(), variance[0].sqrt().tolist(), strict=True))
    expected = [[posterior_mean(value, t, 1.0, *gene) for gene in moments] for value in x[:, 0].tolist()]
    np.testing.assert_allclose((velocity * (1 - t) + x).numpy(), expected, rtol=1e-6, atol=1e-7)


def simulated(n, distribution, seed=0):
    """Noise and cells whose genes follow the distribution."""
    generator = torch.Generator().manual_seed(seed)
    shape = (n, distribution.mean.shape[1])
    noise, value = torch.randn((2, *shape), generator=generator, dtype=torch.float64)
    expressed = torch.rand(shape, generator=generator, dtype=torch.float64) < distribution.expressed
    return noise, torch.where(expressed, distribution.mean + distribution.variance.sqrt() * value, 0.0)


def test_moments_of_a_law():
    n = 200_000
    distribution = gene_distribution()
    mean, variance = distribution.moments()
    _, cells = simulated(n, distribution)
    centred = cells - mean
    assert ((cells.mean(0) - mean).abs() < 4 * (variance / n).sqrt()).all()
    fourth = centred.pow(4).mean(0)
    assert ((centred.square().mean(0) - variance).abs() < 4 * ((fourth - variance**2) / n).sqrt()).all()


@pytest.mark.parametrize("t", TIMES)
def test_gaussian_target_has_unit_variance_at_every_time(t):
    n = 100_000
    distribution, time = gene_distribution(), torch.full((1, 1), t, dtype=torch.float64)
    noise, cells = simulated(n, distribution)
    x = point_on_path(noise, cells, time)
    parametrisation = Gaussian()
    zero = zero_output(parametrisation, x)
    drift = parametrisation.velocity(x, time, distribution, zero)
    scale = parametrisation.velocity(x, time, distribution, zero + 1) - drift
    target = (cells - noise - drift) / scale
    error = 4 * (target.pow(4).mean(0) / n).sqrt()
    assert ((target.square().mean(0) - 1).abs() < error).all()


@pytest.mark.parametrize("t", TIMES)
def test_velocity_without_network_is_the_mean_velocity(t):
    """The velocity is a conditional expectation: its residual is uncorrelated with every function of x_t."""
    n = 200_000
    distribution, time = gene_distribution(), torch.full((1, 1), t, dtype=torch.float64)
    noise, cells = simulated(n, distribution)
    x = point_on_path(noise, cells, time)
    parametrisation = ZeroInflated()
    residual = cells - noise - parametrisation.velocity(x, time, distribution, zero_output(parametrisation, x))
    for function in (torch.ones_like(x), x, x.square(), (x > 0.5).double()):
        product = residual * function
        assert (product.mean(0).abs() < 4 * product.std(0) / math.sqrt(n)).all()


def flow_from_noise(parametrisation, distribution, *, n, n_steps):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((n, distribution.mean.shape[1]), generator=generator, dtype=torch.float64)
    zero, last = zero_output(parametrisation, x), parametrisation.last_time

    def velocity(t, x):
        return parametrisation.velocity(x, torch.full((1, 1), t, dtype=x.dtype), distribution, zero)

    x = integrate(velocity, x, start=0.0, stop=last, n_steps=n_steps)
    return x, parametrisation.finish(x, torch.full((1, 1), last, dtype=x.dtype), distribution, zero)


def test_zero_inflated_flow_reproduces_the_law():
    n = 20_000
    distribution = gene_distribution()
    _, cells = flow_from_noise(ZeroInflated(), distribution, n=n, n_steps=200)
    for gene, (p, mean, sd) in enumerate(zip(EXPRESSED, MEAN, SD, strict=True)):
        values = cells[:, gene][cells[:, gene] > 0].numpy()
        assert abs(len(values) / n - p) < 4 * math.sqrt(p * (1 - p) / n)
        assert abs(values.mean() - mean) < 4 * sd / math.sqrt(len(values))
        assert abs(values.var() - sd**2) < 4 * sd**2 * math.sqrt(2 / len(values))
    independent = np.corrcoef(cells.T)[np.triu_indices(4, 1)]
    assert np.abs(independent).max() < 4 / math.sqrt(n)


def test_gaussian_flow_reproduces_the_moments():
    n = 20_000
    distribution = gene_distribution()
    mean, variance = distribution.moments()
    state, cells = flow_from_noise(Gaussian(), distribution, n=n, n_steps=200)
    assert ((state.mean(0) - mean).abs() < 4 * (variance / n).sqrt()).all()
    assert ((state.var(0) - variance).abs() < 4 * variance * math.sqrt(2 / n)).all()
    assert (cells == state.clamp_min(0)).all()


def test_zero_inflated_inputs_start_at_nothing_and_end_as_the_standardised_cell():
    distribution, parametrisation = gene_distribution(), ZeroInflated()
    noise, cells = simulated(50, distribution)
    assert parametrisation.inputs(noise, torch.zeros(50, 1), distribution).abs().max() < 1e-9
    mean, variance = distribution.moments()
    at_the_end = parametrisation.inputs(
        point_on_path(0 * noise, cells, torch.full((50, 1), 0.99)), torch.ones(1, 1), distribution
    )
    torch.testing.assert_close(
        at_the_end, (cells - mean) / variance.sqrt(), atol=0.02, rtol=0
    )  # a path that stops at 0.99


def test_gaussian_inputs_are_standardised_at_every_time():
    distribution = gene_distribution()
    noise, cells = simulated(100_000, distribution)
    for t in TIMES:
        time = torch.full((1, 1), t, dtype=torch.float64)
        z = Gaussian().inputs(point_on_path(noise, cells, time), time, distribution)
        assert (z.mean(0).abs() < 4 / math.sqrt(100_000)).all()
        assert ((z.square().mean(0) - 1).abs() < 4 * (z.pow(4).mean(0) / 100_000).sqrt()).all()


@pytest.mark.parametrize("name", sorted(PARAMETRISATIONS))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_at_extremes(name, dtype):
    parametrisation = PARAMETRISATIONS[name]
    distribution = GeneDistribution(
        torch.tensor([[1e-4, 0.5, 1 - 1e-4]], dtype=dtype),
        torch.tensor([[0.05, 5.0, 9.0]], dtype=dtype),
        torch.tensor([1e-4, 1.0, 4.0], dtype=dtype),
    )
    for t in (0.0, 0.5, 0.985, 0.99, 0.999, 1.0):
        for value in (-1e4, -1.0, 0.0, 1e-3, 10.0, 1e4):
            x, time = torch.full((1, 3), value, dtype=dtype), torch.full((1, 1), t, dtype=dtype)
            output = torch.full((1, 3 * parametrisation.n_outputs), 20.0, dtype=dtype, requires_grad=True)
            velocity = parametrisation.velocity(x, time, distribution, output)
            velocity.sum().backward()
            assert output.grad is not None
            cells = parametrisation.finish(x, time, distribution, output)
            inputs = parametrisation.inputs(x, time, distribution)
            assert all(a.isfinite().all() for a in (velocity, output.grad, cells, inputs))
            assert (cells >= 0).all()


def test_loss_weights():
    t = torch.tensor([[0.0], [0.5], [0.9], [0.99], [1.0]], dtype=torch.float64)
    weights = ZeroInflated().loss_weight(t)
    torch.testing.assert_close(weights[:3, 0], torch.tensor([1 / 1.05, 0.25 / 0.3, 0.01 / 0.06], dtype=torch.float64))
    assert (weights > 0).all()
    assert (weights.diff(dim=0) <= 0).all()
    for other in (Gaussian(), Velocity()):
        assert (other.loss_weight(t) == 1).all()


def test_velocity_passes_the_output_through():
    x, output = torch.randn((2, 5, 4), generator=torch.Generator().manual_seed(0))
    t = torch.full((5, 1), 0.3)
    assert (Velocity().velocity(x, t, gene_distribution(torch.float32), output) == output).all()
    assert (Velocity().inputs(x, t, gene_distribution(torch.float32)) == x).all()
    assert not Velocity().uses_distribution


def test_zero_inflated_cells_have_exact_zeros():
    distribution, parametrisation = gene_distribution(), ZeroInflated()
    x = torch.tensor([[0.01, -0.02, 0.0, 0.005], [1.2, 1.8, 3.0, 2.5]], dtype=torch.float64)
    cells = parametrisation.finish(x, torch.full((1, 1), 0.99), distribution, zero_output(parametrisation, x))
    assert (cells[0] == 0).all()
    torch.testing.assert_close(cells[1], x[1] / 0.99, atol=0.01, rtol=0)
