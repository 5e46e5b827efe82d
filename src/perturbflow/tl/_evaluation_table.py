"""The tables behind :func:`perturbflow.tl.evaluate`: which conditions, their scores, and the summary."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from perturbflow.flow import CellData
from perturbflow.metrics import METRICS, pooled_dynamic_range_fraction, split_half
from perturbflow.metrics._cells import gene_means
from perturbflow.metrics._energy import energy_distance_to
from perturbflow.metrics._mmd import mmd_to

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow._conditions import Vocabulary

FLOOR = "control cells"
CEILING = "ceiling"
FRACTION = "dynamic_range_fraction"
N_HALVINGS = 5
N_PREDICTIONS = 2

# What a metric knows of the real cells is computed once for all models.
AGAINST: Mapping[str, Callable[..., Callable[..., float]]] = {"energy_distance": energy_distance_to, "mmd": mmd_to}


@dataclass(frozen=True)
class Condition:
    """One perturbation in one context and split, with the rows of its real cells and of the controls to start from."""

    labels: Mapping[str, str]
    perturbation: NDArray[np.float32]
    covariates: NDArray[np.int64]
    rows: NDArray[np.intp]
    control_rows: NDArray[np.intp]

    @property
    def block(self) -> tuple[str, tuple[int, ...]]:
        """Conditions that are ranked together: those of one split and context."""
        return self.labels["split"], tuple(self.covariates.tolist())


def conditions_of(
    cells: CellData,
    split: NDArray[np.str_],
    *,
    fitted: NDArray[np.intp],
    splits: Sequence[str],
    vocabulary: Vocabulary,
    has_doses: bool,
    min_cells: int,
) -> tuple[list[Condition], pd.DataFrame]:
    """List the conditions that have enough cells, block by block, and tabulate those that have not."""
    controls = {
        tuple(group.covariates.tolist()): rows for group, rows in _groups(cells, fitted) if not group.perturbation.any()
    }
    conditions, left_out = [], []
    for name in splits:
        for group, rows in _groups(cells, np.flatnonzero(split == name)):
            if not group.perturbation.any():
                continue
            context = {
                key: categories[code]
                for (key, categories), code in zip(vocabulary.covariates, group.covariates, strict=True)
            }
            labels = {"split": name, "perturbation": vocabulary.label(group.perturbation), **context}
            if has_doses:
                labels["dose"] = vocabulary.dose_label(group.perturbation)
            control_rows = controls.get(tuple(group.covariates.tolist()))
            if control_rows is None:
                msg = (
                    f"Expected control cells among the training cells of every context, found none for "
                    f"{context or 'the data'}. Mark its controls as training cells, or leave out covariates in "
                    "pf.pp.setup_perturbation."
                )
                raise ValueError(msg)
            if min(len(rows), len(control_rows)) < min_cells:
                reason = f"{len(rows)} real cells, {len(control_rows)} control cells"
                left_out.append(labels | {"reason": f"{reason}; `min_cells` is {min_cells}"})
            else:
                conditions.append(Condition(labels, group.perturbation, group.covariates, rows, control_rows))
    columns = ["split", "perturbation", *(key for key, _ in vocabulary.covariates), *(["dose"] if has_doses else [])]
    order = {name: place for place, name in enumerate(splits)}
    conditions.sort(key=lambda condition: (order[condition.block[0]], condition.block[1]))
    return conditions, pd.DataFrame(left_out, columns=[*columns, "reason"], dtype=object)


def scores_table(
    cells: CellData,
    conditions: Sequence[Condition],
    samplers: Mapping[str, Any],
    *,
    metrics: Sequence[str],
    n_cells: int | None,
    seed: int,
    progress_bar: bool,
) -> pd.DataFrame:
    """Score every sampler and the ceiling on every condition; one condition is in memory at a time."""
    from tqdm.auto import tqdm

    rows = []
    with tqdm(total=len(conditions), desc="evaluate", unit="condition", disable=not progress_bar) as progress:
        for (_, context), block in groupby(conditions, key=lambda condition: condition.block):
            members, scored = list(block), []
            controls = _dense(cells, _draw(members[0].control_rows, n_cells, _rng(seed, context)))
            for condition in members:
                scored.append(_score(cells, condition, controls, samplers, metrics=metrics, n_cells=n_cells, seed=seed))
                progress.update()
            for metric in (name for name in metrics if METRICS[name].kind == "rank"):
                _add_ranks(scored, metric)
            rows += [
                {**one.labels, "model": model, "metric": metric, "value": one.values[model, metric]}
                | {"n_cells": one.n_cells}
                for one in scored
                for model in one.means
                for metric in metrics
            ]
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class Scored:
    """Scores of one condition by model and metric; mean profiles of the real cells (G,) and of every model (G,).

    The ceiling has the profiles of halves, (halvings, 2, G).
    """

    labels: Mapping[str, str]
    n_cells: int
    values: dict[tuple[str, str], float]
    real_mean: NDArray[np.float64]
    means: dict[str, NDArray[np.float64]]


def _score(
    cells: CellData,
    condition: Condition,
    controls: NDArray[np.float32],
    samplers: Mapping[str, Any],
    *,
    metrics: Sequence[str],
    n_cells: int | None,
    seed: int,
) -> Scored:
    """Score every sampler and the ceiling on one condition, with all metrics but the ranks."""
    place = sorted(condition.labels.items())
    real = _dense(cells, _draw(condition.rows, n_cells, _rng(seed, place)))
    judge = Judge(real, controls, metrics)
    values: dict[tuple[str, str], float] = {}
    means = {}
    for model, sampler in samplers.items():
        rng = _rng(seed, place)
        draws = [
            sampler.sample(controls, condition.perturbation, condition.covariates, rng=rng)
            for _ in range(N_PREDICTIONS)
        ]
        for predicted in draws:
            _check_prediction(predicted, cells.n_genes, model=model, labels=condition.labels)
        values |= {(model, metric): value for metric, value in judge.scores(*draws)}
        means[model] = gene_means(np.concatenate(draws), name=model)
    # Every metric starts from the same state and so sees the same halves.
    values |= {(CEILING, metric): value for metric, value in judge.ceilings(lambda: _rng(seed, place))}
    means[CEILING] = _half_means(real, _rng(seed, place))
    return Scored(condition.labels, len(real), values, gene_means(real, name="real"), means)


def _add_ranks(scored: Sequence[Scored], metric: str) -> None:
    """Rank by the RMSE between mean profiles; the controls are the same for all conditions and cancel."""
    rank = METRICS[metric].function
    real = np.stack([one.real_mean for one in scored])
    for model in scored[0].means:
        means = np.stack([one.means[model] for one in scored])
        pairs = [(means[:, i, 0], means[:, i, 1]) for i in range(N_HALVINGS)] if model == CEILING else [(means, real)]
        ranks = np.mean([rank(_rmse_matrix(x, y), higher_is_better=False) for x, y in pairs], axis=0)
        for one, value in zip(scored, ranks.tolist(), strict=True):
            one.values[model, metric] = value


class Judge:
    """Scores predictions of one condition, with what concerns the real cells alone computed once.

    ``real`` is (m, G), ``controls`` (c, G).
    """

    def __init__(self, real: NDArray[np.float32], controls: NDArray[np.float32], metrics: Sequence[str]):
        self._real = real
        self._controls = controls
        self._metrics = [METRICS[name] for name in metrics if METRICS[name].kind != "rank"]
        self._against = {metric.name: AGAINST[metric.name](real) for metric in self._metrics if metric.name in AGAINST}

    def scores(self, predicted: NDArray[np.floating], again: NDArray[np.floating]) -> Iterator[tuple[str, float]]:
        """Every metric of two predictions (n, G) from the same control cells."""
        both = np.concatenate([predicted, again])
        for metric in self._metrics:
            if metric.name in self._against:
                yield metric.name, self._against[metric.name](predicted, again)
            elif metric.kind == "effect":
                yield metric.name, float(metric.function(both, self._real, self._controls))
            else:
                yield metric.name, float(np.mean([metric.function(cells, self._real) for cells in (predicted, again)]))

    def ceilings(self, new_rng: Callable[[], np.random.Generator]) -> Iterator[tuple[str, float]]:
        """Every metric between halves of the real cells."""
        for metric in self._metrics:
            function = metric.function
            if metric.kind == "effect":
                function = _with_controls(function, self._controls)
            yield metric.name, split_half(self._real, function, n_splits=N_HALVINGS, rng=new_rng())


def summary_table(table: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over conditions, and the pooled dynamic-range fraction of the energy distance."""
    by = ["split", "model", "metric"]
    groups = table.groupby(by, sort=False, observed=True)["value"]
    summary = groups.agg(mean="mean", sd="std", n_conditions="count").reset_index()

    fractions = []
    energies = table[table["metric"] == "energy_distance"]
    for split, part in energies.groupby("split", sort=False, observed=True):
        values = {model: each["value"].to_numpy() for model, each in part.groupby("model", sort=False, observed=True)}
        for model, scores in values.items():
            mean = pooled_dynamic_range_fraction(scores, values[FLOOR], values[CEILING])
            fractions.append(
                {"split": split, "model": model, "metric": FRACTION, "mean": mean, "sd": np.nan}
                | {"n_conditions": len(scores)}
            )
    return pd.concat([summary, pd.DataFrame(fractions)], ignore_index=True) if fractions else summary


