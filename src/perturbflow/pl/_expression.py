"""Distribution of single genes in control, observed and predicted cells."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from perturbflow.pl._drawing import DARK, EXPRESSION, SOURCES, colors_of, drawing, finish, legend_beside, plot
from perturbflow.pl._predictions import of_prediction, read_comparison

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

MIN_FOR_VIOLIN = 5  # expressing cells; fewer are drawn as points
MOST_BESIDE = 12  # genes in a row
STEP = 0.3  # between the violins of a gene; genes are 1 apart


@plot
@of_prediction
def expression(
    adata: AnnData | MuData,
    perturbation: str,
    *,
    genes: Sequence[str] | None = None,
    n_genes: int = 6,
    covariates: Mapping[str, str] | None = None,
    key: str = "predicted",
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Violins of single genes in control, observed and predicted cells, with their zeros.

    A violin shows the cells that express the gene, all violins equally wide; the bar below it is as wide as the share
    of the cells at zero, whose percentage is written under it. The black line is the mean of all cells, zeros included.
    More than 12 genes are drawn in rows, one below the other on the same Axes.

    Parameters
    ----------
    genes
        Names of genes. By default the ``n_genes`` with the largest observed effects or, without real cells of the
        perturbation, the largest predicted effects.
    n_genes
        Number of genes if ``genes`` is not given.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> label = adata.uns["split"]["held_out"]["perturbation"].iloc[0]
    >>> pf.tl.predict_perturbation(adata, label)
    >>> ax = pf.pl.expression(adata, label, genes=["GENE_001", "GENE_002"])
    >>> [tick.get_text() for tick in ax.get_xticklabels()]
    ['GENE_001', 'GENE_002']
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

    top = max(float(values.max(initial=0.0)) for values in sources.values()) or 1.0
    height = 0.035 * top  # of the bar of zeros
    n_rows = max(1, math.ceil(len(names) / MOST_BESIDE))
    n_columns = math.ceil(len(names) / n_rows)
    pitch = 1.04 * top + 4.2 * height + 0.22 * top * (n_rows > 1)  # between the zeros of rows
    with drawing(ax, figsize=(2.7 + 0.85 * n_columns, 0.9 + 2.3 * n_rows)) as ax:
        offsets = (np.arange(len(sources)) - (len(sources) - 1) / 2) * STEP
        for (name, values), offset in zip(sources.items(), offsets, strict=True):
            for place in range(len(names)):
                row, column = divmod(place, n_columns)
                _draw_gene(ax, values[:, place], column + offset, base=-row * pitch, color=colors[name], height=height)
        for row in range(n_rows):
            ax.axhline(-row * pitch, color="#BBBBBB", linewidth=0.6, zorder=0)
        ax.set(
            xlim=(-0.55, n_columns - 0.45),
            ylim=(-4.2 * height - (n_rows - 1) * pitch, 1.04 * top),
            xticks=range(n_columns),
            ylabel=EXPRESSION,
        )
        _name(ax, names, n_columns=n_columns, top=top, pitch=pitch)
        ax.tick_params(axis="x", length=0)
        finish(ax, comparison.title(covariates))
        handles = [Patch(color=colors[name], label=f"{name} ({len(x):,} cells)") for name, x in sources.items()]
        about = "violin: expressing cells\nbar and number: % zeros\nline: mean of all cells"
        legend_beside(ax, handles=handles, title=about)
    return ax


def _name(ax: Axes, names: Sequence[str], *, n_columns: int, top: float, pitch: float) -> None:
    """Write the genes below one row, or above each of several, whose levels all start at zero."""
    longest = max(map(len, names), default=1)
    size = plt.rcParams["font.size"] * max(0.5, min(1.0, 10 / longest))  # so that neighbours do not touch
    if len(names) <= n_columns:
        ax.set_xticklabels(names, fontsize=size)
        return
    ax.set_xticks([])
    for place, name in enumerate(names):
        row, column = divmod(place, n_columns)
        ax.text(column, 1.02 * top - row * pitch, name, ha="center", va="bottom", fontsize=0.83 * size, gid="gene")
    levels = [level for level in MaxNLocator(4).tick_values(0.0, top) if level <= top]
    n_rows = math.ceil(len(names) / n_columns)
    ax.set_yticks(
        [level - row * pitch for row in range(n_rows) for level in levels],
        [f"{level:g}" for _ in range(n_rows) for level in levels],
    )
    ax.set_ylim(top=1.04 * top + 0.12 * top)


def _draw_gene(
    ax: Axes, values: NDArray[np.floating], position: float, *, base: float, color: str, height: float
) -> None:
    """Draw one gene in one source, with its zero at ``base``."""
    width = 0.9 * STEP
    expressed = values[values > 0]
    zeros = 1.0 - len(expressed) / len(values)
    # A violin of equal values has no width.
    if len(expressed) >= MIN_FOR_VIOLIN and np.ptp(expressed) > 0:
        parts = ax.violinplot(base + expressed, positions=[position], widths=width, showextrema=False)
        for body in parts["bodies"]:  # type: ignore[attr-defined]
            body.set(facecolor=color, edgecolor=color, alpha=0.75, linewidth=0.6)
            # The kernel smooths beyond the data, also below zero.
            vertices = body.get_paths()[0].vertices
            vertices[:, 1] = np.clip(vertices[:, 1], base + expressed.min(), base + expressed.max())
    elif len(expressed):
        ax.plot(np.full(len(expressed), position), base + expressed, ".", color=color, markersize=3)
    ax.add_patch(
        Rectangle((position - zeros * width / 2, base - 1.3 * height), zeros * width, height, color=color, linewidth=0)
    )
    ax.text(position, base - 1.8 * height, f"{100 * zeros:.0f}", ha="center", va="top", fontsize=6.5, color=DARK)
    mean = base + float(values.mean())
    ax.plot([position - width / 2, position + width / 2], [mean, mean], color="black", linewidth=1.1)
