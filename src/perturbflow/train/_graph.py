"""Graphs of regulation, from a fitted field or from the levels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch
from scipy import sparse

from perturbflow.baselines import correlation_graph, partial_correlation_graph
from perturbflow.dynamics import path_weights
from perturbflow.predict._torch_state import usual_torch
from perturbflow.train._stability import Stability, stability
from perturbflow.trajectories._fields import trajectories_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.predict._dynamics_store import StoredDynamics
    from perturbflow.trajectories._fields import DynamicsFields

STATIC = {"correlation": correlation_graph, "partial_correlation": partial_correlation_graph}
FITTED = ("jacobian", "gates")


@dataclass(frozen=True)
class Graph:
    """A signed graph of d genes, matrices (d, d) whose rows regulate columns.

    Attributes
    ----------
    weight
        Signed weights.
    confidence
        Between 0 and 1.
    evidence
        Evidence for an edge, also for those left out: what ranks them.
    rate_weight
        Weights through the rates of the sources, of a second-order field.
    """

    weight: NDArray[np.float64]
    confidence: NDArray[np.float64]
    evidence: NDArray[np.float64]
    rate_weight: NDArray[np.float64] | None = None

    def edges(self, genes: list[str]) -> pd.DataFrame:
        """Return the edges with a weight as a table, those of largest confidence times absolute weight first."""
        parts = {"level": self.weight} | ({} if self.rate_weight is None else {"rate": self.rate_weight})
        tables = []
        for through, weight in parts.items():
            row, column = np.nonzero(weight)
            table = pd.DataFrame(
                {
                    "source": np.array(genes, dtype=object)[row],
                    "target": np.array(genes, dtype=object)[column],
                    "weight": weight[row, column],
                    "sign": np.sign(weight[row, column]).astype(int),
                    "confidence": self.confidence[row, column],
                    "evidence": self.evidence[row, column],
                }
            )
            tables.append(table.assign(acts_through=through) if self.rate_weight is not None else table)
        edges = pd.concat(tables)
        order = np.argsort(-(edges["confidence"] * edges["weight"].abs()).to_numpy(), kind="stable")
        return edges.iloc[order].reset_index(drop=True)

    def matrix(self) -> sparse.csr_matrix:
        """Return the weights as a sparse matrix."""
        return sparse.csr_matrix(self.weight.astype(np.float32))


@usual_torch()
def fitted_graph(
    adata: AnnData, stored: StoredDynamics, *, method: str, n_bootstraps: int, n_jobs: int, seed: int
) -> Graph:
    """Read the graph of a fitted field; see :func:`perturbflow.tl.infer_graph`."""
    model = stored.model
    jacobian = model.jacobian()
    if method == "gates":
        layers = [w.detach() for w in model.field.weights()]
        paths = path_weights(layers[:-1] if model.config.skip else layers)
        paths = paths + layers[-1][:, 0].abs() if model.config.skip else paths
        weight = (torch.sign(jacobian.mean) * model.field.of_all_genes(paths)).numpy()
    else:
        weight = jacobian.signed.numpy()
    weight = np.where(model.support(), weight, 0.0)
    evidence = model.evidence if model.evidence.size else np.abs(weight)
    confidence = (weight != 0).astype(float)
    if n_bootstraps:
        found: Stability = stability(adata, stored, n_fits=n_bootstraps, n_jobs=n_jobs, seed=seed)
        # The fit itself is one of the fits.
        share = 1 / (n_bootstraps + 1)
        confidence = share * confidence + (1 - share) * found.frequency
        evidence = share * evidence + (1 - share) * found.evidence
        if method == "jacobian":
            weight = share * weight + (1 - share) * found.weight
    n_regulators, config = len(model.config.regulators), model.config

    def square(values: NDArray, part: int) -> NDArray:
        full = np.zeros((config.n_genes, config.n_genes))
        full[list(config.regulators)] = values[:, part * n_regulators : (part + 1) * n_regulators].T
        return full

    parts = range(config.order)
    return Graph(
        weight=square(weight, 0),
        confidence=np.max([square(confidence, part) for part in parts], axis=0),
        evidence=np.max([square(evidence, part) for part in parts], axis=0),
        rate_weight=square(weight, 1) if config.order == 2 else None,
    )


def static_graph(adata: AnnData, fields: DynamicsFields, *, method: str) -> Graph:
    """Return the graph of a baseline that knows no time: all pairs of regulators and targets."""
    values = np.concatenate([t.values for t in trajectories_of(adata, fields)])
    weight = STATIC[method](values)
    is_regulator = np.isin(adata.var_names.astype(str), fields.regulators)
    weight = np.where(is_regulator[:, None], weight, 0.0)
    return Graph(weight=weight, confidence=np.abs(weight), evidence=np.abs(weight))
