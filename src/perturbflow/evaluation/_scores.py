"""Scores of every model at every condition, a condition at a time."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd
from joblib import effective_n_jobs
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from perturbflow._progress import progress_bar
from perturbflow.evaluation._conditions import Cells, Condition, dense, draw, generator
from perturbflow.evaluation._judge import Controls, Judge, Judged, interpolated, needs_of, with_panels
from perturbflow.evaluation._metrics import with_base
from perturbflow.evaluation._predictors import MIN_CELLS, Predictor, Recognition, Samples
from perturbflow.evaluation._tables import CEILING, DUPLICATE, FLOOR, verdict_rows
from perturbflow.metrics import METRICS, Metric
from perturbflow.metrics._clouds import energy_test_of
from perturbflow.metrics._principal_components import PrincipalComponents
from perturbflow.metrics._samples import Sample, Space, distances_together
from perturbflow.metrics._wilcoxon import WilcoxonAgainst
from perturbflow.predict._torch_state import gpu_of

N_COMPONENTS = 100
MOST_CELLS_OF_COMPONENTS = 10_000


@dataclass(frozen=True)
class Settings:
    """Settings of the judgement of conditions: what is computed, of how many cells, with how many draws."""

    metrics: tuple[str, ...]
    n_cells: int | None
    seed: int
    n_resamples: int = 1
    n_permutations: int = 0
    progress_bar: bool = False
    n_jobs: int = 1
    log_base: float | None = None
    device: str | None = None

    @property
    def wanted(self) -> list[Metric]:
        """The metrics."""
        return [with_base(METRICS[name], self.log_base) for name in self.metrics]


@dataclass(frozen=True)
class Results:
    """Scores, verdicts, how strong conditions are by split and model (P, 2, 2), and predictions that were missing."""

    scores: pd.DataFrame
    verdicts: pd.DataFrame
    strengths: Mapping[str, Mapping[str, NDArray[np.float64]]]
    missing: list[dict[str, Any]]


def score_all(
    cells: Cells,
    conditions: Sequence[Condition],
    predictors: Mapping[str, Predictor],
    *,
    baselines: Sequence[str],
    settings: Settings,
    targets: NDArray[np.bool_],
) -> Results:
    """Score every predictor and the ceiling on every condition.

    Cells of one condition and profiles of one block are in memory at a time.
    """
    needs = needs_of(settings.wanted)
    components = _components(cells, conditions, settings) if "components" in needs else None
    device = gpu_of(settings.device)
    rows: list[dict[str, Any]] = []
    verdicts: list[dict[str, Any]] = []
    missing: list[dict[str, Any]] = []
    strengths: list[tuple[str, Mapping[str, Judged]]] = []
    bar = progress_bar("evaluate", unit="condition", total=len(conditions), show=settings.progress_bar)
    with bar as progress, jobs(settings.n_jobs) as in_order:
        for (_, context), block in groupby(conditions, key=lambda condition: condition.block):
            members = list(block)
            chosen = draw(members[0].control_rows, settings.n_cells, generator(settings.seed, context))
            control_cells = dense(cells, chosen)
            controls = Controls(
                Sample(control_cells, Space(control_cells.mean(axis=0, dtype=np.float64), components, device)),
                WilcoxonAgainst(control_cells, base=settings.log_base) if "tests" in needs else None,
            )
            if "strengths" in needs:
                controls.sample.mean_distance  # noqa: B018 (once, before several threads ask for it)
            judged: list[dict[str, Judged]] = []
            sizes: list[int] = []
            tasks = _tasks(cells, members, controls.sample, predictors, settings)
            judge = partial(_judge, controls=controls, baselines=baselines, settings=settings)
            for condition, (one, size, said) in zip(members, in_order(judge, tasks), strict=True):
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
                sizes.append(size)
                verdicts += said
                progress.update()

            duplicates = interpolated([one[CEILING] for one in judged], settings.wanted, controls)
            for one, duplicate in zip(judged, duplicates, strict=True):
                if duplicate is not None:
                    one[DUPLICATE] = duplicate
            masks = np.stack([targets[condition.perturbation > 0].any(axis=0) for condition in members])
            with_panels(judged, settings.wanted, controls, masks, in_order)
            strengths += [(condition.labels["split"], one) for condition, one in zip(members, judged, strict=True)]
            rows += [
                {**condition.labels, "model": model, "metric": name, "value": scored.values[name], "n_cells": size}
                for condition, one, size in zip(members, judged, sizes, strict=True)
                for model, scored in one.items()
                for name in settings.metrics
                if name in scored.values
            ]
    return Results(pd.DataFrame(rows), pd.DataFrame(verdicts), _by_split(strengths), missing)


def _by_split(found: Sequence[tuple[str, Mapping[str, Judged]]]) -> dict[str, dict[str, NDArray[np.float64]]]:
    """Strengths (P, 2, 2) by split and model; NaN where a condition has no prediction."""
    absent = np.full((2, 2), np.nan)
    strengths: dict[str, dict[str, NDArray[np.float64]]] = {}
    for split in dict.fromkeys(split for split, _ in found):
        judged = [one for name, one in found if name == split]
        strengths[split] = {
            model: np.array([one[model].strengths if model in one else absent for one in judged])
            for model in dict.fromkeys(name for one in judged for name in one)
        }
    return strengths


@dataclass(frozen=True)
class _Task:
    """Real and predicted cells of one condition."""

    condition: Condition
    real: Sample
    predicted: dict[str, Samples]


def _tasks(
    cells: Cells,
    conditions: Sequence[Condition],
    controls: Sample,
    predictors: Mapping[str, Predictor],
    settings: Settings,
) -> Iterator[_Task]:
    """Predict one condition of a block after the other."""
    recognition = Recognition(controls)
    for condition in conditions:
        place = sorted(condition.labels.items())
        real = dense(cells, draw(condition.rows, settings.n_cells, generator(settings.seed, place)))
        draws = {
            name: predictor.predict(condition, controls.cells, rng=generator(settings.seed, place))
            for name, predictor in predictors.items()
        }
        predicted = recognition.samples({name: one for name, one in draws.items() if one is not None})
        yield _Task(condition, Sample(real, controls.space), predicted)


def _judge(
    task: _Task, *, controls: Controls, baselines: Sequence[str], settings: Settings
) -> tuple[dict[str, Judged], int, list[dict[str, Any]]]:
    """Scores by model, the number of real cells, and verdicts."""
    place = sorted(task.condition.labels.items())
    judge = Judge(task.real, controls, settings.wanted)
    judged = {name: judge.judge(*draws, rng=generator(settings.seed, place)) for name, draws in task.predicted.items()}
    # Every condition has halves of its own, which do not depend on what else is judged.
    judged[CEILING] = judge.judge_halves(generator(settings.seed, place))
    return judged, len(task.real), _verdicts(task, judged, controls.sample, baselines, settings)


def _components(cells: Cells, conditions: Sequence[Condition], settings: Settings) -> PrincipalComponents:
    """Principal components of the real cells that are judged and their controls."""
    rows = np.unique(np.concatenate([np.concatenate([one.rows, one.control_rows]) for one in conditions]))
    some = draw(rows, MOST_CELLS_OF_COMPONENTS, generator(settings.seed, "components"))
    n_components = min(N_COMPONENTS, cells.n_genes, len(some) - 1)
    return PrincipalComponents.of(cells.subset(some).x, n_components=n_components)


def _verdicts(
    task: _Task, judged: Mapping[str, Judged], controls: Sample, baselines: Sequence[str], settings: Settings
) -> list[dict[str, Any]]:
    scores = {name: one.cloud for name, one in judged.items() if one.cloud is not None}
    labels, real = task.condition.labels, task.real
    if settings.n_permutations == 0 or FLOOR not in scores:
        return []
    rng = generator(settings.seed, ("verdict", sorted(labels.items())))
    # As many controls as real cells are enough to see an effect, and keep the matrix of distances small.
    some = controls.part(draw(np.arange(len(controls)), len(real), rng))
    distances = distances_together(some, real)
    test = energy_test_of(distances, len(some), n_permutations=settings.n_permutations, rng=rng)
    return verdict_rows(
        labels,
        scores,
        baselines=baselines,
        p_value=test.p_value,
        cells_needed=test.cells_needed(len(real)),
        n_resamples=settings.n_resamples,
        rng=rng,
    )


InOrder = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]
"""Maps a function over tasks; results come in the order of the tasks."""


@contextmanager
def jobs(n_jobs: int) -> Iterator[InOrder]:
    """Threads, each with one core for its products of matrices.

    Tasks are made one after another by the thread that asks for results, and only a few more than there are jobs are
    waiting: what is random or needs memory belongs there.
    """
    n_threads = effective_n_jobs(n_jobs)
    if n_threads == 1:
        yield map
        return

    def in_order(function: Callable[[Any], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        waiting: deque[Future[Any]] = deque()
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) > n_threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(n_threads) as pool:
        yield in_order
