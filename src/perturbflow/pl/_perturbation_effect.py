"""Predicted against observed effect of every gene."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from perturbflow.baselines import BASELINES
from perturbflow.evaluation._baselines import fitted_baselines, sums_of
from perturbflow.pl._drawing import DARK, GREY, SOURCES, colors_of, drawing, label_points, legend_above
from perturbflow.pl._predictions import mean, of_prediction, read_comparison
from perturbflow.pl._shown_and_saved import plot
from perturbflow.screen._feature_table import read_feature_table
from perturbflow.screen._splits import read_split

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

    from perturbflow.pl._predictions import Comparison


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
    covariates
        Values of covariates, by key, to which the cells are restricted.
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
    if comparison.is_observed:
        reference, drawn = "observed", {"predicted": colors["predicted"]}
        if baseline is not None:
            drawn["baseline"] = GREY
    elif baseline is not None:
        reference, drawn = "baseline", {"predicted": colors["predicted"]}
    else:
        msg = (
            f"Expected real cells of {comparison.label!r} to compare with, found none. "
            f"Pass a `baseline` from {list(BASELINES)} to draw the prediction against it."
        )
        raise ValueError(msg)

    names = {"observed": "observed", "predicted": "predicted", "baseline": str(baseline)}
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
            is_model = name == "predicted"
            ax.scatter(
                x,
                y,
                s=14 if is_model else 12,
                color=color,
                alpha=0.85 if is_model else 0.55,
                linewidths=0,
                label=label,
                zorder=3 if is_model else 2,
            )
        unit = "mean change, log1p expression"
        ax.set(
            xlim=limits,
            ylim=limits,
            aspect="equal",
            xlabel=f"{names[reference]} effect ({unit})"
            if comparison.is_observed
            else f"{names[reference].removesuffix(' effect')} effect ({unit})",
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
            f"Expected {comparison.label!r} among the registered perturbations to predict it with {baseline!r}, found "
            "that these cells do not know it. Pass `baseline=None`."
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
