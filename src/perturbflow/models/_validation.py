"""Held-out conditions, and what is chosen on them."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from scipy import sparse

from perturbflow.metrics import recall_of_top_genes
from perturbflow.metrics._energy import energy_distance_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, ConditionalFlow

Choice = TypeVar("Choice")

MAX_CONDITIONS = 16
MAX_CELLS = 128
MIN_CELLS = 5
STARTS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
TRUSTS = (0.0, 0.5, 1.0)
GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0)
N_DRAWS = 3


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
        """Every condition with its predicted cells, ``n_draws`` times."""
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

        The lowest mean energy distance wins, unless a later start (more of the control cell), or the whole network at
        the same start, is within one standard error of the paired difference: what validation cannot tell apart is
        left as it was trained, close to the real cell (the one-standard-error rule of Breiman et al. 1984).

        Returns
        -------
        The chosen ``start`` and ``trust``.
        """
        starts = STARTS if flow.config.source == "control" else (0.0,)
        # Without a prior in its velocity a flow is nothing but its network.
        trusts = TRUSTS if flow.parametrisation.uses_law else (1.0,)
        pairs = [(start, trust) for start, trust in product(starts, trusts) if start < 1 or trust == 1]
        scores = {
            (start, trust): self.energies(flow, start=start, trust=trust, n_draws=N_DRAWS) for start, trust in pairs
        }
        start, trust = _one_standard_error(scores, sorted(scores, reverse=True))
        return {"start": start, "trust": trust}

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
            pairs = list(self.predictions(flow, n_draws=N_DRAWS, guidance=weight))
            energies[weight] = _energies(pairs, N_DRAWS)
            recalls[weight] = np.array(
                [recall_of_top_genes(cells, condition.real, condition.controls) for condition, cells in pairs]
            )
        curve = {"weight": np.array(weights, dtype=np.float64)}
        for name, scores in (("energy_distance", energies), ("recall", recalls)):
            curve[name] = np.array([scores[weight].mean() for weight in weights])
            # Draws of one condition are no independent conditions.
            by_condition = [scores[weight].reshape(N_DRAWS, -1).mean(axis=0) for weight in weights]
            curve[f"{name}_se"] = np.array([_standard_error(values) for values in by_condition])
        return _one_standard_error(energies, sorted(energies)), curve


def _energies(pairs: Sequence[tuple[_Condition, NDArray[np.float32]]], n_draws: int) -> NDArray[np.float64]:
    """Energy distance of every prediction, the next draw of its condition being the independent one if there is one."""
    if n_draws == 1:
        return np.array([condition.energy(cells) for condition, cells in pairs])
    n = len(pairs) // n_draws
    following = [*pairs[n:], *pairs[:n]]
    return np.array(
        [condition.energy(cells, again) for (condition, cells), (_, again) in zip(pairs, following, strict=True)]
    )


def _one_standard_error(scores: Mapping[Choice, NDArray[np.float64]], preferred: Sequence[Choice]) -> Choice:
    """First of the choices, in the order of preference, that is not told apart from the best one."""
    best = min(scores, key=lambda choice: scores[choice].mean())
    for choice in preferred:
        difference = scores[choice] - scores[best]
        if difference.mean() <= _standard_error(difference):
            return choice
    return best


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _draw(cells: CellData, rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float32]:
    """At most ``MAX_CELLS`` of some cells, dense."""
    if len(rows) > MAX_CELLS:
        rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
    x: Any = cells.x[rows]
    return x.toarray() if sparse.issparse(x) else np.asarray(x)