def _groups(cells: CellData, rows: NDArray[np.intp]) -> Iterator[tuple[Any, NDArray[np.intp]]]:
    """Groups among some rows, each with its rows in ``cells``; no expression is copied."""
    bare = CellData(np.empty((len(rows), 0), dtype=np.float32), cells.perturbations[rows], cells.covariates[rows])
    for group in bare.groups():
        yield group, rows[group.rows]


def _rmse_matrix(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.stack([np.sqrt(np.mean((row - y) ** 2, axis=1)) for row in x])


def _half_means(real: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float64]:
    """Mean profiles of the halves (halvings, 2, G)."""
    half = len(real) // 2
    orders = [rng.permutation(len(real)) for _ in range(N_HALVINGS)]
    return np.stack([[gene_means(real[rows], name="real") for rows in (o[:half], o[half:])] for o in orders])


def _with_controls(function: Callable[..., float], controls: NDArray[np.float32]) -> Callable[[Any, Any], float]:
    return lambda x, y: function(x, y, controls)


def _draw(rows: NDArray[np.intp], n_cells: int | None, rng: np.random.Generator) -> NDArray[np.intp]:
    if n_cells is None or len(rows) <= n_cells:
        return rows
    return np.sort(rng.choice(rows, n_cells, replace=False))


def _rng(seed: int, place: object) -> np.random.Generator:
    """A generator of one place, so that its numbers do not depend on which other places are judged."""
    return np.random.default_rng([seed, zlib.crc32(repr(place).encode())])


def _dense(cells: CellData, rows: NDArray[np.intp]) -> NDArray[np.float32]:
    members = cells.x[rows]
    return members if isinstance(members, np.ndarray) else members.toarray()


def _check_prediction(predicted: Any, n_genes: int, *, model: str, labels: Mapping[str, str]) -> None:
    shape = np.shape(predicted)
    if len(shape) != 2 or shape[0] < 2 or shape[1] != n_genes:
        msg = f"Expected {model!r} to return at least 2 cells of {n_genes} genes for {dict(labels)}, found {shape}."
        raise ValueError(msg)
    if not np.isfinite(predicted).all():
        msg = f"Expected {model!r} to return finite values, found NaN or infinity for {dict(labels)}."
        raise ValueError(msg)
