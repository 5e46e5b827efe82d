"""Dynamics of cells at rest: their fit, how sure their edges are, and the graph of those that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from joblib import delayed

from perturbflow._checks import check_whole_number, listing
from perturbflow._progress import shows_progress, stage
from perturbflow._warnings import warn
from perturbflow.dynamics import Snapshot, edge_stability, fit_standing, snapshot_evidence
from perturbflow.predict._standing_store import StoredStanding
from perturbflow.train._progress import side_by_side
from perturbflow.trajectories._snapshot_fields import read_snapshot_fields, snapshot_of

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray


@shows_progress("fit dynamics")
def fit_snapshot(adata: AnnData, *, seed: int = 0, progress_bar: bool = True) -> StoredStanding:
    """Fit dynamics to registered cells without a time."""
    check_whole_number(seed, name="seed")
    stage("moments of the cells")
    fields = read_snapshot_fields(adata)
    cells = snapshot_of(adata, fields)
    genes = list(map(str, adata.var_names))
    _check_varies(cells, genes)
    stage("evidence for edges")
    found, few = snapshot_evidence(cells), list(cells.regulators)
    stage("dynamics")
    return StoredStanding(
        model=fit_standing(cells, seed=seed),
        evidence=found.evidence[few].astype(np.float32),
        sign=found.sign[few].astype(np.float32),
        genes=genes,
        perturbations=list(cells.names[1:]),
        fields=fields,
        seed=seed,
    )


def standing_stability(
    adata: AnnData, stored: StoredStanding, *, n_halves: int, n_jobs: int, seed: int, progress_bar: bool = False
) -> NDArray[np.float64]:
    """Share of halves of the cells in which edges come back (d, d); see :func:`perturbflow.dynamics.edge_stability`."""
    cells = snapshot_of(adata[:, stored.genes], stored.fields)
    rngs = np.random.default_rng(seed).spawn(max((n_halves + 1) // 2, 1))
    # Two halves a job, as each sees the levels in one of two ways.
    sizes = [min(2, n_halves - 2 * k) for k in range(len(rngs))]
    jobs = (delayed(edge_stability)(cells, n_halves=size, rng=rng) for size, rng in zip(sizes, rngs, strict=True))
    parts = side_by_side(
        jobs, "halves of the cells", unit="pair of halves", total=len(sizes), n_jobs=n_jobs, show=progress_bar
    )
    return np.average(parts, axis=0, weights=sizes)


def _check_varies(cells: Snapshot, genes: list[str]) -> None:
    """Raise unless a regulator and another gene vary; warn of genes that do not."""
    varies = np.diag(cells.within) > 0
    few = [k for k in cells.regulators if varies[k]]
    if not few or varies.sum() < 2:
        msg = (
            f"Expected at least one regulator and another gene whose levels differ between cells, found "
            f"{len(few)} such regulators and {int(varies.sum())} such genes. Check the layer and the regulators."
        )
        raise ValueError(msg)
    if not varies.all():
        names = [genes[k] for k in np.flatnonzero(~varies)]
        warn(f"{len(names)} genes have the same level in all cells and take part in no edge: {listing(names)}.")


KEPT = 0.5  # confidence from which an edge is kept


@dataclass(frozen=True)
class StandingGraph:
    """A signed graph of d genes, matrices (d, d) whose rows regulate columns."""

    weight: NDArray[np.float64]  # signed evidence of the edges that are kept, 0 elsewhere
    confidence: NDArray[np.float64]  # between 0 and 1
    evidence: NDArray[np.float64]  # evidence for every pair
    sign: NDArray[np.float64]  # sign of the effect of every pair
    possible: NDArray[np.bool_]  # pairs that were asked about
    rate_weight: None = None  # levels act, not their rates

    def edges(self, genes: list[str]) -> pd.DataFrame:
        """Return all pairs as a table, those of most evidence first."""
        row, column = np.nonzero(self.possible)
        order = np.argsort(-self.evidence[row, column], kind="stable")
        row, column = row[order], column[order]
        names = np.array(genes, dtype=object)
        return pd.DataFrame(
            {
                "source": names[row],
                "target": names[column],
                "weight": self.evidence[row, column] * self.sign[row, column],
                "sign": self.sign[row, column].astype(int),
                "confidence": self.confidence[row, column],
                "evidence": self.evidence[row, column],
                "kept": self.weight[row, column] != 0,
            }
        )


@shows_progress("infer graph")
def standing_graph(
    adata: AnnData, stored: StoredStanding, *, n_halves: int, n_jobs: int, seed: int, progress_bar: bool = False
) -> StandingGraph:
    """Read the graph of dynamics of cells at rest; see :func:`perturbflow.tl.infer_graph`."""
    d, few = len(stored.genes), list(stored.model.regulators)
    evidence, sign = np.zeros((d, d)), np.zeros((d, d))
    evidence[few], sign[few] = stored.evidence, stored.sign
    possible = np.zeros((d, d), dtype=bool)
    possible[few] = True
    np.fill_diagonal(possible, val=False)
    if n_halves:
        confidence = standing_stability(
            adata, stored, n_halves=n_halves, n_jobs=n_jobs, seed=seed, progress_bar=progress_bar
        )
        kept = (confidence >= KEPT) & (sign != 0)
    else:
        limit = np.sort(evidence[possible])[-min(d, possible.sum())]
        kept = possible & (evidence >= limit) & (sign != 0)
        confidence = kept.astype(float)
    if not kept.any():
        warn(
            f"No edge comes back in {KEPT:.0%} of the halves of the cells: the graph is empty. The ranking of all pairs is in "
            "`edges`, and more cells or perturbations make it surer."
        )
    return StandingGraph(
        weight=np.where(kept, evidence * sign, 0.0),
        confidence=confidence,
        evidence=evidence,
        sign=sign,
        possible=possible,
    )
