"""A random signed gene network and the promoter dynamics on it."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike, NDArray
from scipy import sparse
from scipy.sparse.csgraph import dijkstra
from scipy.special import expit

FloatArray = NDArray[np.floating]

HILL_EXPONENT = 2.0  # many transcription factors bind as dimers
FRACTION_ACTIVATING = 0.6
FRACTION_OF_PATHWAY = 0.8
MAX_LOOP_GAIN = 0.8
MAX_ITERATIONS = 200  # 0.8^200 is below the resolution of float64
TIME_STEP = 0.2  # mRNA lifetimes


@dataclass(frozen=True)
class Cells:
    """Inputs of n cells (or n noise-free conditions) on one network.

    They have a cell type, the row of the basal inputs (n,); a state, the production of the regulators relative to the average
    cell (n, R); and a factor, that production relative to that without perturbation (n, R): 0 in a full knock-out, above 1 in an
    over-expression.
    """

    cell_type: NDArray[np.intp]
    state: FloatArray
    factor: FloatArray

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.intp]) -> Cells:
        return Cells(self.cell_type[rows], self.state[rows], self.factor[rows])

    def astype(self, dtype: DTypeLike) -> Cells:
        """Return the cells with their numbers in another floating-point type."""
        return Cells(self.cell_type, self.state.astype(dtype), self.factor.astype(dtype))

    def unperturbed(self) -> Cells:
        """Return the same cells without their perturbations."""
        return dataclasses.replace(self, factor=np.ones_like(self.factor))


@dataclass(frozen=True)
class GeneNetwork:
    r"""G promoters that open and close with the occupancy of their binding sites by R regulators.

    The mRNA level :math:`x_g` of gene g, as a fraction of what an always open promoter would give, follows

    .. math::

        \dot x_g = \gamma_g (a_g f_g p_g - x_g), \qquad
        p_g = \sigma\Big( b_{cg} + \sum_r w_{rg} (\theta_r - \tfrac12) \Big), \qquad
        \theta_r = \frac{x_r^h}{k_r^h + x_r^h}

    with the occupancy :math:`\theta_r` of the sites of regulator r (a Hill function), the probability :math:`p_g` of an
    open promoter (the logistic function :math:`\sigma` of binding energies: it saturates), the basal input
    :math:`b_{cg}` of cell type c, the state :math:`a_g` of the single cell and the factor :math:`f_g` of the
    perturbation (both 1 except in regulators). Protein is taken to follow its mRNA at once. The promoter model is that
    of Herbach et al. (2017), *BMC Syst. Biol.* 11, 105.
    """

    regulators: NDArray[np.intp]  # their positions among the genes, ascending (R,)
    weights: FloatArray  # signed, row regulates column (R, G)
    basal: FloatArray  # inputs b of promoters (cell types, G)
    threshold: FloatArray  # levels k at which half of the sites of a regulator are occupied (R,)
    decay: FloatArray  # in 1 / mean mRNA lifetime (G,)

    @classmethod
    def random(
        cls,
        *,
        n_genes: int,
        n_regulators: int,
        n_cell_types: int,
        mean_regulators: float,
        effect_strength: float,
        n_pathways: int | None = None,
        rng: np.random.Generator,
    ) -> GeneNetwork:
        """Draw a network of hub and minor regulators, with cascades and feedback loops.

        A gene has a Poisson number of regulators, drawn in proportion to their log-normal propensities, never itself;
        regulators have a quarter as many, so that a perturbation does not reach everything.

        With ``n_pathways``, regulators are divided evenly among pathways, each with signed targets of its own. Four
        fifths of the edges of a regulator, and of the absent ones, are those of its pathway times a factor of either
        sign and an absolute value between 0.5 and 1.5; the others are drawn as above.

        Weights between regulators are scaled down until the spectral radius of ``|w| h / 4`` is at most 0.8. This
        bounds the log-log gain of every feedback loop, because ``|d log p_g / d log x_r| <= |w_rg| h / 4``, so that
        the steady state is unique and plain iteration converges to it.
        """
        regulators = np.sort(rng.choice(n_genes, n_regulators, replace=False))

        # Gumbel top-k: every gene draws its regulators without replacement, in proportion to their propensity.
        score = 0.5 * rng.normal(size=(n_regulators, 1)) + rng.gumbel(size=(n_regulators, n_genes))
        score[np.arange(n_regulators), regulators] = -np.inf
        rank = (-score).argsort(axis=0).argsort(axis=0)
        mean_incoming = np.full(n_genes, float(mean_regulators))
        mean_incoming[regulators] /= 4
        chosen = (rank < rng.poisson(mean_incoming)) & np.isfinite(score)
        sign = np.where(rng.random(score.shape) < FRACTION_ACTIVATING, 1.0, -1.0)
        magnitude = effect_strength * rng.lognormal(sigma=0.3, size=score.shape)
        weights = np.where(chosen, sign * magnitude, 0.0)
        if n_pathways is not None:
            weights = _follow_pathways(weights, regulators, mean_incoming, effect_strength, n_pathways, rng)

        gain = np.abs(weights[:, regulators]) * HILL_EXPONENT / 4
        loop_gain = np.abs(np.linalg.eigvals(gain)).max()
        weights[:, regulators] *= MAX_LOOP_GAIN / max(loop_gain, MAX_LOOP_GAIN)

        typical = rng.normal(-0.3, 0.6, n_genes)
        return cls(
            regulators=regulators,
            weights=weights,
            basal=typical + rng.normal(0.0, 0.7, (n_cell_types, n_genes)),
            threshold=expit(typical[regulators]),
            decay=rng.lognormal(0.0, 0.3, n_genes),
        )

    @property
    def n_genes(self) -> int:
        """Number of genes G."""
        return self.weights.shape[1]

    def astype(self, dtype: DTypeLike) -> GeneNetwork:
        """Return the network with its parameters in another floating-point type."""
        names = ("weights", "basal", "threshold", "decay")
        return dataclasses.replace(self, **{name: getattr(self, name).astype(dtype) for name in names})

    def adjacency(self) -> sparse.csr_matrix:
        """Return the weights as a sparse matrix of all genes (G, G); row regulates column."""
        row, column = np.nonzero(self.weights)
        entries = self.weights[row, column], (self.regulators[row], column)
        return sparse.csr_matrix(entries, shape=(self.n_genes, self.n_genes))

    def edges(self, genes: NDArray[np.str_]) -> pd.DataFrame:
        """Return the weights as a table with the columns source, target and weight."""
        row, column = np.nonzero(self.weights)
        return pd.DataFrame(
            {"source": genes[self.regulators[row]], "target": genes[column], "weight": self.weights[row, column]}
        )

    def descendants(self) -> NDArray[np.bool_]:
        """Return which genes a regulator reaches along edges, itself included, shape (R, G)."""
        distances: FloatArray = dijkstra(abs(self.adjacency()), unweighted=True, indices=self.regulators)
        return np.isfinite(distances)

    def downstream_effects(self) -> FloatArray:
        r"""Linear effect of every regulator on every gene, along all paths (R, G): change of log levels.

        Where all levels are at their thresholds, :math:`\partial \log x_g / \partial \log x_r = w_{rg} h / 8`, since a
        promoter that is open half of the time gives a half and the Hill function of exponent h a quarter; cascades
        multiply: :math:`J + J_R J + J_R^2 J + \ldots = (I - J_R)^{-1} J` with the columns :math:`J_R` of the regulators.
        """
        direct = self.weights * HILL_EXPONENT / 8
        return np.linalg.solve(np.eye(len(direct)) - direct[:, self.regulators], direct)

    def embedding(self, sign: FloatArray, *, size: int, noise: float, rng: np.random.Generator) -> FloatArray:
        """Noisy random projections (R, size) of what regulators do when perturbed in the direction ``sign`` (R,).

        Regulators with similar targets have similar ones. The standard deviation of the noise is relative to the root
        mean square of the projections.
        """
        projection = rng.normal(size=(self.n_genes, size)) / np.sqrt(size)
        vectors = sign[:, None] * self.downstream_effects() @ projection
        return vectors + noise * np.sqrt(np.mean(vectors**2)) * rng.normal(size=vectors.shape)

    def steady_state(self, cells: Cells) -> FloatArray:
        """Return the levels at which production balances decay, shape (n, G)."""
        levels = np.broadcast_to(self.threshold, cells.factor.shape)
        tolerance = 100 * np.finfo(self.threshold.dtype).eps
        for _ in range(MAX_ITERATIONS):
            previous, levels = levels, self._regulator_production(levels, cells)
            if np.abs(levels - previous).max() <= tolerance:
                break
        return self._production(levels, cells)

    def relax(self, levels: FloatArray, cells: Cells, *, duration: float) -> FloatArray:
        """Return the levels after some time, shape (n, G).

        Exponential midpoint rule: second order in the step, exact for constant production, and never negative.
        """
        n_steps = math.ceil(duration / TIME_STEP)
        step = duration / max(n_steps, 1)
        remaining = np.exp(-step * self.decay)
        remaining_half = np.exp(-step / 2 * self.decay[self.regulators])
        for _ in range(n_steps):
            drivers = levels[:, self.regulators]
            produced = self._regulator_production(drivers, cells)
            midpoint = produced + (drivers - produced) * remaining_half
            produced = self._production(midpoint, cells)
            levels = produced + (levels - produced) * remaining
        return levels

    def response(self, cells: Cells, time: FloatArray) -> FloatArray:
        """Return the levels (n, G) at a time (n,) after the perturbation of each cell's own steady state.

        The time is in mean mRNA lifetimes; infinite for the new steady state.
        """
        if np.isinf(time).all():  # no history is needed
            return self.steady_state(cells)
        levels = self.steady_state(cells.unperturbed())
        now = 0.0
        for following in np.unique(time):
            pending = time >= following
            if np.isinf(following):
                levels[pending] = self.steady_state(cells[pending])
            else:
                levels[pending] = self.relax(levels[pending], cells[pending], duration=following - now)
                now = following
        return levels

    def _open(self, levels: FloatArray, cells: Cells, genes: NDArray[np.intp] | slice) -> FloatArray:
        """Return the probability that the promoters of some genes are open, given the levels of all regulators."""
        bound = levels**HILL_EXPONENT
        occupancy = bound / (self.threshold**HILL_EXPONENT + bound)
        return expit(self.basal[:, genes][cells.cell_type] + (occupancy - 0.5) @ self.weights[:, genes])

    def _regulator_production(self, levels: FloatArray, cells: Cells) -> FloatArray:
        return cells.state * cells.factor * self._open(levels, cells, self.regulators)

    def _production(self, levels: FloatArray, cells: Cells) -> FloatArray:
        produced = self._open(levels, cells, slice(None))
        produced[:, self.regulators] *= cells.state * cells.factor
        return produced


def _follow_pathways(
    weights: FloatArray,
    regulators: NDArray[np.intp],
    mean_incoming: FloatArray,
    effect_strength: float,
    n_pathways: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Replace most weights (R, G) by those of pathways; the mean number of regulators of a gene stays the same."""
    n_regulators, n_genes = weights.shape
    pathway = rng.permutation(np.resize(np.arange(n_pathways), n_regulators))
    chosen = rng.random((n_pathways, n_genes)) < mean_incoming / n_regulators
    sign = np.where(rng.random(chosen.shape) < FRACTION_ACTIVATING, 1.0, -1.0)
    common = np.where(chosen, sign * effect_strength * rng.lognormal(sigma=0.3, size=chosen.shape), 0.0)
    factor = rng.choice([-1.0, 1.0], n_regulators) * rng.uniform(0.5, 1.5, n_regulators)
    follows = rng.random(weights.shape) < FRACTION_OF_PATHWAY
    weights = np.where(follows, factor[:, None] * common[pathway], weights)
    weights[np.arange(n_regulators), regulators] = 0.0
    return weights
