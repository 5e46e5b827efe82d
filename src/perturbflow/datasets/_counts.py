"""From mean levels to counted molecules: bursts, sequencing depth, dropout."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from perturbflow.datasets._network import FloatArray

BURST_FREQUENCY = 4.0  # bursts per mRNA lifetime of an always open promoter, in a typical gene


@dataclass(frozen=True)
class BurstyGenes:
    """G genes whose promoters, when open, fire in bursts.

    Attributes
    ----------
    expression
        Mean mRNA of an always open promoter, in arbitrary units, shape (G,).
    burst_frequency
        Bursts per mRNA lifetime of an always open promoter, shape (G,).
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
        """Count the molecules of n cells.

        Parameters
        ----------
        levels
            Mean mRNA relative to that of an always open promoter, shape (n, G).
        depth
            Expected number of counted molecules per unit of mRNA, shape (n,).
        dropout
            Probability that a gene is missed in a cell.
        rng
            Source of the noise.

        Returns
        -------
        Whole numbers in float32, shape (n, G).
        """
        frequency = self.burst_frequency.astype(levels.dtype)
        bursts = rng.standard_gamma(frequency * levels, dtype=levels.dtype)
        counts = rng.poisson(depth[:, None] * (self.expression / self.burst_frequency) * bursts)
        if dropout > 0:
            counts *= rng.random(counts.shape, dtype=np.float32) >= dropout
        return sparse.csr_matrix(counts, dtype=np.float32)
