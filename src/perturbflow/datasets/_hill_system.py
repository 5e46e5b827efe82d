"""Gene networks whose regulators multiply Hill functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from perturbflow._checks import check_whole_number, listing
from perturbflow.datasets._time_courses import Floats, check_times, signed_graph, solve_system

MAX_START = 1.2
LOWEST_THRESHOLD, HIGHEST_THRESHOLD = 0.3, 0.7


@dataclass(frozen=True)
class HillNetwork:
    r"""d genes that are produced as their regulators allow, and decay.

    .. math::

        \dot x_i = \beta \prod_{j \to i} h_{ij}(x_j) - x_i, \qquad
        h_{ij}(x) = \frac{x^n}{K_{ij}^n + x^n} \text{ (activation)}, \quad
        h_{ij}(x) = \frac{K_{ij}^n}{K_{ij}^n + x^n} \text{ (repression)}

    so that production needs all activators and none of the repressors (a logical AND).

    Parameters
    ----------
    n_genes
        Number of genes d.
    source, target
        Positions of regulator and target of every edge, shape (E,); no pair occurs twice.
    threshold
        Levels K at which an edge has half of its effect, shape (E,).
    sign
        +1 for activation, -1 for repression, shape (E,).
    exponent
        Hill exponent n.
    production
        Highest rate of production :math:`\beta`, and so the highest level that lasts.

    Examples
    --------
    A gene that represses its own activator:

    >>> from perturbflow.datasets import HillNetwork
    >>> network = HillNetwork(2, np.array([0, 1]), np.array([1, 0]), np.array([0.5, 0.5]), np.array([1, -1]))
    >>> network.rhs(np.array([0.5, 0.0])).tolist()
    [1.0, 0.75]
    >>> network.simulate(np.array([[1.0, 1.0]]), [0.0, 1.0], clamp={0: 0.0})[0, 1].round(4).tolist()
    [0.0, 0.3679]
    """

    n_genes: int
    source: NDArray[np.intp]
    target: NDArray[np.intp]
    threshold: Floats
    sign: NDArray[np.intp]
    exponent: float = 3.0
    production: float = 1.5

    def __post_init__(self) -> None:
        check_whole_number(self.n_genes, name="n_genes", least=1)
        n_edges = len(self.source)
        shapes = {name: getattr(self, name).shape for name in ("source", "target", "threshold", "sign")}
        if set(shapes.values()) != {(n_edges,)}:
            msg = f"Expected source, target, threshold and sign of one shape (E,), found {shapes}."
            raise ValueError(msg)
        ends = np.concatenate([self.source, self.target])
        if n_edges and not (0 <= ends.min() and ends.max() < self.n_genes):
            msg = f"Expected edges between genes 0 to {self.n_genes - 1}, found {listing(sorted(set(ends.tolist())))}."
            raise ValueError(msg)
        if len(set(zip(self.source.tolist(), self.target.tolist(), strict=True))) < n_edges:
            msg = "Expected every pair of source and target once, found repeated pairs. Merge their edges."
            raise ValueError(msg)
        if not (self.threshold > 0).all() or not np.isin(self.sign, (-1, 1)).all():
            msg = "Expected positive thresholds and signs of -1 or 1, found others."
            raise ValueError(msg)

    @classmethod
    def random(cls, n_genes: int, rng: np.random.Generator, *, max_regulators: int = 3) -> HillNetwork:
        """Draw a network.

        Every gene has 1 to ``max_regulators`` regulators with equal chances, other genes drawn uniformly, each an
        activator or a repressor with equal chances and K uniform between 0.3 and 0.7.

        Parameters
        ----------
        n_genes
            Number of genes, at least 2.
        rng
            Source of randomness.
        max_regulators
            Highest number of regulators of a gene.

        Returns
        -------
        The network.
        """
        check_whole_number(n_genes, name="n_genes", least=2)
        check_whole_number(max_regulators, name="max_regulators", least=1)
        in_degree = rng.integers(1, min(max_regulators, n_genes - 1), size=n_genes, endpoint=True)
        target = np.repeat(np.arange(n_genes), in_degree)
        drawn = [np.sort(rng.choice(n_genes - 1, degree, replace=False)) for degree in in_degree]
        source = np.concatenate([others + (others >= gene) for gene, others in enumerate(drawn)])  # never itself
        threshold = rng.uniform(LOWEST_THRESHOLD, HIGHEST_THRESHOLD, len(source))
        return cls(n_genes, source, target, threshold, rng.choice([-1, 1], len(source)))

    @classmethod
    def from_anndata(cls, adata: AnnData) -> HillNetwork:
        """Return the network behind the data of :func:`perturbflow.datasets.hill_network`.

        Parameters
        ----------
        adata
            Data with the entries ``true_edges`` and ``simulation`` in ``uns``.

        Returns
        -------
        The network.
        """
        if "threshold" not in adata.uns.get("simulation", {}):
            msg = "Expected data from `pf.datasets.hill_network`, found no `adata.uns['simulation']['threshold']`."
            raise KeyError(msg)
        edges, simulation = adata.uns["true_edges"], adata.uns["simulation"]
        return cls(
            adata.n_vars,
            adata.var_names.get_indexer(edges["source"]),
            adata.var_names.get_indexer(edges["target"]),
            np.asarray(simulation["threshold"]),
            edges["sign"].to_numpy(),
            float(simulation["exponent"]),
            float(simulation["production"]),
        )

    def rhs(self, x: Floats) -> Floats:
        """Return the rates of change at levels x, both of shape (..., d).

        Parameters
        ----------
        x
            Levels (..., d).

        Returns
        -------
        Rates (..., d).
        """
        power = np.maximum(x[..., self.source], 0.0) ** self.exponent
        half = self.threshold**self.exponent
        factor = np.where(self.sign > 0, power, half) / (half + power)
        produced = np.full(x.shape, self.production)
        order = np.argsort(self.target, kind="stable")
        regulated, first = np.unique(self.target[order], return_index=True)
        if len(regulated):
            produced[..., regulated] *= np.multiply.reduceat(factor[..., order], first, axis=-1)
        return produced - x

    def simulate(self, start: Floats, times: ArrayLike, *, clamp: Mapping[int, float] | None = None) -> Floats:
        """Solve the equations.

        Parameters
        ----------
        start
            Levels at time 0, shape (K, d).
        times
            Times, ascending from 0 or later, shape (n,) or, for every run its own, (K, n).
        clamp
            Levels at which genes are held, by position; 0 is a knock-out.

        Returns
        -------
        Levels, shape (K, n, d).

        Raises
        ------
        ValueError
            If the shapes do not match, times do not ascend, a level is negative, or a clamped gene is unknown.
        """
        start, times = np.array(start, dtype=float), np.asarray(times, dtype=float)
        clamp = dict(clamp or {})
        check_times(times)
        if start.ndim != 2 or start.shape[1] != self.n_genes or (times.ndim == 2 and len(times) != len(start)):
            msg = (
                f"Expected start of shape (K, {self.n_genes}) and times of shape (n,) or (K, n), found {start.shape} and "
                f"{times.shape}."
            )
            raise ValueError(msg)
        if not set(clamp) <= set(range(self.n_genes)):
            msg = f"Expected `clamp` to name positions 0 to {self.n_genes - 1}, found {listing(clamp)}."
            raise ValueError(msg)
        held = np.zeros(start.shape, dtype=bool)
        held[:, list(clamp)] = True
        start[:, list(clamp)] = list(clamp.values())
        if not (start >= 0).all():
            msg = f"Expected levels of at least 0, found {start.min():g}."
            raise ValueError(msg)
        return solve_system(self.rhs, start, times, held=held)

    def adjacency(self) -> sparse.csr_matrix:
        """Return the signs of the edges, CSR float32 of shape (d, d); row regulates column.

        Returns
        -------
        The signs.
        """
        effects = sparse.coo_matrix((self.sign, (self.source, self.target)), shape=(self.n_genes, self.n_genes))
        return signed_graph(effects)
