"""What is chosen on held-out conditions after training, and the values that a flow may predict."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.flow import GeneSupport, zero_thresholds
from perturbflow.metrics import cosine_of_log_fold_changes, energy_in_programs, recall_of_top_genes
from perturbflow.metrics._energy import energy_distance_to
from perturbflow.screen._expression import dense

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from perturbflow.flow import CellData, ConditionalFlow, FlowConfig, Grouping
    from perturbflow.flow._data import Expression
    from perturbflow.screen._screen import Screen

MAX_CONDITIONS = 12
MAX_CELLS = 100
MIN_CELLS = 5
ENTRY_TIMES = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0)
_HALF_SCALE = 0.5
GUIDANCES = (1.0, 1.5, 2.0, 3.0, 5.0)
N_DRAWS = 2
# The unbiased energy distance of one prediction asks for cells that do not depend on each other.
_INDEPENDENT: dict[str, Any] = {"stratified": False}


_MOST_CONDITIONS = 16
_MOST_CELLS = 500
_N_PREDICTED = 100


@dataclass(frozen=True, eq=False)
class _Condition:
    controls: NDArray[np.float32]
    perturbation: NDArray[np.float32]
    covariates: NDArray[np.int64]
    real: NDArray[np.float32]
    energy: Callable[..., float]


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of predictions of held-out conditions."""

    first: NDArray[np.float64]  # energy distance of every condition in the first draw (conditions,), about unbiased
    energies: NDArray[np.float64]  # mean energy distance over draws (conditions,)
    cosine: float  # mean cosine of log fold changes over conditions
    programs: NDArray[np.float64]  # energy distance in the space of the response, mean over draws (conditions,)


