"""Vectors of perturbations that say what is downstream of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perturbflow.datasets._network import HILL_EXPONENT, FloatArray, GeneNetwork
from perturbflow.datasets._screen import PRODUCTION


def downstream_effects(network: GeneNetwork) -> FloatArray:
    r"""Linear effect of every regulator on every gene, along all paths.

    Where all levels are at their thresholds, :math:`\partial \log x_g / \partial \log x_r = w_{rg} h / 8`, since a
    promoter that is open half of the time gives a half and the Hill function of exponent h a quarter; cascades
    multiply: :math:`J + J_R J + J_R^2 J + \ldots = (I - J_R)^{-1} J` with the columns :math:`J_R` of the regulators.

    Parameters
    ----------
    network
        The network.

    Returns
    -------
    Change of the log level of every gene for every unit of the log level of a regulator (R, G).
    """
    direct = network.weights * HILL_EXPONENT / 8
    return np.linalg.solve(np.eye(len(direct)) - direct[:, network.regulators], direct)


def perturbation_embedding(
    network: GeneNetwork, modes: Sequence[str], *, size: int, noise: float, rng: np.random.Generator
) -> FloatArray:
    """Noisy random projections of what regulators do when they are perturbed.

    Parameters
    ----------
    network
        The network.
    modes
        How every regulator is perturbed (R,).
    size
        Length D of a vector.
    noise
        Standard deviation of the noise relative to the root mean square of the projections.
    rng
        Source of randomness.

    Returns
    -------
    Vectors (R, D); regulators with similar targets have similar ones, opposite modes opposite ones.
    """
    sign = np.array([np.sign(PRODUCTION[mode] - 1) for mode in modes])[:, None]
    projection = rng.normal(size=(network.n_genes, size)) / np.sqrt(size)
    vectors = sign * downstream_effects(network) @ projection
    return vectors + noise * np.sqrt(np.mean(vectors**2)) * rng.normal(size=vectors.shape)
