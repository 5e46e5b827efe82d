"""Vectors of perturbations that say what is downstream of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perturbflow.datasets._network import HILL_EXPONENT, FloatArray, GeneNetwork
from perturbflow.datasets._screen import PRODUCTION


def downstream_effects(network: GeneNetwork) -> FloatArray:
    r"""Linear effect of every regulator on every gene, along all paths (R, G): change of log levels.

    Where all levels are at their thresholds, :math:`\partial \log x_g / \partial \log x_r = w_{rg} h / 8`, since a
    promoter that is open half of the time gives a half and the Hill function of exponent h a quarter; cascades
    multiply: :math:`J + J_R J + J_R^2 J + \ldots = (I - J_R)^{-1} J` with the columns :math:`J_R` of the regulators.
    """
    direct = network.weights * HILL_EXPONENT / 8
    return np.linalg.solve(np.eye(len(direct)) - direct[:, network.regulators], direct)


def perturbation_embedding(
    network: GeneNetwork, modes: Sequence[str], *, size: int, noise: float, rng: np.random.Generator
) -> FloatArray:
    """Noisy random projections (R, size) of what regulators do when they are perturbed.

    Regulators with similar targets have similar ones, opposite modes opposite ones. The standard deviation of the noise is
    relative to the root mean square of the projections.
    """
    sign = np.array([np.sign(PRODUCTION[mode] - 1) for mode in modes])[:, None]
    projection = rng.normal(size=(network.n_genes, size)) / np.sqrt(size)
    vectors = sign * downstream_effects(network) @ projection
    return vectors + noise * np.sqrt(np.mean(vectors**2)) * rng.normal(size=vectors.shape)
