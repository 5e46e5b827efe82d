"""Scores of the predictions of one condition, with what concerns its real cells alone computed once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from perturbflow._evaluation._conditions import draw
from perturbflow.metrics import METRICS, Metric
from perturbflow.metrics._calibrated_scale import interpolated_duplicate
from perturbflow.metrics._clouds import Cloud, CloudScores
from perturbflow.metrics._moments import Moments
from perturbflow.metrics._panel import Panel

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLOUD_METRICS = ("energy_distance", "mmd", "energy_loss")  # from one pass over the pairs
RANKS_IN_COMPONENTS = {"rank_of_cosine_in_components", "rank_of_energy_in_components"}
IN_COMPONENTS = RANKS_IN_COMPONENTS | {name for name, metric in METRICS.items() if metric.kind == "components"}
CELLS_OF_RANKS = 100
STRENGTH = "pearson_of_energy_distances"
N_HALVINGS = 5
N_HALVINGS_DIFFERENTIAL = 2  # tests of every gene cost more than all the rest


@dataclass(frozen=True)
class Controls:
    """Control cells of a context, and what is computed from them once.

    Parameters
    ----------
    cells
        The cells (c, G).
    test
        Tests all genes of some cells against them; None where no metric asks for it.
    components
        Maps cells to principal components (n, K); None where no metric asks for it.
    """

    cells: NDArray[np.float32]
    test: Callable[[NDArray[np.float32]], Any] | None = None
    components: Callable[[Any], NDArray[np.float64]] | None = None

    @cached_property
    def cloud(self) -> Cloud:
        """For distances to them."""
        return Cloud(self.cells)

    @cached_property
    def moments(self) -> Moments:
        """Their moments."""
        return Moments.of(self.cells, name="control")


@dataclass(frozen=True)
class Judged:
    """Scores of one model at one condition.

    Attributes
    ----------
    values
        Value of every metric that needs no other condition.
    pairs
        Moments of predicted and real cells, for metrics that do; several for halves of the real cells.
    cloud
        Energy scores of the real cells; None for halves.
    strengths
        Numbers of significant genes and energy distances to the controls, each predicted and real; NaN where no metric
        asks for them.
    components
        Predicted and real cells in principal components, for metrics that compare conditions there.
    adjusted
        Adjusted p-values of the predicted cells (G,), where genes are tested.
    """

    values: dict[str, float]
    pairs: Sequence[tuple[Moments, Moments]]
    cloud: CloudScores | None = None
    strengths: tuple[tuple[float, float], tuple[float, float]] = ((np.nan, np.nan), (np.nan, np.nan))
    components: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]] = ()
    adjusted: Sequence[NDArray[np.float64] | None] = ()


class Judge:
    """Scores predictions of one condition.

    Parameters
    ----------
    real
        Real cells (m, G).
    controls
        The controls of the context.
    metrics
        What to compute; those that need other conditions are passed over.
    """

    def __init__(self, real: NDArray[np.float32], controls: Controls, metrics: Sequence[Metric]) -> None:
        self.real, self.controls = real, controls
        self._wanted = metrics
        self._metrics = [metric for metric in metrics if metric.kind not in {"panel", "screen"}]
        kinds = {metric.kind for metric in metrics}
        self._test = controls.test if kinds & {"differential", "screen"} else None
        names = {metric.name for metric in metrics}
        self._project = controls.components if names & IN_COMPONENTS else None
        self._keeps_components = bool(names & RANKS_IN_COMPONENTS)
        self._measures_strength = STRENGTH in names
        self.moments = Moments.of(real, name="real")
        self.cloud = Cloud(real) if any(metric.name in CLOUD_METRICS for metric in self._metrics) else None
        self.test = None if self._test is None else self._test(real)
        self._in_components = None if self._project is None else self._project(real)
        self._strength = controls.cloud.scores(real).energy_distance if self._measures_strength else np.nan

    def judge(
        self, x: NDArray[np.float32], again: NDArray[np.float32] | None = None, *, rng: np.random.Generator
    ) -> Judged:
        """Score a prediction (n, G), or two from the same controls.

        Tests of genes are made with at most as many predicted cells as there are real ones, drawn at random: with
        more cells, more genes are significant, and that says nothing of a model.
        """
        draws = [x] if again is None else [x, again]
        parts = [Moments.of(draw, name="predicted") for draw in draws]
        predicted = Moments.pooled(*parts) if len(parts) > 1 else parts[0]
        cloud = None if self.cloud is None else self.cloud.scores(x, again)
        test = None
        if self._test is not None:
            thin = x if len(x) <= len(self.real) else x[np.sort(rng.choice(len(x), len(self.real), replace=False))]
            test = self._test(thin)
        components = [] if self._project is None else [self._project(draw) for draw in draws]
        values = {}
        for metric in self._metrics:
            if cloud is not None and metric.name in CLOUD_METRICS:
                values[metric.name] = float(getattr(cloud, metric.name))
            elif metric.kind == "effect":
                values[metric.name] = float(metric.function(predicted, self.moments, self.controls.moments))
            elif metric.kind == "differential":
                values[metric.name] = float(metric.function(test, self.test))
            elif metric.kind == "components":
                values[metric.name] = float(
                    np.mean([metric.function(draw, self._in_components) for draw in components])
                )
            else:
                values[metric.name] = float(np.mean([metric.function(draw, self.real) for draw in draws]))
        strength = np.nan
        if self._measures_strength:
            strength = self.controls.cloud.scores(x).energy_distance
        return Judged(
            values,
            [(predicted, self.moments)],
            cloud,
            (_significant(test, self.test), (strength, self._strength)),
            [(components[0], self._in_components)]
            if self._keeps_components and self._in_components is not None
            else (),
            [None if test is None else test.adjusted],
        )

    def _for_ranks(
        self, components: Sequence[NDArray[np.float64]], rng: np.random.Generator
    ) -> Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Some predicted and real cells in principal components: ranks compare all pairs of conditions."""
        if not self._keeps_components or self._in_components is None:
            return ()
        pair = (components[0], self._in_components)
        first, second = (cells[draw(np.arange(len(cells)), CELLS_OF_RANKS, rng)] for cells in pair)
        return [(first, second)]

    def judge_halves(self, rng: np.random.Generator) -> Judged:
        """Score random halves of the real cells against each other: the ceiling."""
        judged = []
        for k in range(N_HALVINGS):
            order = rng.permutation(len(self.real))
            half, other = order[: len(self.real) // 2], order[len(self.real) // 2 :]
            few = k < N_HALVINGS_DIFFERENTIAL
            metrics = [one for one in self._wanted if few or one.kind not in {"differential", "screen"}]
            judge = Judge(self.real[np.sort(other)], self.controls, metrics)
            judged.append(judge.judge(self.real[np.sort(half)], rng=rng))
        names = [metric.name for metric in self._metrics]
        values = {name: [one.values[name] for one in judged if name in one.values] for name in names}
        return Judged(
            {name: _mean(each) for name, each in values.items()},
            [one.pairs[0] for one in judged],
            strengths=judged[0].strengths,
            components=[pair for one in judged for pair in one.components],
            adjusted=[one.adjusted[0] for one in judged],
        )


def _significant(*tests: Any) -> tuple[float, float]:
    first, second = (np.nan if test is None else float(test.significant().sum()) for test in tests)
    return first, second


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def with_panels(
    judged: Sequence[Mapping[str, Judged]], metrics: Sequence[Metric], controls: Controls, targets: NDArray[np.bool_]
) -> None:
    """Add the metrics that compare conditions of a block with each other, in place.

    Parameters
    ----------
    judged
        Scores by model, a mapping for each condition of the block.
    metrics
        What to compute; those of other kinds are passed over.
    controls
        The controls of the block.
    targets
        Genes that the perturbation of each condition acts on itself (P, G).
    """
    wanted = [metric for metric in metrics if metric.kind == "panel"]
    for model in dict.fromkeys(name for one in judged for name in one) if wanted else ():
        places = [place for place, one in enumerate(judged) if model in one]
        members = [judged[place][model] for place in places]
        values: dict[str, list[NDArray[np.float64]]] = {metric.name: [] for metric in wanted}
        for k in range(len(members[0].pairs)):
            predicted, observed = zip(*(one.pairs[k] for one in members), strict=True)
            has_components = all(len(one.components) > k for one in members)
            components = tuple(zip(*(one.components[k] for one in members), strict=True)) if has_components else ()
            panel = Panel(predicted, observed, controls.moments, targets[places], components)
            for metric in wanted:
                if has_components or metric.name not in RANKS_IN_COMPONENTS:
                    values[metric.name].append(metric.function(panel))
        for name, found in values.items():
            for column, one in enumerate(members):
                one.values[name] = _mean([float(row[column]) for row in found])


def interpolated(ceilings: Sequence[Judged], metrics: Sequence[Metric], controls: Controls) -> list[Judged | None]:
    """Score the interpolated duplicate of Miller et al. (2025) at every condition of a block: a second positive control.

    Every halving of the real cells gives one: the mean of the first half where a gene is significant in it, that of all
    perturbed cells elsewhere. It is a mean and no cells.

    Parameters
    ----------
    ceilings
        Halves of every condition.
    metrics
        What to compute; of them those of means, without those that compare conditions.
    controls
        The controls of the block.

    Returns
    -------
    Scores with the pairs for further metrics, or None where genes were not tested.
    """
    wanted = [metric for metric in metrics if metric.kind == "effect"]
    found: list[Judged | None] = []
    for one in ceilings:
        pairs = []
        for k, adjusted in enumerate(one.adjusted):
            if adjusted is None:
                continue
            everything = np.mean([other.pairs[k][0].mean for other in ceilings if len(other.pairs) > k], axis=0)
            half, rest = one.pairs[k]
            mean = interpolated_duplicate(half.mean, everything, adjusted)
            pairs.append((Moments(half.n_cells, mean, half.variance), rest))
        values = {
            metric.name: _mean([float(metric.function(x, y, controls.moments)) for x, y in pairs]) for metric in wanted
        }
        found.append(Judged(values, pairs) if pairs else None)
    return found
