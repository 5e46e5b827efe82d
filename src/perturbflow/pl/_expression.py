"""Distribution of single genes in control, observed and predicted cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Patch, Rectangle

from perturbflow.pl._drawing import EXPRESSION, SOURCES, colors_of, drawing, finish
from perturbflow.pl._predictions import read_comparison

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

MIN_FOR_VIOLIN = 5  # expressing cells; fewer are drawn as points
STEP = 0.3  # between the violins of a gene; genes are 1 apart


def expression(
    adata: AnnData,
    perturbation: str,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 6,
    covariates: Mapping[str, str] | None = None,
    key: str = "predicted",
    ax: Axes | None = None,
    show: bool | None = None,
) -> Axes:
    """Violins of single genes in control, observed and predicted cells, with their zeros.

    A violin shows the cells that express the gene, all violins equally wide; the bar below it is as wide as the share
    of the cells at zero, whose percentage is written under it. The black line is the mean of all cells, zeros included.

    Parameters
    ----------
    adata
        Cells with a prediction (:func:`perturbflow.tl.predict_perturbation`).
    perturbation
        The perturbation, its components in any order.
    genes
        Names of genes. By default the ``n_genes`` with the largest observed effects or, without real cells of the
        perturbation, the largest predicted effects.
    n_genes
        Number of genes if ``genes`` is not given.
    covariates
        Values of covariates, by key, to which the cells are restricted; otherwise cells of all compared contexts.
    key
        Where the prediction is.
    ax
        Axes to draw on; those of a new figure if None.
    show
        Show the figure.

    Returns
    -------
    The Axes.

    Raises
    ------
    KeyError
        If there is no prediction, with the call that makes it, or a gene is unknown.
    """
    comparison = read_comparison(adata, perturbation, covariates=covariates, key=key)
    if genes is None:
        effects = comparison.mean_effects()
        effect = effects.get("observed", effects["predicted"])
        columns = np.argsort(-np.abs(effect), kind="stable")[:n_genes]
    else:
        columns = comparison.genes.get_indexer(list(genes))
        unknown = [gene for gene, column in zip(genes, columns, strict=True) if column < 0]
        if unknown:
            msg = f"Expected `genes` from `adata.var_names` that are predicted, found {unknown}."
            raise KeyError(msg)
    sources = comparison.sources(columns)
    colors = colors_of(adata, key, list(SOURCES), SOURCES)
    names = comparison.genes[columns].tolist()

    with drawing(ax, figsize=(1.2 + 1.15 * len(names), 3.2), show=show) as ax:
        top = max(float(values.max(initial=0.0)) for values in sources.values()) or 1.0
        height = 0.035 * top  # of the bar of zeros
        offsets = (np.arange(len(sources)) - (len(sources) - 1) / 2) * STEP
        for (name, values), offset in zip(sources.items(), offsets, strict=True):
            for place in range(len(names)):
                _draw_gene(ax, values[:, place], place + offset, color=colors[name], height=height)
        ax.axhline(0.0, color="#BBBBBB", linewidth=0.6, zorder=0)
        ax.set(
            xlim=(-0.55, len(names) - 0.45),
            ylim=(-4.2 * height, 1.04 * top),
            xticks=range(len(names)),
            xticklabels=names,
            ylabel=EXPRESSION,
        )
        ax.tick_params(axis="x", length=0)
        finish(ax, comparison.title(covariates))
        ax.legend(
            handles=[
                Patch(color=colors[name], label=f"{name} ({len(values):,} cells)") for name, values in sources.items()
            ],
            loc="upper left",
            bbox_to_anchor=(1.0, 1.0),
            frameon=False,
            fontsize="small",
            title="violin: expressing cells\nbar and number: % zeros\nline: mean of all cells",
            title_fontsize="x-small",
            alignment="left",
        )
    return ax


def _draw_gene(ax: Axes, values: NDArray[np.floating], position: float, *, color: str, height: float) -> None:
    """Draw one gene in one source."""
    width = 0.9 * STEP
    expressed = values[values > 0]
    zeros = 1.0 - len(expressed) / len(values)
    # A violin of equal values has no width.
    if len(expressed) >= MIN_FOR_VIOLIN and np.ptp(expressed) > 0:
        parts = ax.violinplot(expressed, positions=[position], widths=width, showextrema=False)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=color, edgecolor=color, alpha=0.75, linewidth=0.6)
            # The kernel smooths beyond the data, also below zero.
            vertices = body.get_paths()[0].vertices
            vertices[:, 1] = np.clip(vertices[:, 1], expressed.min(), expressed.max())
    elif len(expressed):
        ax.plot(np.full(len(expressed), position), expressed, ".", color=color, markersize=3)
    ax.add_patch(
        Rectangle((position - zeros * width / 2, -1.3 * height), zeros * width, height, color=color, linewidth=0)
    )
    ax.text(position, -1.8 * height, f"{100 * zeros:.0f}", ha="center", va="top", fontsize=6.5, color=color)
    mean = float(values.mean())
    ax.plot([position - width / 2, position + width / 2], [mean, mean], color="black", linewidth=1.1)
