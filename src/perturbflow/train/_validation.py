"""Held-out conditions, and what is chosen on them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from perturbflow.metrics import cosine_of_log_fold_changes, recall_of_top_genes
from perturbflow.metrics._energy import energy_distance_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, ConditionalFlow
    from perturbflow.screen._screen import Screen

MAX_CONDITIONS = 12
MAX_CELLS = 100
MIN_CELLS = 5
STARTS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
TRUSTS = (0.0, 0.5, 1.0)
GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0)
N_DRAWS = 2


@dataclass(frozen=True, eq=False)
class _Condition:
    controls: NDArray[np.float32]
    perturbation: NDArray[np.float32]
    covariates: NDArray[np.int64]
    real: NDArray[np.float32]
    energy: Callable[..., float]


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

    def __init__(self, training: CellData | Screen, held_out: CellData | Screen, *, seed: int) -> None:
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
        self.conditions = []
        for group in usable:
            real = _draw(held_out, group.rows, rng)
            members = controls[tuple(group.covariates.tolist())]
            self.conditions.append(
                _Condition(
                    controls=_draw(training, members, rng),
                    perturbation=group.perturbation,
                    covariates=group.covariates,
                    real=real,
                    energy=energy_distance_to(real),
                )
            )

    def __len__(self) -> int:
        return len(self.conditions)

    def predictions(
        self, flow: ConditionalFlow, *, n_draws: int = 1, **changes: Any
    ) -> Iterator[tuple[_Condition, NDArray[np.float32]]]:
        """Every condition with its predicted cells, ``n_draws`` times.

        A solver that chooses its steps is replaced by one with few: choices do not need its accuracy. Where there is one
        draw, its cells are independent, as the unbiased energy distance asks.
        """
        if n_draws == 1:
            changes = {"stratified": False} | changes
        if flow.config.solver_steps is None:
            changes = {"method": "multistep"} | changes
        for draw in range(n_draws):
            for condition in self.conditions:
                rng = np.random.default_rng([self.seed, draw])
                yield (
                    condition,
                    flow.sample(condition.controls, condition.perturbation, condition.covariates, rng=rng, **changes),
                )

    def energies(self, flow: ConditionalFlow, *, n_draws: int = 1, **changes: Any) -> NDArray[np.float64]:
        """Unbiased energy distance between predicted and real cells, (n_draws * conditions,).

        ``changes`` are settings of prediction, see :meth:`perturbflow.flow.ConditionalFlow.sample`.
        """
        return _energies(list(self.predictions(flow, n_draws=n_draws, **changes)), n_draws)

    def choose(self, flow: ConditionalFlow) -> dict[str, float]:
        """Choose how much of the control cell to keep and how far to trust the network.

        Of the choices whose energy distance is within one standard error of the lowest (of the paired difference over
        conditions and draws; the rule of Breiman et al. 1984), the one whose log fold changes agree best with the real
        ones wins: the first judges whole cells and is blind to weakly expressed genes, the second is not.

        Returns
        -------
        The chosen ``start`` and ``trust``.
        """
        starts = STARTS if flow.config.source == "control" else (0.0,)
        # Without a prior in its velocity a flow is nothing but its network.
        trusts = TRUSTS if flow.parametrisation.uses_law else (1.0,)
        energies, cosines = {}, {}
        for start, trust in product(starts, trusts):
            if start < 1 or trust == 1:  # a cell that is left as it was moved never meets the network
                energies[start, trust], cosines[start, trust] = self.scores(flow, start=start, trust=trust)
        best = min(energies, key=lambda choice: energies[choice].mean())
        as_good = [choice for choice in energies if _not_above(energies[choice], energies[best])]
        start, trust = max(as_good, key=lambda choice: cosines[choice])
        return {"start": start, "trust": trust}

    def scores(self, flow: ConditionalFlow, **changes: Any) -> tuple[NDArray[np.float64], float]:
        """Energy distances (draws * conditions,), and the mean cosine of log fold changes over conditions."""
        pairs = list(self.predictions(flow, n_draws=N_DRAWS, **changes))
        cosines = [
            cosine_of_log_fold_changes(
                np.concatenate([cells for _, cells in pairs[i :: len(self)]]), condition.real, condition.controls
            )
            for i, condition in enumerate(self.conditions)
        ]
        return _energies(pairs, N_DRAWS), float(np.mean(cosines))

    def guidance_curve(
        self, flow: ConditionalFlow, weights: Sequence[float] = GUIDANCES
    ) -> tuple[float, dict[str, NDArray[np.float64]]]:
        """Choose the weight of guidance, and trace what it trades.

        The lowest mean energy distance wins, unless a smaller weight is within one standard error of it.

        Returns
        -------
        The chosen weight; and by name, for every weight (w,): ``weight``, ``energy_distance`` and ``recall`` (of the 50
        most changed genes), means over conditions, with the standard error of each, ``..._se``.
        """
        energies, recalls = {}, {}
        for weight in weights:
            pairs = list(self.predictions(flow, guidance=weight))
            energies[weight] = _energies(pairs, 1)
            recalls[weight] = np.array(
                [recall_of_top_genes(cells, condition.real, condition.controls) for condition, cells in pairs]
            )
        curve = {"weight": np.array(weights, dtype=np.float64)}
        for name, scores in (("energy_distance", energies), ("recall", recalls)):
            curve[name] = np.array([scores[weight].mean() for weight in weights])
            curve[f"{name}_se"] = np.array([_standard_error(scores[weight]) for weight in weights])
        best = min(weights, key=lambda weight: energies[weight].mean())
        chosen = next(weight for weight in sorted(weights) if _not_above(energies[weight], energies[best]))
        return chosen, curve


def _energies(pairs: Sequence[tuple[_Condition, NDArray[np.float32]]], n_draws: int) -> NDArray[np.float64]:
    """Energy distance of every prediction, the next draw of its condition being the independent one if there is one."""
    if n_draws == 1:
        return np.array([condition.energy(cells) for condition, cells in pairs])
    n = len(pairs) // n_draws
    following = [*pairs[n:], *pairs[:n]]
    return np.array(
        [condition.energy(cells, again) for (condition, cells), (_, again) in zip(pairs, following, strict=True)]
    )


def _not_above(scores: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    """Whether paired scores are not told apart from the best ones: within one standard error."""
    difference = scores - best
    return bool(difference.mean() <= _standard_error(difference))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _draw(cells: CellData | Screen, rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float32]:
    """At most ``MAX_CELLS`` of some cells, dense."""
    if len(rows) > MAX_CELLS:
        rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
    x: Any = cells.x[rows]
    return x.toarray() if sparse.issparse(x) else np.asarray(x)
