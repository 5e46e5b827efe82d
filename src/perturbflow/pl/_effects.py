"""Effects of a perturbation: the mean change of every gene, and how far every cell responds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines import BASELINES
from perturbflow.evaluation._predictors import fitted_baselines, sums_of
from perturbflow.metrics._response import LEVEL, ResponseAxis, responding_share
from perturbflow.pl._drawing import (
    DARK,
    GREY,
    SOURCES,
    colors_of,
    drawing,
    finish,
    label_points,
    legend_above,
    legend_beside,
    plot,
)
from perturbflow.pl._predictions import Comparison, mean, of_prediction, read_comparison
from perturbflow.screen._fields import read_feature_table
from perturbflow.screen._splits import read_split

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

N_BINS = 40
OUTERMOST = 0.002  # share of the cells beyond either end of the axis, which are drawn in its last bins


@plot
@of_prediction
def perturbation_effect(
    adata: AnnData | MuData,
    perturbation: str,
    *,
    covariates: Mapping[str, str] | None = None,
    key: str = "predicted",
    baseline: str | None = "additive effect",
    split_key: str = "split",
    n_labels: int = 10,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw the predicted against the observed mean effect, one point per gene, with a baseline behind.

    The effect is the mean of the predicted or observed cells minus the mean of the controls of the same context,
    averaged over contexts. The legend gives Pearson's r and the RMSE over all genes. For a perturbation without real
    cells the prediction is drawn against the baseline, and the plot says so.

    Parameters
    ----------
    baseline
        Name in ``perturbflow.baselines.BASELINES`` of the baseline, or None. It is fitted on the cells that the
        flow was fitted on, without a split on all cells.
    split_key
        Column of ``adata.obs`` with the split.
    n_labels
        Name this many genes, those with the largest observed effects. Where there is no room, fewer.

    Raises
    ------
    KeyError
        If there is no prediction, with the call that makes it.
    ValueError
        If there are neither real cells nor a baseline to compare with.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> label = adata.uns["split"]["held_out"]["perturbation"].iloc[0]
    >>> pf.tl.predict_perturbation(adata, label)
    >>> ax = pf.pl.perturbation_effect(adata, label)
    >>> len(ax.collections[0].get_offsets()) == adata.n_vars
    True
    """
    comparison = read_comparison(adata, perturbation, covariates=covariates, key=key)
    colors = colors_of(adata, key, list(SOURCES), SOURCES)
    effects = comparison.mean_effects()
    if baseline is not None:
        effects["baseline"] = _baseline_effect(adata, comparison, baseline, split_key)
    if not comparison.is_observed and baseline is None:
        msg = (
            f"Expected real cells of {comparison.label!r} for the comparison, found none. "
            f"Pass a `baseline` from {list(BASELINES)} to compare the prediction with."
        )
        raise ValueError(msg)

    reference = "observed" if comparison.is_observed else "baseline"
    names = {"observed": "observed", "predicted": "predicted", "baseline": str(baseline)}
    shades = {"predicted": colors["predicted"], "baseline": GREY}
    drawn = {name: color for name, color in shades.items() if name in effects and name != reference}
    x = effects[reference]
    with drawing(ax, figsize=(4.2, 4.8)) as ax:
        everything = np.concatenate([x, *(effects[name] for name in drawn)])
        low, high = min(everything.min(), 0.0), max(everything.max(), 0.0)
        margin = 0.06 * (high - low or 1.0)
        limits = (low - margin, high + margin)
        for value in (ax.axhline, ax.axvline):
            value(0.0, color="#DDDDDD", linewidth=0.8, zorder=0)
        ax.plot(limits, limits, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=1, label="_identity")
        for name, color in drawn.items():
            y = effects[name]
            label = f"{names[name]}\nr = {_pearson(x, y):.2f}, RMSE = {np.sqrt(np.mean((x - y) ** 2)):.3f}"
            size, alpha, layer = (14, 0.85, 3) if name == "predicted" else (12, 0.55, 2)
            ax.scatter(x, y, s=size, color=color, alpha=alpha, linewidths=0, label=label, zorder=layer)
        unit = "mean change, log1p expression"
        ax.set(
            xlim=limits,
            ylim=limits,
            aspect="equal",
            xlabel=f"{names[reference].removesuffix(' effect')} effect ({unit})",
            ylabel=f"predicted effect ({unit})",
        )
        legend_above(ax, comparison.title(covariates), n_lines=2, handletextpad=0.2)
        top = np.argsort(-np.abs(x), kind="stable")[:n_labels]
        if n_labels:
            label_points(
                ax,
                x[top],
                effects["predicted"][top],
                comparison.genes[top].tolist(),
                others=np.concatenate([np.column_stack([x, effects[name]]) for name in drawn]),
            )
    return ax


