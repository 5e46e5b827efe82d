"""The graph of dynamics of cells at rest: all pairs ranked, and those that are kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from perturbflow._progress import shows_progress
from perturbflow._warnings import warn
from perturbflow.train._fit_standing import standing_stability

if TYPE_CHECKING:
    from anndata import AnnData
    from numpy.typing import NDArray

    from perturbflow.predict._standing_store import StoredStanding

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
