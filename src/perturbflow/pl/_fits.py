"""What happened in a fit: training, the weight of guidance, the strength of sparsity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.ticker import MaxNLocator

from perturbflow.pl._drawing import (
    BLUE,
    DARK,
    GREEN,
    VERMILLION,
    drawing,
    finish,
    label_points,
    legend_above,
    of_fit,
    plot,
)
from perturbflow.pl._dynamics_results import read_result
from perturbflow.predict._fitted_flow import read_flow

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_MOST_TICKS = 8


@plot
@of_fit
def training(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Training loss and energy distance on held-out conditions over the steps of training.

    The loss is read on the left, the energy distance on the right, both on axes that begin at 0. The vertical line
    marks the step with the smallest energy distance, whose weights were kept. The title says so if predictions do not use
    these weights, because the network did not improve on its prior.

    Returns
    -------
    The Axes of the loss. With held-out conditions there is a second one on the same place.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> ax = pf.pl.training(adata)
    >>> ax.get_xlabel()
    'training step'
    """
    flow = read_flow(adata, key)
    history = {name: np.asarray(values) for name, values in flow.history.items()}
    if "loss" not in history:
        msg = f"Expected the history of a trained network in `adata.uns[{key!r}]`, found none: the flow is the prior alone. Fit with another preset."
        raise ValueError(msg)
    steps, energies = history.get("valid_step", np.empty(0)), history.get("valid_energy", np.empty(0))
    with drawing(ax, figsize=(4.8, 3.1)) as ax:
        ax.plot(history["step"], history["loss"], color=BLUE, linewidth=1.2, label="training loss")
        ax.set(xlabel="training step", ylabel="training loss (smoothed)", ylim=_from_zero(history["loss"]))
        finish(ax, "training" if key == "flow" else f"training: {key}")
        if not np.isfinite(energies).any():
            ax.annotate("no held-out conditions", (0.98, 0.95), xycoords="axes fraction", ha="right", va="top")
        else:
            best = int(steps[np.nanargmin(energies)])
            ax.yaxis.label.set_color(BLUE)
            ax.tick_params(axis="y", labelcolor=BLUE)
            other = _second_axis(ax, "energy distance, held-out conditions", VERMILLION)
            other.plot(
                steps, energies, "o--", color=VERMILLION, linewidth=1.2, markersize=3, label="held-out energy distance"
            )
            other.plot(best, np.nanmin(energies), "D", color=VERMILLION, markersize=7, markeredgecolor="white")
            other.axvline(best, color=DARK, linewidth=0.8, linestyle=(0, (4, 3)))
            other.set_ylim(_from_zero(energies))
            other.tick_params(axis="y", labelcolor=VERMILLION)
            used = "; not used: predictions are those of the prior" if flow.flow.config.entry_time == 1 else ""
            ax.set_title(f"best: step {best:,}{used}", loc="right", fontsize="small", color=DARK)
    return ax


def _from_zero(values: NDArray[np.floating]) -> tuple[float, float]:
    """Limits of an axis that has 0 on it, so that small changes look small."""
    low, high = min(float(np.nanmin(values)), 0.0), max(float(np.nanmax(values)), 0.0)
    margin = 0.06 * (high - low or 1.0)
    return low - margin * (low < 0), high + margin