class HeldOutConditions:
    """Conditions that no training cell is from, for early stopping and choices, always under the same noise."""

    def __init__(self, training: CellData | Screen, held_out: CellData | Screen, *, seed: int) -> None:
        self.seed = seed
        groups = training.grouping()
        controls = _controls_of(groups)
        self.conditions = _conditions(training, controls, held_out, held_out.grouping(), np.random.default_rng(seed))
        # What the network was trained on, where it should be better than the prior if anywhere.
        self.seen = _conditions(training, controls, training, groups, np.random.default_rng([seed, 1]))

    def __len__(self) -> int:
        return len(self.conditions)

    def predictions(
        self,
        flow: ConditionalFlow,
        *,
        draws: Iterable[int] = (0,),
        conditions: Sequence[_Condition] | None = None,
        **changes: Any,
    ) -> Iterator[tuple[_Condition, NDArray[np.float32]]]:
        """Every condition with its predicted cells, once a draw, by a solver of few steps."""
        changes = _few_steps(flow) | changes
        for draw in draws:
            for condition in self.conditions if conditions is None else conditions:
                rng = np.random.default_rng([self.seed, draw])
                yield (
                    condition,
                    flow.sample(condition.controls, condition.perturbation, condition.covariates, rng=rng, **changes),
                )

    def energies(self, flow: ConditionalFlow, *, n_draws: int = 1, **changes: Any) -> NDArray[np.float64]:
        """Unbiased energy distance between predicted and real cells, mean over draws (conditions,)."""
        if n_draws == 1:
            changes = _INDEPENDENT | changes
        return _energies(list(self.predictions(flow, draws=range(n_draws), **changes)), n_draws)

    def score_of_whole_path(self, flow: ConditionalFlow) -> float:
        """Mean energy distance in training: entered late, the path would hardly depend on the network."""
        return float(self.energies(flow, entry_time=0.0, correction_scale=1.0).mean())

    def choose(self, flow: ConditionalFlow) -> dict[str, float]:
        """Choose how much of the control cell to keep, and how far to scale what the network adds.

        The network is used only where it helps: it has to predict better than the prior alone by more than one standard error,
        and no worse in training conditions or in the space of responses. Among choices within one standard error of the best
        (Breiman et al. 1984) the best cosine of log fold changes wins, which sees weakly expressed genes. What cannot win is
        not computed.
        """
        has_distribution = flow.parametrisation.uses_distribution
        if flow.config.source == "control":
            prior = (1.0, 1.0)  # a cell that is left as it was moved never meets the network
            choices = [(entry_time, 1.0) for entry_time in ENTRY_TIMES if entry_time < 1]
        elif has_distribution:
            prior, choices = (0.0, 0.0), [(0.0, 1.0)]
        else:  # from noise, and without a prior in its velocity, a flow is nothing but its network
            return {"entry_time": 0.0, "correction_scale": 1.0}
        alone = self.scores(flow, entry_time=prior[0], correction_scale=prior[1])
        assert alone is not None
        scores = {prior: alone}

        def judge(choices: Iterable[tuple[float, float]], limit: Scores) -> None:
            for choice in choices:
                found = self.scores(flow, limit=limit, entry_time=choice[0], correction_scale=choice[1])
                # The energy distance in the space of all genes hardly sees who responds and what rises together.
                keeps = found is not None and _not_above(found.programs, alone.programs)
                if found is not None and keeps and _is_below(found.energies, alone.energies):
                    scores[choice] = found

        judge(choices, alone)
        better = [choice for choice in scores if choice != prior]
        if has_distribution and better:
            judge([(entry_time, _HALF_SCALE) for entry_time, _ in better], scores[_lowest(scores)])
        entry_time, correction_scale = self._best(flow, scores, prior)
        return {"entry_time": entry_time, "correction_scale": correction_scale}

    def _best(
        self, flow: ConditionalFlow, scores: dict[tuple[float, float], Scores], prior: tuple[float, float]
    ) -> tuple[float, float]:
        """Choose among the prior and what is better, of which what predicts training conditions worse is left out."""
        scores, where_trained = dict(scores), cache(partial(self._where_trained, flow))
        while True:
            best = _lowest(scores)
            as_good = [choice for choice in scores if _not_above(scores[choice].energies, scores[best].energies)]
            chosen = max(as_good, key=lambda choice: scores[choice].cosine)
            for choice in {best, chosen} - {prior}:
                if not _not_above(where_trained(choice), where_trained(prior)):
                    del scores[choice]
            if {best, chosen} <= scores.keys():
                return chosen

    def _where_trained(self, flow: ConditionalFlow, choice: tuple[float, float]) -> NDArray[np.float64]:
        """Energy distance of training conditions (conditions,)."""
        draws = range(N_DRAWS)
        pairs = self.predictions(
            flow, draws=draws, conditions=self.seen, entry_time=choice[0], correction_scale=choice[1]
        )
        return _energies(list(pairs), N_DRAWS)

    def scores(self, flow: ConditionalFlow, *, limit: Scores | None = None, **changes: Any) -> Scores | None:
        """Return how well held-out conditions are predicted; None where the first draw is above the limit already."""
        pairs = list(self.predictions(flow, **changes))
        first = _energies(pairs, 1)
        if limit is not None and not _not_above(first, limit.first):
            return None
        pairs += self.predictions(flow, draws=range(1, N_DRAWS), **changes)
        cosines = [
            cosine_of_log_fold_changes(
                np.concatenate([cells for _, cells in pairs[i :: len(self)]]), condition.real, condition.controls
            )
            for i, condition in enumerate(self.conditions)
        ]
        values = [energy_in_programs(cells, condition.real, condition.controls) for condition, cells in pairs]
        programs = np.nan_to_num(np.reshape(values, (-1, len(self))).mean(axis=0))  # 0 where no gene responds
        return Scores(first, _energies(pairs, N_DRAWS), float(np.mean(cosines)), programs)

    def guidance_curve(
        self, flow: ConditionalFlow, weights: Sequence[float] = GUIDANCES
    ) -> tuple[float, dict[str, NDArray[np.float64]]]:
        """Choose the smallest weight of guidance within one standard error of the best; trace them all."""
        energies, recalls = {}, {}
        for weight in weights:
            pairs = list(self.predictions(flow, guidance=weight, **_INDEPENDENT))
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
    """Energy distance of every condition, mean over draws, of which the next one is the independent one."""
    if n_draws == 1:
        return np.array([condition.energy(cells) for condition, cells in pairs])
    n = len(pairs) // n_draws
    following = [*pairs[n:], *pairs[:n]]
    values = [condition.energy(cells, again) for (condition, cells), (_, again) in zip(pairs, following, strict=True)]
    return np.array(values).reshape(n_draws, n).mean(axis=0)


def _lowest(scores: Mapping[tuple[float, float], Scores]) -> tuple[float, float]:
    """Choice of the lowest mean energy distance."""
    return min(scores, key=lambda choice: scores[choice].energies.mean())


