"""Scores of the predictions of one condition, with what concerns its real cells alone computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow.evaluation._tables import mean_of_known
from perturbflow.metrics import Metric
from perturbflow.metrics._clouds import Cloud, CloudScores, energy_distance_of
from perturbflow.metrics._moments import Moments, Panel
from perturbflow.metrics._samples import Comparison, Pair, Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.evaluation._scores import InOrder

N_HALVINGS = 5
N_HALVINGS_DIFFERENTIAL = 2  # tests of every gene cost more than all the rest


@dataclass(frozen=True)
class Controls:
    """Control cells of a context, and a test against them that is prepared once, where a metric asks for it."""

    sample: Sample
    test: Callable[[NDArray[np.floating]], Any] | None = None


@dataclass(frozen=True)
class Judged:
    """Scores of one model at one condition; for halves of the real cells there are several pairs, and no cloud."""

    values: dict[str, float]  # of every metric that needs no other condition
    pairs: Sequence[tuple[Moments, Moments]]  # of predicted and real cells
    cloud: CloudScores | None = None  # with energy scores of the real cells
    # Numbers of significant genes and energy distances to the controls, each predicted and real.
    strengths: tuple[tuple[float, float], tuple[float, float]] = ((np.nan, np.nan), (np.nan, np.nan))
    components: Sequence[
        tuple[NDArray[np.float64], NDArray[np.float64]]
    ] = ()  # predicted and real cells, where asked for
    adjusted: Sequence[NDArray[np.float64] | None] = ()  # p-values of predicted cells (G,), where genes are tested


class Judge:
    """Scores predictions of one condition, by the metrics that need no other condition."""

    def __init__(self, real: Sample, controls: Controls, metrics: Sequence[Metric]) -> None:
        self.real, self.controls = real, controls
        self._wanted = metrics
        self._metrics = [metric for metric in metrics if metric.scope == "condition"]
        needs = needs_of(metrics)
        self._test = controls.test if "tests" in needs else None
        self._keeps_components = "components" in needs_of(metric for metric in metrics if metric.scope == "panel")
        self._measures_strength = "strengths" in needs
        self.cloud = Cloud(real) if "cloud" in needs else None
        self.test = None if self._test is None else self._test(real.cells)
        self._strength = self._strength_of(real)
        self._known: dict[tuple[Sample, Sample | None], Judged] = {}

    def judge(self, x: Sample, again: Sample | None = None, *, rng: np.random.Generator) -> Judged:
        """Score a prediction, or two from the same controls; the same as before has the scores that it had.

        Tests of genes are made with at most as many predicted cells as there are real ones, drawn at random: with
        more cells, more genes are significant, and that says nothing of a model.
        """
        if (x, again) not in self._known:
            self._known[x, again] = self._judged(x, again, rng)
        known = self._known[x, again]
        return replace(known, values=dict(known.values))

    def _judged(self, x: Sample, again: Sample | None, rng: np.random.Generator) -> Judged:
        predicted = x.moments if again is None else Moments.pooled(x.moments, again.moments)
        cloud = None if self.cloud is None else self.cloud.scores(x, again)
        test = None
        if self._test is not None:
            n_cells = len(self.real)
            test = self._test(x.cells if len(x) <= n_cells else x.cells[np.sort(rng.choice(len(x), n_cells, False))])
        comparison = Comparison(
            (predicted, self.real.moments, self.controls.sample.moments),
            control=self.controls.sample.cells,
            pairs=[Pair(draw, self.real) for draw in dict.fromkeys((x, again or x))],
            tests=None if test is None or self.test is None else (test, self.test),
            cloud=cloud,
        )
        values = {metric.name: metric.value(comparison) for metric in self._metrics}
        strengths = (_significant(test, self.test), (self._strength_of(x), self._strength))
        components: Sequence[Any] = [(x.components, self.real.components)] if self._keeps_components else []
        adjusted = [None if test is None else test.adjusted]
        return Judged(values, [(predicted, self.real.moments)], cloud, strengths, components, adjusted)

    def _strength_of(self, cells: Sample) -> float:
        return energy_distance_of(cells, self.controls.sample) if self._measures_strength else float("nan")

    def judge_halves(self, rng: np.random.Generator) -> Judged:
        """Score random halves of the real cells against each other: the ceiling."""
        judged = []
        for k in range(N_HALVINGS):
            order = rng.permutation(len(self.real))
            half, other = (self.real.part(np.sort(rows)) for rows in np.split(order, [len(self.real) // 2]))
            few = k < N_HALVINGS_DIFFERENTIAL
            metrics = [one for one in self._wanted if few or "tests" not in one.needs]
            metrics = [one for one in metrics if k == 0 or "strengths" not in one.needs]  # one value for all conditions
            judged.append(Judge(other, self.controls, metrics).judge(half, rng=rng))
        names = [metric.name for metric in self._metrics]
        values = {name: [one.values[name] for one in judged if name in one.values] for name in names}
        return Judged(
            {name: mean_of_known(each) for name, each in values.items()},
            [one.pairs[0] for one in judged],
            strengths=judged[0].strengths,
            components=[pair for one in judged for pair in one.components],
            adjusted=[one.adjusted[0] for one in judged],
        )


def needs_of(metrics: Iterable[Metric]) -> frozenset[str]:
    """Return all that some metrics need."""
    return frozenset().union(*(metric.needs for metric in metrics))


def _significant(*tests: Any) -> tuple[float, float]:
    first, second = (np.nan if test is None else float(test.significant().sum()) for test in tests)
    return first, second


def with_panels(
    judged: Sequence[Mapping[str, Judged]],
    metrics: Sequence[Metric],
    controls: Controls,
    targets: NDArray[np.bool_],
    in_order: InOrder,
) -> None:
    """Add the metrics that compare conditions of a block with each other, in place, to the scores by model and condition."""
    wanted = [metric for metric in metrics if metric.scope == "panel"]
    groups: dict[tuple[int, ...], list[list[Judged]]] = {}
    places: dict[tuple[int, ...], list[int]] = {}
    for model in dict.fromkeys(name for one in judged for name in one) if wanted else ():
        here = [place for place, one in enumerate(judged) if model in one]
        members = [judged[place][model] for place in here]
        same = tuple(id(one.pairs) for one in members)  # models that predict the same everywhere
        groups.setdefault(same, []).append(members)
        places[same] = here

    tasks = [(same, k) for same, (members, *_) in groups.items() for k in range(len(members[0].pairs))]

    def values_of(task: tuple[tuple[int, ...], int]) -> dict[str, NDArray[np.float64]]:
        same, k = task
        return _panel_values(groups[same][0], k, wanted, controls.sample.moments, targets[places[same]])

    found: dict[tuple[int, ...], list[dict[str, NDArray[np.float64]]]] = {same: [] for same in groups}
    for (same, _), values in zip(tasks, in_order(values_of, tasks), strict=True):
        found[same].append(values)
    for same, models in groups.items():
        for metric in wanted:
            rows = [values[metric.name] for values in found[same] if metric.name in values]
            for members in models:
                for column, one in enumerate(members):
                    one.values[metric.name] = mean_of_known([float(row[column]) for row in rows])


def _panel_values(
    members: Sequence[Judged], k: int, metrics: Sequence[Metric], control: Moments, targets: NDArray[np.bool_]
) -> dict[str, NDArray[np.float64]]:
    """Values of one model, or of one of the halvings, at its conditions; some have no components."""
    predicted, observed = zip(*(one.pairs[k] for one in members), strict=True)
    has_components = all(len(one.components) > k for one in members)
    components = tuple(zip(*(one.components[k] for one in members), strict=True)) if has_components else ()
    panel = Panel(predicted, observed, control, targets, components)
    wanted = [metric for metric in metrics if has_components or "components" not in metric.needs]
    return {metric.name: metric.value(panel) for metric in wanted}


def interpolated(ceilings: Sequence[Judged], metrics: Sequence[Metric], controls: Controls) -> list[Judged | None]:
    """Score the interpolated duplicate of Miller et al. (2025) at every condition of a block: a second positive control.

    Every halving of the real cells gives one: the mean of the first half where a gene is significant in it, that of all
    perturbed cells elsewhere. The mean of a half alone carries its sampling noise in every gene, and for weak effects loses
    to the mean of all perturbations. It is a mean and no cells. None where genes were not tested.
    """
    wanted = [metric for metric in metrics if metric.scope == "condition" and metric.needs == {"moments"}]
    tested = range(max((len(one.adjusted) for one in ceilings), default=0))
    everything = [np.mean([one.pairs[k][0].mean for one in ceilings if len(one.pairs) > k], axis=0) for k in tested]
    found: list[Judged | None] = []
    for one in ceilings:
        pairs = []
        for k, adjusted in enumerate(one.adjusted):
            if adjusted is None:
                continue
            half, rest = one.pairs[k]
            p_value = np.nan_to_num(adjusted, nan=1.0)
            mean = (1.0 - p_value) * half.mean + p_value * everything[k]
            pairs.append((Moments(half.n_cells, mean, half.variance), rest))
        values = {
            metric.name: mean_of_known([metric.value(Comparison((x, y, controls.sample.moments))) for x, y in pairs])
            for metric in wanted
        }
        found.append(Judged(values, pairs) if pairs else None)
    return found
