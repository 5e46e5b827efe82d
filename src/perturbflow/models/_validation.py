"""Held-out conditions, and what is chosen on them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from perturbflow.metrics._energy import energy_distance_to

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, ConditionalFlow

MAX_CONDITIONS = 16
MAX_CELLS = 128
MIN_CELLS = 5
STARTS = (0.0, 0.3, 0.5, 0.7, 0.85)
TRUSTS = (0.0, 0.5, 1.0)
N_DRAWS = 3


@dataclass(frozen=True, eq=False)
class _Condition:
    controls: NDArray[np.float32]
    perturbation: NDArray[np.float32]
    covariates: NDArray[np.int64]
    energy: Callable[[NDArray[np.float32]], float]


class HeldOutConditions:
    """Conditions that no training cell is from, for early stopping and for choices.

    Parameters
    ----------
    training
        Training cells, for the controls to start from.
    held_out
        Cells of the held-out conditions.
    seed
        Of the cells and conditions drawn, and of every prediction: two flows are compared under the same noise.
    """

    def __init__(self, training: CellData, held_out: CellData, *, seed: int) -> None:
        self.seed = seed
        rng = np.random.default_rng(seed)
        controls = {
            tuple(group.covariates.tolist()): group.rows for group in training.groups() if not group.perturbation.any()
        }
        usable = [
            group
            for group in held_out.groups()
            if group.perturbation.any()
            and len(group.rows) >= MIN_CELLS
            and len(controls.get(tuple(group.covariates.tolist()), ())) >= MIN_CELLS
        ]
        if len(usable) > MAX_CONDITIONS:
            usable = [usable[i] for i in np.sort(rng.choice(len(usable), MAX_CONDITIONS, replace=False))]
        self.conditions = [
            _Condition(
                controls=_draw(training, controls[tuple(group.covariates.tolist())], rng),
                perturbation=group.perturbation,
                covariates=group.covariates,
                energy=energy_distance_to(_draw(held_out, group.rows, rng)),
            )
            for group in usable
        ]

    def __len__(self) -> int:
        return len(self.conditions)

    def energies(self, flow: ConditionalFlow, *, start: float, trust: float, n_draws: int = 1) -> NDArray[np.float64]:
        """Unbiased energy distance between predicted and real cells, (n_draws * conditions,)."""
        return np.array(
            [
                condition.energy(
                    flow.sample(
                        condition.controls,
                        condition.perturbation,
                        condition.covariates,
                        rng=np.random.default_rng([self.seed, draw]),
                        start=start,
                        trust=trust,
                    )
                )
                for draw in range(n_draws)
                for condition in self.conditions
            ]
        )

    def choose(self, flow: ConditionalFlow) -> dict[str, float]:
        """Choose how much of the control cell to keep and how far to trust the network.

        The lowest mean energy distance wins, unless a later start (more of the control cell), or the whole network at
        the same start, is within one standard error of the paired difference: what validation cannot tell apart is
        left as it was trained, close to the real cell (the one-standard-error rule of Breiman et al. 1984).

        Returns
        -------
        The chosen ``start`` and ``trust``, and the mean ``energy`` they reach.
        """
        starts = STARTS if flow.config.source == "control" else (0.0,)
        # Without a prior in its velocity a flow is nothing but its network.
        trusts = TRUSTS if flow.parametrisation.uses_law else (1.0,)
        scores = {
            (start, trust): self.energies(flow, start=start, trust=trust, n_draws=N_DRAWS)
            for start, trust in product(starts, trusts)
        }
        best = min(scores, key=lambda pair: scores[pair].mean())
        for pair in sorted(scores, reverse=True):
            difference = scores[pair] - scores[best]
            if difference.mean() <= difference.std(ddof=1) / np.sqrt(len(difference)):
                best = pair
                break
        return {"start": best[0], "trust": best[1], "energy": float(scores[best].mean())}


def _draw(cells: CellData, rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float32]:
    """At most ``MAX_CELLS`` of some cells, dense."""
    if len(rows) > MAX_CELLS:
        rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
    x: Any = cells.x[rows]
    return x.toarray() if sparse.issparse(x) else np.asarray(x)