@plot
@of_fit
def guidance(
    adata: AnnData | MuData,
    *,
    key: str = "flow",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Recall of the most changed genes against the energy distance, for every weight of classifier-free guidance.

    A larger weight exaggerates what sets a condition apart: the genes that change most may become easier to find, while
    the cells become less like the real ones. Every point is a weight, with standard errors over the validation
    conditions; the diamond is the weight that predictions use. Where the prior alone predicts, all weights give the same.

    Raises
    ------
    KeyError
        If there is no fitted flow, with the call that makes it.
    ValueError
        If the flow was fitted without validation conditions, or with a fixed weight.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> ax = pf.pl.guidance(adata)
    >>> [text.get_text() for text in ax.texts][0]
    '1'
    """
    flow = read_flow(adata, key)
    curve = flow.guidance_curve
    if not curve:
        msg = (
            f"Expected a flow with a guidance curve in `adata.uns[{key!r}]`, found one fitted without validation "
            "conditions or with a fixed `guidance`. Run `pf.pp.split_perturbations(adata, ...)` and fit again."
        )
        raise ValueError(msg)
    weights, energies, recalls = curve["weight"], curve["energy_distance"], curve["recall"]
    chosen = flow.flow.config.guidance
    with drawing(ax, figsize=(4.2, 3.2)) as ax:
        ax.errorbar(
            energies,
            recalls,
            xerr=curve["energy_distance_se"],
            yerr=curve["recall_se"],
            fmt="o-",
            color=BLUE,
            ecolor="0.8",
            elinewidth=0.8,
            linewidth=1.2,
            markersize=4,
        )
        for weight, energy, recall in zip(weights, energies, recalls, strict=True):
            if weight == chosen:
                ax.plot(energy, recall, "D", color=VERMILLION, markersize=8, markeredgecolor="white", zorder=3)
        ax.set(xlabel="energy distance (lower is better)", ylabel="recall of the 50 most changed genes")
        finish(ax, "guidance weight" if key == "flow" else f"guidance weight: {key}")
        used = "; predictions are those of the prior" if flow.flow.config.entry_time == 1 else ""
        ax.set_title(f"used: {chosen:g}{used}", loc="right", fontsize="small", color=DARK)
        line = np.linspace(0, 1, 20)[:, None]
        course = np.column_stack([energies, recalls])
        others = [one + line * (other - one) for one, other in zip(course[:-1], course[1:], strict=True)]
        label_points(ax, energies, recalls, [f"{weight:g}" for weight in weights], others=np.array(others), size=9)
    return ax


@plot
def sparsity_path(
    adata: AnnData | MuData,
    *,
    key: str = "dynamics",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Draw errors and the number of edges along the strengths of the sparsity penalty.

    Errors are read on the left, with standard errors for those on held-out data: at 1, the dotted line, dynamics predict
    changes as badly as no change at all. Edges are read on the right: those that the penalty leaves at every strength,
    and at the chosen one, which the vertical line marks, those that elimination left of them. These are the edges of the
    fitted dynamics; :func:`perturbflow.tl.infer_graph` may rank more pairs, with a confidence for each. The axis of
    strengths is logarithmic, and linear from 0 to the smallest other one.

    Parameters
    ----------
    adata
        Cells with fitted dynamics (:func:`perturbflow.tl.fit_dynamics`).
    key
        The dynamics in ``adata.uns``.

    Returns
    -------
    The Axes of the errors. There is a second one on the same place.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> ax = pf.pl.sparsity_path(adata)
    >>> ax.get_xlabel()
    'penalty strength'
    """
    result = read_result(adata, key, kind="dynamics", entry="sparsity_path")
    path = pd.DataFrame(result["sparsity_path"])
    path = path.sort_values("strength", kind="stable")
    strength = path["strength"].to_numpy(dtype=np.float64)
    chosen = np.flatnonzero(path["chosen"].to_numpy(dtype=bool))
    with drawing(ax, figsize=(5.0, 3.7)) as ax:
        other = _second_axis(ax, "number of edges", GREEN)
        ax.set_zorder(other.get_zorder() + 1)  # errors are drawn over the number of edges
        ax.patch.set_visible(False)
        other.plot(
            strength,
            path["n_edges"],
            "s--",
            color=GREEN,
            linewidth=1.0,
            markersize=3.5,
            label="edges kept by the penalty",
        )
        other.set_ylim(bottom=0)
        other.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.plot(strength, path["train_error"], "o-", color=BLUE, linewidth=1.2, markersize=3.5, label="training error")
        held_out = path["valid_error"].to_numpy(dtype=np.float64)
        if np.isfinite(held_out).any():
            ax.errorbar(
                strength,
                held_out,
                yerr=np.nan_to_num(path["valid_error_se"].to_numpy(dtype=np.float64)),
                fmt="o-",
                color=VERMILLION,
                elinewidth=0.9,
                capsize=2,
                linewidth=1.2,
                markersize=3.5,
                label="held-out error (± SE)",
            )
        ax.axhline(1.0, color=DARK, linewidth=1.0, linestyle=":", zorder=0, label="error of predicting no change")
        title = f"sparsity of {key!r}"
        for at in chosen:
            ax.axvline(strength[at], color=DARK, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0)
            ax.plot(strength[at], held_out[at], "D", color=VERMILLION, markersize=8, markeredgecolor="white", zorder=4)
            n_edges = int(path["n_edges"].iloc[at])
            title = f"chosen strength {strength[at]:.3g}: {n_edges:,} edge{'s' * (n_edges != 1)}"
            left = int(result.get("n_edges", n_edges))
            if left < n_edges:
                title += f", {left:,} after elimination"
                mark: dict[str, Any] = {"markersize": 7, "markerfacecolor": "white", "markeredgewidth": 1.5}
                other.plot(strength[at], left, "s", color=GREEN, label="edges after elimination", **mark)
        ax.set(xlabel="penalty strength", ylabel="relative error")
        _scale_strengths(ax, strength)
        handles = [*ax.get_legend_handles_labels()[0], *other.get_legend_handles_labels()[0]]
        legend_above(ax, title, n_lines=math.ceil(len(handles) / 2), ncols=2, handles=handles)
    return ax


def _second_axis(ax: Axes, label: str, color: str) -> Axes:
    """Return Axes on the same strength, whose values are read on the right, in their colour."""
    other = ax.twinx()
    other.set_ylabel(label, color=color)
    other.spines["top"].set_visible(False)
    return other


def _scale_strengths(ax: Axes, strength: NDArray[np.float64]) -> None:
    """Make the axis of strengths logarithmic, with ticks at these; one of 0 stands before the smallest other."""
    known = np.unique(strength)
    positive = known[known > 0]
    if len(positive) == len(known):
        ax.set_xscale("log")
    elif len(positive):
        ax.set_xscale("symlog", linthresh=float(positive[0]), linscale=0.5)
        ax.set_xlim(-0.2 * positive[0], 1.3 * positive[-1])
    shown = known[:: math.ceil(len(known) / _MOST_TICKS)]
    ax.set_xticks(shown, [f"{value:.2g}" for value in shown], fontsize="small")
    ax.minorticks_off()
