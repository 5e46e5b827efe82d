"""From mean levels to counted molecules: bursts, sequencing depth, dropout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from perturbflow._docs import shares
from perturbflow.datasets._network import FloatArray

of_simulation = shares(
    {
        "n_genes": "Number of genes.",
        "n_trajectories": "Number of runs without intervention.",
        "n_controls": "Number of control cells of every context or type.",
        "seed": "Seed of all random numbers.",
    },
    raises="""TypeError, ValueError
    If a parameter has the wrong type or is out of range, or parameters are inconsistent.""",
)
BURSTS, DEPTH_SD = 2.0, 0.3  # shape of the gamma distribution of levels, and spread of the log depth
BURST_FREQUENCY = 4.0  # bursts per mRNA lifetime of an always open promoter, in a typical gene


@dataclass(frozen=True)
class BurstyGenes:
    """G genes whose promoters, when open, fire in bursts.

    They have a mean mRNA, in arbitrary units, and bursts per mRNA lifetime, both of an always open promoter (G,).
    """

    expression: FloatArray
    burst_frequency: FloatArray

    @classmethod
    def random(cls, n_genes: int, *, rng: np.random.Generator) -> BurstyGenes:
        """Draw log-normal expression and burst frequencies."""
        return cls(rng.lognormal(0.0, 1.4, n_genes), BURST_FREQUENCY * rng.lognormal(0.0, 0.5, n_genes))

    def counts(
        self, levels: FloatArray, *, depth: FloatArray, dropout: float, rng: np.random.Generator
    ) -> sparse.csr_matrix:
        """Count the molecules of n cells (n, G), in float32.

        ``levels`` (n, G) are mean mRNA relative to that of an always open promoter, ``depth`` (n,) is the expected number of
        counted molecules per unit of mRNA, ``dropout`` the probability that a gene is missed in a cell.
        """
        frequency = self.burst_frequency.astype(levels.dtype)
        bursts = rng.standard_gamma(frequency * levels, dtype=levels.dtype)
        counts = rng.poisson(depth[:, None] * (self.expression / self.burst_frequency) * bursts)
        if dropout > 0:
            counts *= rng.random(counts.shape, dtype=np.float32) >= dropout
        return sparse.csr_matrix(counts, dtype=np.float32)


def counted(log_levels: FloatArray, rng: np.random.Generator) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    """Counts of cells (n, G) with these log levels, and their log1p after division by the depth of the cell.

    Counts are Poisson with a gamma-distributed rate (negative binomial) and a log-normal depth.
    """
    rate = np.exp(log_levels) * rng.gamma(BURSTS, 1 / BURSTS, log_levels.shape)
    depth = rng.lognormal(0, DEPTH_SD, (len(log_levels), 1))
    counts = sparse.csr_matrix(rng.poisson(depth * rate).astype(np.float32))
    scaled = counts.copy()
    scaled.data /= np.repeat(depth[:, 0], np.diff(counts.indptr)).astype(np.float32)
    return counts, scaled.log1p()
