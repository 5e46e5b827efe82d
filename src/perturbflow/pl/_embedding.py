"""Control, observed and predicted cells in two dimensions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, get_args

import numpy as np

from perturbflow.pl._cell_maps import Basis, cell_map
from perturbflow.pl._drawing import SOURCES, colors_of, drawing, finish, label_points
from perturbflow.pl._predictions import of_prediction, read_comparison
from perturbflow.pl._shown_and_saved import plot

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes
    from mudata import MuData
    from numpy.typing import NDArray

_FEW_CONTEXTS = 8  # more have small centres without names


@plot
@of_prediction
def embedding(
    adata: AnnData | MuData,
    perturbation: str,
    *,
    basis: Basis = "effect",
    covariates: Mapping[str, str] | None = None,
    key: str = "predicted",
    n_cells: int = 1000,
    seed: int = 0,
    modality: str | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: bool | str | None = None,
) -> Axes:
    """Control, observed and predicted cells on one map of the real cells.

    By default cells are drawn by what the perturbation does: their difference from the mean control cell of their
    context, along the mean effect and across it. The map is fitted on the drawn control and observed cells only, and
    the predicted cells are placed on it, so that they cannot shape it. Large circles are the centres of the drawn cells
    of every context, joined with that of the controls. Contexts are named where there are two to eight.

    Parameters
    ----------
    basis
        ``"effect"``: along the mean effect of the observed cells, or of the predicted ones if there are none, and along
        the first principal component of all other differences from the controls of the same context. ``"pca"``: the
        first two principal components. ``"umap"``: a UMAP of the first 30.
    covariates
        Values of covariates, by key, to which the cells are restricted; otherwise cells of all compared contexts.
        PCA and UMAP then mostly show what tells contexts apart.
    n_cells
        Draw at most this many cells of each kind, chosen at random.
    seed
        Seed of the choice and of the map.

    Raises
    ------
    KeyError
        If there is no prediction, with the call that makes it.
    ValueError
        If ``basis`` is unknown, there are fewer than 3 real cells, or no effect to draw cells along.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control")
    >>> pf.pp.split_perturbations(adata, task="combination")
    >>> pf.tl.fit_flow(adata, max_steps=20, progress_bar=False)
    >>> label = adata.uns["split"]["held_out"]["perturbation"].iloc[0]
    >>> pf.tl.predict_perturbation(adata, label)
    >>> ax = pf.pl.embedding(adata, label)
    >>> ax.get_title(loc="left") == label
    True
    """
    if basis not in get_args(Basis):
        msg = f"Expected `basis` to be one of {sorted(get_args(Basis))}, found {basis!r}."
        raise ValueError(msg)
    comparison = read_comparison(adata, perturbation, covariates=covariates, key=key)
    rng = np.random.default_rng(seed)
    # As many predicted as observed cells: the eye compares how densely they lie.
    limits = {"predicted": min(n_cells, len(comparison.observed) or n_cells)}
    drawn = {
        name: np.sort(rng.choice(size, min(size, limits.get(name, n_cells)), replace=False))
        for name, size in comparison.sizes.items()
    }
    points, labels = cell_map(comparison, drawn, basis=basis, seed=seed)
    colors = colors_of(adata, key, list(SOURCES), SOURCES)

    with drawing(ax, figsize=(4.9, 3.6)) as ax:
        # Controls lie behind; the cells to be compared are mixed, so that none covers the others.
        compared = [name for name in points if name != "control"]
        for names, zorder in ((["control"], 1), (compared, 2)):
            xy = np.concatenate([points[name] for name in names])
            shades = np.concatenate([np.full(len(points[name]), colors[name], dtype=object) for name in names])
            order = rng.permutation(len(xy))
            ax.scatter(
                xy[order, 0], xy[order, 1], s=8, c=shades[order].tolist(), alpha=0.5, linewidths=0, zorder=zorder
            )
        named: list[tuple[str, NDArray[np.floating]]] = []
        lines: list[NDArray[np.floating]] = []
        contexts = comparison.contexts()
        size = 60 if len(contexts) <= _FEW_CONTEXTS else 22
        for codes, rows in contexts:
            centres = {
                name: xy[np.isin(drawn[name], rows[name])].mean(axis=0)
                for name, xy in points.items()
                if np.isin(drawn[name], rows[name]).any()
            }
            for name in compared:
                if name in centres and "control" in centres:
                    _draw_shift(ax, centres["control"], centres[name], color=colors[name], width=math.sqrt(size) / 5)
                    lines.append(np.linspace(centres["control"], centres[name], 20))
            for name, centre in centres.items():
                ax.scatter(
                    centre[0], centre[1], s=size, color=colors[name], edgecolors="white", linewidths=1.2, zorder=5
                )
            named += [(comparison.context_name(codes), centres[name]) for name in compared if name in centres][:1]
        for name, xy in points.items():
            ax.scatter([], [], s=40, color=colors[name], label=f"{name} ({len(xy):,} cells)")
        ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[0, 1] if basis == "effect" else [], yticks=[])
        finish(ax, comparison.title(covariates))
        ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False, fontsize="small", handletextpad=0.3)
        if 1 < len(contexts) <= _FEW_CONTEXTS:
            label_points(
                ax,
                [centre[0] for _, centre in named],
                [centre[1] for _, centre in named],
                [name for name, _ in named],
                others=np.concatenate([*points.values(), *lines]),
            )
    return ax


def _draw_shift(ax: Axes, start: NDArray[np.floating], end: NDArray[np.floating], *, color: str, width: float) -> None:
    """Draw the line from the centre of the controls to another centre."""
    xy = np.stack([start, end])
    ax.plot(xy[:, 0], xy[:, 1], color="white", linewidth=2 * width, zorder=3)
    ax.plot(xy[:, 0], xy[:, 1], color=color, linewidth=width, zorder=4)
