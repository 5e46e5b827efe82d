"""Ranks of models under every metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage
from scipy.spatial.distance import squareform

from perturbflow.evaluation._leaderboard import (
    BOUNDS,
    POSITIVE_CONTROLS,
    Leaderboard,
    by_mean_rank,
    is_own,
    metrics_in,
    models_in,
    read_table,
    splits_of,
)
from perturbflow.pl._drawing import (
    DARK,
    PALETTE,
    check_split,
    colors_of,
    finish,
    metric_name,
    model_colors,
    of_evaluation,
    panels,
    plot,
)

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_MARKERS = "osD^vP"
_GREYS = ("#8A8A8A", "#ABABAB", "#C6C6C6")
_REST = "#6E6E6E"  # models that are no baselines but not among the best


@plot
@of_evaluation
def metric_ranks(
    adata: AnnData | MuData,
    *,
    key: str = "evaluation",
    split: str | None = None,
    metrics: str | Sequence[str] | None = None,
    models: Sequence[str] | None = None,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes | NDArray[np.object_]:
    """Rank of every model under each metric, where lines that cross are metrics that disagree.

    A line is a model: coloured, or grey for a baseline, 1 is the best; of many models the six with the best mean ranks
    are coloured. Metrics that rank alike stand next to each other.
    On the right models are in the order of their mean rank, which is given there; the title gives the mean over pairs
    of metrics of the correlation between their ranks (1: all rank alike, 0: they have nothing in common). Models of
    equal means share a rank; the ceiling and other positive controls have none.

    Parameters
    ----------
    key
        The evaluation in ``adata.uns``. ``adata.uns["<key>_colors"]`` may have colours of models: by name, or a list in
        the order of the table.
    metrics
        Metrics to draw, or the name of a suite of ``perturbflow.metrics.SUITES``; all by default.
    models
        Models to rank, among each other; all by default.

    Raises
    ------
    KeyError
        If there is no evaluation, with the call that makes it.
    ValueError
        If a split, metric or model is not in the table, there are fewer than two models to rank, or ``ax`` is given
        without ``split``.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.evaluate(adata, key=None, metrics=["energy_distance", "cosine_of_mean_effects"], progress_bar=False)
    >>> ax = pf.pl.metric_ranks(adata, split="test")
    >>> ax.get_ylabel()
    'rank (1 is best)'
    """
    table = read_table(adata, key)
    splits = check_split(splits_of(table, None), split, ax)
    shown = metrics_in(table, metrics)
    ranked = [model for model in models_in(table, models) if model not in POSITIVE_CONTROLS]
    if len(ranked) < 2:
        msg = f"Expected at least two models to rank, found {ranked}."
        raise ValueError(msg)
    boards = {each: Leaderboard.of(table, each, shown, ranked) for each in splits}
    names = by_mean_rank(list(boards.values()))
    known = models_in(table, None)
    best = [model for model in names if is_own(model)][: len(PALETTE)]
    is_many = sum(map(is_own, known)) > len(PALETTE)
    default = dict(zip(best, PALETTE, strict=False)) if is_many else model_colors(known, is_own)
    groups = ([model for model in names if is_own(model)], [model for model in names if not is_own(model)])
    greys = {model: _GREYS[place % len(_GREYS)] for place, model in enumerate(groups[1])}
    colors = colors_of(adata, key, known, dict.fromkeys(known, _REST) | default | greys)
    markers = {model: _MARKERS[place % len(_MARKERS)] for group in groups for place, model in enumerate(group)}
    width, height = 3.0 + 0.32 * (len(shown) + 1), 1.9 + 0.24 * len(ranked)
    axes = panels(len(splits), ax, figsize=(width * len(splits), height))
    for panel, each in zip(axes, splits, strict=True):
        _draw(panel, each, boards[each], colors, markers, bold=best)
    return axes if split is None else axes[0]


def _draw(
    ax: Axes,
    split: str,
    board: Leaderboard,
    colors: Mapping[str, str],
    markers: Mapping[str, str],
    *,
    bold: Sequence[str],
) -> None:
    ranks = board.ranks()
    known = ~np.isnan(ranks).all(axis=0)
    metrics = np.array(board.metrics)[known]
    ranks = ranks[:, known]
    agreement: NDArray[np.float64] = pd.DataFrame(ranks).corr(min_periods=2).to_numpy()
    order = _alike(agreement)
    ranks, metrics = ranks[:, order], metrics[order]
    models = pd.DataFrame(ranks, index=board.models).mean(axis=1).dropna().sort_values(kind="stable").index
    last = len(metrics) + 0.4
    for place, model in enumerate(models, start=1):
        row = ranks[board.models.index(model)]
        line, size, layer = (2.2, 6.0, 4) if model in bold else (1.0, 3.8, 3 if is_own(model) else 2)
        style: dict[str, Any] = {"color": colors[model], "marker": markers[model], "markersize": size, "zorder": layer}
        ax.plot(np.arange(len(metrics)), row, linewidth=line, markeredgecolor="white", markeredgewidth=0.5, **style)
        if not np.isnan(row[-1]):
            ax.plot([len(metrics) - 1, last], [row[-1], place], linewidth=line / 2, linestyle=":", color=colors[model])
        ax.plot([last], [place], linestyle="", markeredgecolor="white", markeredgewidth=0.5, **style)
        ax.annotate(
            f"{BOUNDS.get(model, model)}  {np.nanmean(row):.1f}",
            (last, place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold" if is_own(model) else "normal",
            color=DARK,
            annotation_clip=False,
        )
    ax.set_xticks(
        [*range(len(metrics)), last],
        [*map(metric_name, metrics), "mean rank"],
        rotation=45,
        ha="right",
        rotation_mode="anchor",
        fontsize=8,
    )
    ax.get_xticklabels()[-1].set_fontweight("bold")
    ax.set(xlim=(-0.4, last + 0.1), ylim=(len(models) + 0.5, 0.5), ylabel="rank (1 is best)")
    ax.set_yticks(range(1, len(models) + 1))
    ax.tick_params(length=0, labelsize=8)
    n = int(board.n_conditions.max(initial=0))
    finish(ax, f"{split}: {n:,} condition{'s' * (n != 1)}{_said(agreement)}")
    ax.spines["bottom"].set_visible(False)


def _alike(correlations: NDArray[np.float64]) -> NDArray[np.intp]:
    """Order of metrics in which similar ones are neighbours: leaves of the tree of average linkage."""
    if len(correlations) < 3:
        return np.arange(len(correlations))
    distances = 1.0 - np.nan_to_num(correlations)
    np.fill_diagonal(distances, 0.0)
    condensed = squareform(distances, checks=False)
    return np.asarray(leaves_list(linkage(condensed, "average", optimal_ordering=True)), dtype=np.intp)


def _said(correlations: NDArray[np.float64]) -> str:
    pairs = correlations[np.tril_indices(len(correlations), -1)]
    pairs = pairs[~np.isnan(pairs)]
    return f"\nmean rank correlation {pairs.mean():.2f}".replace("-", "−") if len(pairs) else ""