def _is_below(scores: NDArray[np.float64], reference: NDArray[np.float64]) -> bool:
    """Return whether paired scores are below others by more than a standard error; one score alone does not tell."""
    difference = reference - scores
    return len(difference) > 1 and bool(difference.mean() > _standard_error(difference))


def _not_above(scores: NDArray[np.float64], best: NDArray[np.float64]) -> bool:
    """Return whether paired scores are not told apart from the best ones: within one standard error."""
    difference = scores - best
    return bool(difference.mean() <= _standard_error(difference))


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0


def _conditions(
    training: CellData | Screen,
    controls: Mapping[tuple[int, ...], NDArray[np.intp]],
    cells: CellData | Screen,
    groups: Grouping,
    rng: np.random.Generator,
) -> list[_Condition]:
    """Some perturbed groups of enough cells in contexts of enough control cells."""
    n_controls = np.array([len(controls.get(tuple(codes.tolist()), ())) for codes in groups.covariates])
    usable = np.flatnonzero(~groups.is_control & (groups.n_cells >= MIN_CELLS) & (n_controls >= MIN_CELLS))
    if len(usable) > MAX_CONDITIONS:
        usable = usable[np.sort(rng.choice(len(usable), MAX_CONDITIONS, replace=False))]
    conditions = []
    for group in usable.tolist():
        real = _draw(cells, groups.rows(group), rng)
        covariates = groups.covariates[group]
        conditions.append(
            _Condition(
                controls=_draw(training, controls[tuple(covariates.tolist())], rng),
                perturbation=groups.doses[[group]].toarray()[0],
                covariates=covariates,
                real=real,
                energy=energy_distance_to(real),
            )
        )
    return conditions


def _controls_of(groups: Grouping) -> dict[tuple[int, ...], NDArray[np.intp]]:
    """Rows of the control cells of every context, by its codes."""
    return {tuple(groups.covariates[i].tolist()): groups.rows(int(i)) for i in np.flatnonzero(groups.is_control)}


def _few_steps(flow: ConditionalFlow) -> dict[str, Any]:
    """Settings of prediction where a solver would choose its steps: choices do not need its accuracy."""
    return {"method": "multistep"} if flow.config.solver_steps is None else {}


def _draw(cells: CellData | Screen, rows: NDArray[np.intp], rng: np.random.Generator) -> NDArray[np.float32]:
    """At most ``MAX_CELLS`` of some cells, dense."""
    if len(rows) > MAX_CELLS:
        rows = np.sort(rng.choice(rows, MAX_CELLS, replace=False))
    return dense(cells.x[rows])


def support_of(config: FlowConfig, chunks: Iterable[Expression], *, has_zeros: bool) -> GeneSupport:
    """Clipping of predictions before thresholds of zeros are known, from chunks of cells (n, G)."""
    support = GeneSupport.of(chunks)
    if has_zeros:
        return support
    if config.zeros == "none":  # then small values are what stands for zeros, and stay
        return replace(support, smallest=np.zeros_like(support.smallest))
    return support.rounded()


def learn_zeros(flow: ConditionalFlow, training: CellData | Screen, *, seed: int) -> None:
    """Give a trained flow the thresholds with which as many values are zero as in training cells."""
    if flow.parametrisation.has_zeros or flow.config.zeros != "learned":
        return
    rng, groups = np.random.default_rng([seed, 2]), training.grouping()
    controls = _controls_of(groups)
    size = min(_MOST_CONDITIONS, len(groups.n_cells))
    # With large conditions more often, as their cells are among all cells.
    drawn = rng.choice(len(groups.n_cells), size, replace=False, p=groups.n_cells / groups.n_cells.sum())
    support, predicted, expressed = flow.support, [], []
    # Values as they come.
    flow.support = GeneSupport.unknown(flow.config.n_genes)
    try:
        for group in np.sort(drawn).tolist():
            codes = groups.covariates[group]
            rows = groups.rows(group)
            start = dense(training.x[np.sort(rng.choice(controls[tuple(codes.tolist())], _N_PREDICTED))])
            real = dense(training.x[np.sort(rng.permutation(rows)[:_MOST_CELLS])])
            dose = groups.doses[[group]].toarray()[0]
            predicted.append(flow.sample(start, dose, codes, rng=rng, **_few_steps(flow)))
            expressed.append((real > 0).mean(axis=0))
    finally:
        flow.support = support
    flow.support = replace(support, zero_below=zero_thresholds(np.vstack(predicted), np.mean(expressed, axis=0)))
