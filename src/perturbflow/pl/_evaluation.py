"""Condition by condition: scores of models beside baselines and bounds, and verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from perturbflow._checks import check_none, check_one_of
from perturbflow.evaluation._leaderboard import BOUNDS, is_own, models_in, read_table, splits_of
from perturbflow.evaluation._tables import BASELINE_BETTER, CEILING, FLOOR, MODEL_BETTER, NOT_MEASURABLE, TIE
from perturbflow.metrics import METRICS
from perturbflow.pl._drawing import (
    BLUE,
    DARK,
    GREY,
    ORANGE,
    VERMILLION,
    check_split,
    colors_of,
    finish,
    labels_of_rows,
    metric_name,
    model_colors,
    name_rows,
    of_evaluation,
    panels,
    plot,
    points_of_kind,
)

if TYPE_CHECKING:
    from mudata import MuData

_MANY = 20  # models; rows of more are lower
_STYLES = {
    MODEL_BETTER: (BLUE, "o"),
    TIE: (ORANGE, "D"),
    BASELINE_BETTER: (VERMILLION, "s"),
    NOT_MEASURABLE: (GREY, "X"),
}
_MOST_LABELS = 60
_NOT_LABELS = {
    *("split", "model", "best_baseline", "difference", "lower", "upper", "p_value", "n_cells", "n_cells_needed"),
    *("verdict", "finding", "worse_than_controls", "worse_than_prior"),
}


@plot
@of_evaluation
def evaluation(
    adata: AnnData | MuData,
    *,
    key: str = "evaluation",
    metric: str = "energy_distance",
    split: str | None = None,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes | NDArray[np.object_]:
    """Scores of every condition, for models, baselines and the two bounds.

    A small point is a condition, the diamond the mean over conditions and the line through it the standard deviation.
    Vertical lines mark the means of the floor (control cells) and of the ceiling (halves of the real cells); the band
    between them is the range that a prediction can cover. For the energy distance, the share of it that is covered
    stands on the right (the dynamic-range fraction). Models that are no baselines are coloured and come first, then
    baselines, both from the best mean to the worst.

    Parameters
    ----------
    key
        The table in ``adata.uns``. ``adata.uns["<key>_colors"]`` may have colours of models: by name, or a list in the
        order of the table.
    metric
        The metric to draw.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.evaluate(adata, key=None, metrics=["energy_distance", "cosine_of_mean_effects"], progress_bar=False)
    >>> ax = pf.pl.evaluation(adata, split="test")
    >>> ax.get_xlabel()
    'energy distance (lower is better)'
    """
    summary = read_table(adata, key)
    table = read_table(adata, key, "scores")
    check_one_of(metric, set(table["metric"]), name="metric")
    table = table[table["metric"] == metric]
    splits = check_split(splits_of(table, None), split, ax)

    models = _ordered(table)
    names = models_in(table, None)
    colors = colors_of(adata, key, names, model_colors(names, is_own))
    fractions = _fractions(summary) if metric == "energy_distance" else {}
    height = 1.0 + (0.36 if len(models) <= _MANY else 0.24) * len(models)
    axes = panels(len(splits), ax, figsize=(1.8 + 3.3 * len(splits), height))
    for panel, each in zip(axes, splits, strict=True):
        _draw_scores(panel, table, each, metric=metric, models=models, colors=colors, fractions=fractions)
    for panel in axes[1:]:
        panel.tick_params(labelleft=False)
    return axes if split is None else axes[0]


def _draw_scores(
    ax: Axes,
    table: pd.DataFrame,
    split: str,
    *,
    metric: str,
    models: Sequence[str],
    colors: Mapping[str, str],
    fractions: Mapping[tuple[str, str], float],
) -> None:
    part = table[table["split"] == split]
    values = {model: part.loc[part["model"] == model, "value"].dropna().to_numpy() for model in models}
    rng = np.random.default_rng(0)  # of the jitter
    bounds = [values[bound].mean() for bound in (FLOOR, CEILING) if bound in values and len(values[bound])]
    if len(bounds) == 2:
        ax.axvspan(*sorted(bounds), color="#F1F1F1", linewidth=0, zorder=0)
    for bound in bounds:
        ax.axvline(bound, color="#777777", linewidth=0.9, linestyle=(0, (4, 2)), zorder=1)
    for place, model in enumerate(models):
        scores = values[model]
        if not len(scores):
            continue
        highlighted = is_own(model)
        jitter = rng.uniform(-0.2, 0.2, len(scores))
        ax.scatter(scores, place + jitter, s=11, color=colors[model], alpha=0.55, linewidths=0, zorder=2)
        spread = scores.std(ddof=1) if len(scores) > 1 else 0.0
        ax.errorbar(
            scores.mean(),
            place,
            xerr=spread,
            fmt="D",
            color=colors[model] if highlighted else DARK,
            markersize=7 if highlighted else 5,
            markeredgecolor="white",
            markeredgewidth=0.8,
            elinewidth=1.4 if highlighted else 1.0,
            zorder=4,
        )
        if (split, model) in fractions:
            ax.annotate(
                f"{fractions[split, model]:.2f}".replace("nan", "–"),
                (1.02, place),
                xycoords=("axes fraction", "data"),
                va="center",
                fontsize="small",
                fontweight="bold" if highlighted else "normal",
                color=DARK,
            )
    if any(each == split for each, _ in fractions):
        ax.annotate(
            "dynamic\nrange",
            (1.02, 1.0),
            xycoords="axes fraction",
            va="bottom",
            linespacing=1.0,
            fontsize="small",
            color="#555555",
        )
    arrow = "higher is better" if METRICS[metric].higher_is_better else "lower is better"
    n_conditions = len(part.drop(columns=["model", "metric", "value", "n_cells"]).drop_duplicates())
    ax.set_xlabel(f"{metric_name(metric)} ({arrow})")
    name_rows(ax, [BOUNDS.get(model, model) for model in models], fontsize="medium")
    for tick, model in zip(ax.get_yticklabels(), models, strict=True):
        if is_own(model):
            tick.set_fontweight("bold")
    finish(ax, f"{split}: {n_conditions:,} condition{'s' * (n_conditions != 1)}")


def _ordered(table: pd.DataFrame) -> list[str]:
    """Models, then baselines, both from best to worst, then floor and ceiling."""
    means = table.groupby("model", observed=True)["value"].mean()
    sign = -1 if METRICS[table["metric"].iloc[0]].higher_is_better else 1
    ranked = sorted(
        models_in(table, None), key=lambda model: (not is_own(model), means.isna()[model], sign * means[model])
    )
    return [*(model for model in ranked if model not in BOUNDS), *(bound for bound in BOUNDS if bound in ranked)]


def _fractions(summary: pd.DataFrame) -> dict[tuple[str, str], float]:
    rows = summary[summary["metric"] == "dynamic_range_fraction"]
    return dict(zip(zip(rows["split"], rows["model"], strict=True), rows["mean"], strict=True))


@plot
@of_evaluation
def verdicts(
    adata: AnnData | MuData,
    *,
    key: str = "evaluation",
    split: str | None = None,
    model: str | None = None,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes | NDArray[np.object_]:
    """Difference of the energy distances of a model and of the best baseline, for every condition.

    Left of 0 the model is better. Lines are the intervals (95 %), colours the verdicts, whose numbers the legend gives,
    with how often no effect at all, the control cells, is better than the model: a condition whose real cells cannot be
    told from the controls says nothing about models. Names, perturbation and context, are written where no split has more
    than 60 conditions.

    Parameters
    ----------
    model
        The model; by default the first in the table, which is the flow if there is one.

    Raises
    ------
    KeyError
        If there is no evaluation, with the call that makes it.
    ValueError
        If there are no verdicts or those of an earlier version, split or model have none, or ``ax`` is given without ``split``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> pf.tl.evaluate(adata, metrics=["energy_distance"], splits=["test"], n_permutations=20, progress_bar=False)
    >>> ax = pf.pl.verdicts(adata, split="test")
    >>> len(ax.get_yticks()) == len(adata.uns["evaluation_verdicts"])
    True
    """
    table = read_table(adata, key, "verdicts")
    if table.empty:
        msg = "Expected verdicts, found an evaluation without. Evaluate a model other than a baseline with `n_permutations` > 0."
        raise ValueError(msg)
    unknown, hint = sorted(set(table["verdict"].astype(str)) - set(_STYLES)), "Run `pf.tl.evaluate` again."
    check_none(unknown, f"the verdicts {list(_STYLES)}", which=" from an earlier version", hint=hint)
    models = list(dict.fromkeys(map(str, table["model"])))
    model = models[0] if model is None else model
    check_one_of(model, models, name="model")
    table = table[table["model"] == model]
    splits = check_split(splits_of(table, None), split, ax)
    sizes = [int((table["split"] == each).sum()) for each in splits]
    has_names = max(sizes) <= _MOST_LABELS
    height = 2.1 + (0.17 * max(sizes) if has_names else 0.04 * min(max(sizes), 150))
    longest = max(map(len, _conditions(table[table["split"].isin(splits)])))
    width = 3.6 + (0.055 * longest if has_names else 0.0)
    axes = panels(len(splits), ax, figsize=(width * len(splits), height))
    for panel, each in zip(axes, splits, strict=True):
        _draw_verdicts(panel, table, each, model, has_names=has_names)
    return axes if split is None else axes[0]


def _draw_verdicts(ax: Axes, table: pd.DataFrame, split: str, model: str, *, has_names: bool) -> None:
    part = table[table["split"] == split].sort_values("difference", kind="stable", na_position="last")
    found = part["verdict"].astype(str).to_numpy()
    ax.axvline(0.0, color=DARK, linewidth=0.8, linestyle=(0, (4, 2)), zorder=1)
    for verdict, (color, marker) in _STYLES.items():
        rows = np.flatnonzero(found == verdict)
        is_loss = part["finding"].iloc[rows].astype(str).str.contains(f"no effect ({FLOOR})", regex=False)
        losses = f"; no effect ({FLOOR}) in {n}" if verdict == BASELINE_BETTER and (n := int(is_loss.sum())) else ""
        style: dict[str, Any] = {"color": color, "marker": marker, "linewidths": 0, "s": 22 if has_names else 9}
        columns, width = ("difference", "lower", "upper"), 1.2 if has_names else 0.7
        points_of_kind(ax, part, columns, rows, linewidth=width, label=f"{len(rows)} {verdict}{losses}", **style)
    name_rows(ax, _conditions(part), fontsize=7)
    if not has_names:
        ax.set(yticks=[], ylabel=f"{len(part)} conditions")
    ax.set_xlabel(f"energy distance,\n{model} minus best baseline\n(below 0: the model is better)")
    ax.legend(
        loc="lower left", bbox_to_anchor=(0.0, 1.0), frameon=False, fontsize=8, handletextpad=0.2, borderaxespad=0.2
    )
    finish(ax, "")
    ax.set_title(f"{split}: {model}", loc="left", fontsize="medium", pad=62)


def _conditions(part: pd.DataFrame) -> list[str]:
    """Names of conditions: perturbation and context."""
    return labels_of_rows(part, [name for name in part.columns if name not in _NOT_LABELS])
