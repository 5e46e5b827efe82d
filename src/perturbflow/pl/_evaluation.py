"""Scores of the flow beside baselines, floor and ceiling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, overload

import numpy as np
import pandas as pd

from perturbflow._checks import check_one_of
from perturbflow.evaluation._leaderboard import BOUNDS, is_own, models_in, read_table, splits_of
from perturbflow.evaluation._tables import CEILING, FLOOR
from perturbflow.metrics import METRICS
from perturbflow.pl._drawing import DARK, check_split, colors_of, drawing, finish, metric_name, model_colors, new_panels
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_MANY = 20  # models; rows of more are lower


@overload
def evaluation(
    adata: AnnData | MuData,
    *,
    key: str = ...,
    metric: str = ...,
    split: None = ...,
    modality: str | None = ...,
    ax: None = ...,
    show: bool | None = ...,
    save: bool | str | None = ...,
) -> NDArray[np.object_]: ...


@overload
def evaluation(
    adata: AnnData | MuData,
    *,
    key: str = ...,
    metric: str = ...,
    split: str,
    modality: str | None = ...,
    ax: Axes | None = ...,
    show: bool | None = ...,
    save: bool | str | None = ...,
) -> Axes: ...


@plot
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
    adata
        Cells with an evaluation (:func:`perturbflow.tl.evaluate`).
    key
        The table in ``adata.uns``. ``adata.uns["<key>_colors"]`` may have colours of models: by name, or a list in the
        order of the table.
    metric
        The metric to draw.
    split
        Draw this split only; by default one panel for every split.
    ax
        Axes to draw on, with ``split`` only.

    Returns
    -------
    The Axes if ``split`` is given, otherwise an array with the Axes of every split, also if there is but one.

    Raises
    ------
    KeyError
        If there is no evaluation, with the call that makes it.
    ValueError
        If metric or split are not in the table, or ``ax`` is given without ``split``.

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
    if split is not None:
        with drawing(ax, figsize=(5.2, height)) as ax:
            _draw_split(ax, table, split, metric=metric, models=models, colors=colors, fractions=fractions)
        return ax
    axes = new_panels(len(splits), figsize=(1.6 + 3.3 * len(splits), height))
    for panel, each in zip(axes, splits, strict=True):
        _draw_split(panel, table, each, metric=metric, models=models, colors=colors, fractions=fractions)
    for panel in axes[1:]:
        panel.tick_params(labelleft=False)
    return axes


def _draw_split(
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
    ax.set(
        yticks=range(len(models)),
        yticklabels=[BOUNDS.get(model, model) for model in models],
        ylim=(len(models) - 0.4, -0.8),
        xlabel=f"{metric_name(metric)} ({arrow})",
    )
    for tick, model in zip(ax.get_yticklabels(), models, strict=True):
        if is_own(model):
            tick.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
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
    return {
        (split, model): value for split, model, value in zip(rows["split"], rows["model"], rows["mean"], strict=True)
    }