def _baseline_effect(adata: AnnData, comparison: Comparison, baseline: str, split_key: str) -> NDArray[np.float64]:
    """Mean effect (G,) that a baseline predicts, averaged over the contexts."""
    if baseline not in BASELINES:
        msg = f"Expected `baseline` to be one of {list(BASELINES)} or None, found {baseline!r}."
        raise ValueError(msg)
    if comparison.perturbation is None:
        msg = (
            f"Expected {comparison.label!r} to be a registered perturbation, to predict it with {baseline!r}, found it "
            "unregistered. Pass `baseline=None`."
        )
        raise ValueError(msg)
    fitted = np.arange(len(comparison.cells))
    if split_key in adata.obs:
        fitted = np.flatnonzero(np.isin(read_split(adata, split_key), comparison.fitted_splits))
    training = sums_of(comparison.cells, fitted)
    sampler = fitted_baselines([baseline], training, features=read_feature_table(adata))[baseline]
    effects = []
    for codes, places in comparison.contexts():
        controls = comparison.controls(places["control"])
        shifted = sampler.sample(controls, comparison.perturbation, codes, rng=np.random.default_rng(0))
        effects.append(mean(shifted) - mean(controls))
    return np.mean(effects, axis=0)


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    x, y = x - x.mean(), y - y.mean()
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else float("nan")


@plot
@of_prediction
def responders(
    adata: AnnData | MuData,
    perturbation: str,
    *,
    covariates: Mapping[str, str] | None = None,
    level: float = LEVEL,
    key: str = "predicted",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw histograms of how far cells respond, between controls (0) and the mean of the real cells (1).

    Cells are scored along the direction of the real change or, without real cells of the perturbation, of the predicted
    one, from the mean of the controls of their context; see :func:`perturbflow.metrics.error_of_responders`. Two
    modes are responders and others; one broad mode is a graded response. The dashed line is the ``level`` quantile of the
    controls, and the legend has the share of cells beyond it, less the share of controls that is: the fraction of
    responders.

    Parameters
    ----------
    level
        Share of the controls that do not count as responding.

    Raises
    ------
    KeyError
        If there is no prediction, with the call that makes it.
    ValueError
        If there are fewer than two cells of a kind, no gene changes, or the level is not between 0 and 1.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_responders(fractions=(0.3, 0.6), n_controls=100, n_cells=100)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> pf.tl.predict_perturbation(adata, "P1")
    >>> ax = pf.pl.responders(adata, "P1")
    >>> [text.get_text().split(":")[0] for text in ax.get_legend().get_texts()]
    ['control', 'observed', 'predicted']
    """
    comparison = read_comparison(adata, perturbation, covariates=covariates, key=key)
    scores = _scores(comparison)
    fractions = {name: responding_share(values, scores["control"], level) for name, values in scores.items()}
    threshold = float(np.quantile(scores["control"], level))
    colors = colors_of(adata, key, list(SOURCES), SOURCES)
    low, high = np.quantile(np.concatenate(list(scores.values())), [OUTERMOST, 1 - OUTERMOST])
    bins = np.linspace(low, high, N_BINS + 1)
    with drawing(ax, figsize=(6.4, 3.2)) as ax:
        for name, values in scores.items():
            ax.hist(
                np.clip(values, low, high),
                bins=bins.tolist(),
                weights=np.full(len(values), 100 / len(values)),
                histtype="stepfilled",
                facecolor=(colors[name], 0.25),
                edgecolor=colors[name],
                linewidth=1.2,
                label=f"{name}: {100 * fractions[name]:.0f} % respond",
            )
        ax.axvline(threshold, color="black", linewidth=0.8, linestyle="--")
        ax.set(xlim=(low, high), xlabel="response (0: controls, 1: mean of the condition)", ylabel="cells (%)")
        finish(ax, comparison.title(covariates))
        legend_beside(ax)
    return ax


def _scores(comparison: Comparison) -> dict[str, NDArray[np.float64]]:
    """Scores of the cells of every source, from the mean of the controls of their context."""
    cells = comparison.changes()
    target = "observed" if comparison.is_observed else "predicted"
    few = [name for name in ("control", target) if len(cells[name]) < 2]
    if few:
        msg = f"Expected at least 2 {few[0]} cells to show a response, found {len(cells[few[0]])}. Add cells."
        raise ValueError(msg)
    axis = ResponseAxis.of(cells[target], cells["control"])
    if np.isnan(axis.origin):
        msg = (
            f"Expected genes that change between control and {target} cells of {comparison.label!r}, found none. "
            "Choose another perturbation."
        )
        raise ValueError(msg)
    return {name: axis.scores(values) for name, values in cells.items()}
