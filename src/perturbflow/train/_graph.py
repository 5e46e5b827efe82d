"""Graphs of regulation, from a fitted field or from the levels alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from perturbflow._progress import shows_progress, stage
from perturbflow._warnings import warn
from perturbflow.baselines import correlation_graph, partial_correlation_graph
from perturbflow.dynamics import evidence_ranks, path_weights, snapshot_evidence
from perturbflow.predict._torch_state import usual_torch
from perturbflow.train._stability import Stability, stability, sure
from perturbflow.trajectories._fields import trajectories_of
from perturbflow.trajectories._snapshot_fields import course_cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.predict._dynamics_store import StoredDynamics
    from perturbflow.trajectories._fields import DynamicsFields

STATIC = {"correlation": correlation_graph, "partial_correlation": partial_correlation_graph}
FITTED = ("jacobian", "gates")
CELLS_A_POINT = 2  # from which on how cells covary is lost in the means that courses are fitted to


@dataclass(frozen=True)
class Graph:
    """A signed graph of d genes, matrices (d, d) whose rows regulate columns."""

    weight: NDArray[np.float64]  # signed
    confidence: NDArray[np.float64]  # between 0 and 1
    evidence: NDArray[np.float64]  # what ranks pairs, also those left out, with covariation where there is any
    possible: NDArray[np.bool_]  # pairs that were asked about
    rate_weight: NDArray[np.float64] | None = None  # through the rates of the sources, of a second-order field

    def edges(self, genes: list[str]) -> pd.DataFrame:
        """Return all pairs as a table, those of most evidence first, then of largest confidence times absolute weight."""
        parts = {"level": self.weight} | ({} if self.rate_weight is None else {"rate": self.rate_weight})
        tables = []
        for through, weight in parts.items():
            row, column = np.nonzero(self.possible | (weight != 0))
            table = pd.DataFrame(
                {
                    "source": np.array(genes, dtype=object)[row],
                    "target": np.array(genes, dtype=object)[column],
                    "weight": weight[row, column],
                    "sign": np.sign(weight[row, column]).astype(int),
                    "confidence": self.confidence[row, column],
                    "evidence": self.evidence[row, column],
                    "kept": weight[row, column] != 0,
                }
            )
            tables.append(table.assign(acts_through=through) if self.rate_weight is not None else table)
        edges = pd.concat(tables)
        strength = edges["confidence"] * edges["weight"].abs()
        order = np.lexsort([-strength.to_numpy(), -edges["evidence"].to_numpy()])
        return edges.iloc[order].reset_index(drop=True)


@shows_progress("infer graph")
@usual_torch()
def fitted_graph(
    adata: AnnData | None,
    stored: StoredDynamics,
    *,
    method: str,
    n_bootstraps: int,
    n_jobs: int,
    seed: int,
    progress_bar: bool = False,
) -> Graph:
    """Read the graph of a fitted field; see :func:`perturbflow.tl.infer_graph`.

    Without cells, as in a model that was loaded alone, it is that of the fit: covariation does not join, and there are no
    bootstraps (a ValueError).
    """
    stage("edges of the fit")
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
        if adata is None:
            msg = (
                f"Expected cells for {n_bootstraps} bootstraps, found a model that was loaded without any. Load it with "
                "`adata`, or leave `n_bootstraps` at 0."
            )
            raise ValueError(msg)
        found: Stability = stability(
            adata, stored, n_fits=n_bootstraps, n_jobs=n_jobs, seed=seed, progress_bar=progress_bar
        )
        # The fit itself is one of the fits.
        share = 1 / (n_bootstraps + 1)
        confidence = share * sure(weight != 0, model.evidence) + (1 - share) * found.frequency
        evidence = share * evidence + (1 - share) * found.evidence
        if method == "jacobian":
            weight = share * weight + (1 - share) * found.weight
    n_regulators, config = len(model.config.regulators), model.config

    def square(values: NDArray, part: int) -> NDArray:
        full = np.zeros((config.n_genes, config.n_genes))
        full[list(config.regulators)] = values[:, part * n_regulators : (part + 1) * n_regulators].T
        return full

    parts = range(config.order)
    possible = _pairs(config.n_genes, config.regulators, with_itself=config.self_regulation)
    found_evidence = np.max([square(evidence, part) for part in parts], axis=0)
    if adata is not None and adata.n_obs >= CELLS_A_POINT * _n_points(adata, stored):
        stage("evidence of covariation")
        cells = course_cells(adata[:, stored.genes], stored.fields)
        found_evidence = (evidence_ranks(found_evidence, possible) + snapshot_evidence(cells).evidence) / 2
    if not weight.any():
        warn(
            "The fitted dynamics keep no edge: the graph is empty. The ranking of all pairs is in `edges`, and more times, "
            "trajectories or perturbations make it surer."
        )
    return Graph(
        weight=square(weight, 0),
        confidence=np.max([square(confidence, part) for part in parts], axis=0),
        evidence=found_evidence,
        possible=possible,
        rate_weight=square(weight, 1) if config.order == 2 else None,
    )


def static_graph(adata: AnnData, fields: DynamicsFields, *, method: str) -> Graph:
    """Return the graph of a baseline that knows no time: all pairs of regulators and targets."""
    values = np.concatenate([t.values for t in trajectories_of(adata, fields)])
    weight = STATIC[method](values)
    regulators = np.flatnonzero(np.isin(adata.var_names.astype(str), fields.regulators))
    possible = _pairs(len(weight), regulators, with_itself=False)
    weight = np.where(possible, weight, 0.0)
    return Graph(weight=weight, confidence=np.abs(weight), evidence=np.abs(weight), possible=possible)


def _n_points(adata: AnnData, stored: StoredDynamics) -> int:
    """Points of the courses that the field was fitted to: times, or bins where these are fewer."""
    n_bins = int(stored.settings["n_bins"])
    return sum(min(len(t.time), n_bins) for t in trajectories_of(adata[:, stored.genes], stored.fields))


def _pairs(n_genes: int, regulators: Sequence[int] | NDArray[np.intp], *, with_itself: bool) -> NDArray[np.bool_]:
    """Pairs of a regulator and a gene, another one unless genes may regulate themselves (d, d)."""
    possible = np.zeros((n_genes, n_genes), dtype=bool)
    possible[list(regulators)] = True
    if not with_itself:
        np.fill_diagonal(possible, val=False)
    return possible
