"""Scores of every model at every condition, a condition at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow._evaluation._conditions import Condition, dense, draw, generator
from perturbflow._evaluation._judge import IN_COMPONENTS, Controls, Judge, Judged, interpolated, with_panels
from perturbflow._evaluation._predictors import MIN_CELLS
from perturbflow._evaluation._tables import CEILING, DUPLICATE, FLOOR, verdict_rows
from perturbflow.metrics import METRICS, Metric
from perturbflow.metrics._energy_test import energy_test
from perturbflow.metrics._panel import Strengths
from perturbflow.metrics._principal_components import PrincipalComponents
from perturbflow.metrics._wilcoxon import WilcoxonAgainst

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow._evaluation._predictors import Predictor
    from perturbflow.flow import CellData


N_COMPONENTS = 100
MOST_CELLS_OF_COMPONENTS = 10_000


@dataclass(frozen=True)
class Settings:
    """How conditions are judged.

    Parameters
    ----------
    metrics
        Names of the metrics.
    n_cells
        Compare at most so many cells.
    n_resamples
        Bootstrap samples for the intervals of verdicts.
    n_permutations
        Permutations of the test that a condition differs from the controls.
    seed
        Of all draws.
    progress_bar
        Whether to show one.
    """

    metrics: tuple[str, ...]
    n_cells: int | None
    n_resamples: int
    n_permutations: int
    seed: int
    progress_bar: bool

    @property
    def wanted(self) -> list[Metric]:
        """The metrics."""
        return [METRICS[name] for name in self.metrics]


@dataclass(frozen=True)
class Results:
    """Scores, verdicts, values of metrics of a whole split, and predictions that were missing."""

    scores: pd.DataFrame
    verdicts: pd.DataFrame
    screens: pd.DataFrame
    missing: list[dict[str, Any]]


def score_all(
    cells: CellData,
    conditions: Sequence[Condition],
    predictors: Mapping[str, Predictor],
    *,
    baselines: Sequence[str],
    settings: Settings,
    targets: NDArray[np.bool_],
) -> Results:
    """Score every predictor and the ceiling on every condition.

    Parameters
    ----------
    cells
        Observed cells.
    conditions
        What to judge, in blocks.
    predictors
        Models by name.
    baselines
        Which of them are baselines.
    settings
        How.
    targets
        Genes that every perturbation component acts on itself (P, G), for metrics that leave them out.

    Returns
    -------
    The results. Cells of one condition and profiles of one block are in memory at a time.
    """
    from tqdm.auto import tqdm

    kinds = {metric.kind for metric in settings.wanted}
    components = _components(cells, conditions, settings) if IN_COMPONENTS & {*settings.metrics} else None
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    strengths: list[dict[str, Any]] = []
    with tqdm(total=len(conditions), desc="evaluate", unit="condition", disable=not settings.progress_bar) as progress:
        for (_, context), block in groupby(conditions, key=lambda condition: condition.block):
            members = list(block)
            chosen = draw(members[0].control_rows, settings.n_cells, generator(settings.seed, context))
            control_cells = dense(cells, chosen)
            controls = Controls(
                control_cells,
                WilcoxonAgainst(control_cells) if kinds & {"differential", "screen"} else None,
                components,
            )
            judged: list[dict[str, Judged]] = []
            sizes: list[int] = []
            for condition in members:
                one, judge = _judge(cells, condition, controls, predictors, settings)
                missing += [
                    {
                        "model": name,
                        "what": f"no prediction of at least {MIN_CELLS} cells",
                        "n": 1,
                        "which": str(dict(condition.labels)),
                    }
                    for name in predictors
                    if name not in one
                ]
                judged.append(one)
                sizes.append(len(judge.real))
                verdicts += _verdicts(condition, judge, one, baselines, settings)
                progress.update()

            duplicates = interpolated([one[CEILING] for one in judged], settings.wanted, controls)
            for one, duplicate in zip(judged, duplicates, strict=True):
                if duplicate is not None:
                    one[DUPLICATE] = duplicate
            masks = np.stack([targets[condition.perturbation > 0].any(axis=0) for condition in members])
            with_panels(judged, settings.wanted, controls, masks)
            strengths += [
                {"split": condition.labels["split"], "model": model, "strengths": scored.strengths}
                for condition, one in zip(members, judged, strict=True)
                for model, scored in one.items()
            ]
            rows += [
                {**condition.labels, "model": model, "metric": name, "value": scored.values[name], "n_cells": size}
                for condition, one, size in zip(members, judged, sizes, strict=True)
                for model, scored in one.items()
                for name in settings.metrics
                if name in scored.values
            ]
    return Results(pd.DataFrame(rows), pd.DataFrame(verdicts), _of_screens(strengths, settings), missing)


def _of_screens(strengths: Sequence[Mapping[str, Any]], settings: Settings) -> pd.DataFrame:
    """Metrics with one value for all conditions of a split: rows of ``split``, ``model``, ``metric``, ``value``."""
    rows = []
    wanted = [metric for metric in settings.wanted if metric.kind == "screen"]
    groups: dict[tuple[str, str], list[Any]] = {}
    for one in strengths if wanted else ():
        groups.setdefault((one["split"], one["model"]), []).append(one["strengths"])
    for (split, model), found in groups.items():
        values = np.array(found)  # condition, what is counted, predicted and real
        predicted, observed = (Strengths(values[:, 0, side], values[:, 1, side]) for side in range(2))
        for metric in wanted:
            value = float(metric.function(predicted, observed))
            rows.append({"split": split, "model": model, "metric": metric.name, "value": value, "n": len(values)})
    return pd.DataFrame(rows, columns=["split", "model", "metric", "value", "n"])


def _judge(
    cells: CellData,
    condition: Condition,
    controls: Controls,
    predictors: Mapping[str, Predictor],
    settings: Settings,
) -> tuple[dict[str, Judged], Judge]:
    place = sorted(condition.labels.items())
    real = dense(cells, draw(condition.rows, settings.n_cells, generator(settings.seed, place)))
    judge = Judge(real, controls, settings.wanted)
    judged = {}
    for name, predictor in predictors.items():
        draws = predictor.predict(condition, controls.cells, rng=generator(settings.seed, place))
        if draws is not None:
            judged[name] = judge.judge(*draws, rng=generator(settings.seed, place))
    # Every condition has halves of its own, which do not depend on what else is judged.
    judged[CEILING] = judge.judge_halves(generator(settings.seed, place))
    return judged, judge


def _components(
    cells: CellData, conditions: Sequence[Condition], settings: Settings
) -> Callable[[Any], NDArray[np.float64]]:
    """Principal components of the real cells that are judged and their controls."""
    rows = np.unique(np.concatenate([np.concatenate([one.rows, one.control_rows]) for one in conditions]))
    some = draw(rows, MOST_CELLS_OF_COMPONENTS, generator(settings.seed, "components"))
    n_components = min(N_COMPONENTS, cells.n_genes, len(some) - 1)
    return PrincipalComponents.of(cells.x[some], n_components=n_components).project


def _verdicts(
    condition: Condition, judge: Judge, judged: Mapping[str, Judged], baselines: Sequence[str], settings: Settings
) -> list[dict[str, Any]]:
    scores = {name: one.cloud for name, one in judged.items() if one.cloud is not None}
    if settings.n_permutations == 0 or FLOOR not in scores:
        return []
    rng = generator(settings.seed, ("verdict", sorted(condition.labels.items())))
    # As many controls as real cells are enough to see an effect, and keep the matrix of distances small.
    some = draw(np.arange(len(judge.controls.cells)), len(judge.real), rng)
    test = energy_test(judge.controls.cells[some], judge.real, n_permutations=settings.n_permutations, rng=rng)
    return verdict_rows(
        condition.labels,
        scores,
        baselines=baselines,
        p_value=test.p_value,
        cells_needed=test.cells_needed(len(judge.real)),
        n_resamples=settings.n_resamples,
        rng=rng,
    )
