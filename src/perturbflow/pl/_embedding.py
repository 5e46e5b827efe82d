"""Control, observed and predicted cells in two dimensions: along an effect, principal components, UMAP."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
from anndata import AnnData
from matplotlib.axes import Axes
from numpy.typing import NDArray

from perturbflow._checks import check_one_of
from perturbflow.pl._drawing import SOURCES, colors_of, drawing, finish, label_points, legend_beside, plot
from perturbflow.pl._predictions import Comparison, of_prediction, read_comparison

if TYPE_CHECKING:
    from mudata import MuData

Basis = Literal["effect", "pca", "umap"]
Points = dict[str, "NDArray[np.floating]"]

_FEW_CONTEXTS = 8  # more have small centres without names
N_COMPONENTS = 30  # of the PCA that UMAP starts from


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
    check_one_of(basis, get_args(Basis), name="basis")
    comparison = read_comparison(adata, perturbation, covariates=covariates, key=key)
    rng = np.random.default_rng(seed)
    # As many predicted as observed cells: the eye compares how densely they lie.
    limits = {"predicted": min(n_cells, len(comparison.observed) or n_cells)}
    drawn = {
        name: np.sort(rng.choice(size, min(size, limits.get(name, n_cells)), replace=False))
        for name, size in comparison.sizes.items()
    }
    points, labels = _cell_map(comparison, drawn, basis=basis, seed=seed)
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
                    shift, width = np.stack([centres["control"], centres[name]]).T, math.sqrt(size) / 5
                    ax.plot(*shift, color="white", linewidth=2 * width, zorder=3)
                    ax.plot(*shift, color=colors[name], linewidth=width, zorder=4)
                    lines.append(np.linspace(centres["control"], centres[name], 20))
            for name, centre in centres.items():
                ax.scatter(
                    centre[0], centre[1], s=size, color=colors[name], edgecolors="white", linewidths=1.2, zorder=5
                )
            context = ", ".join(comparison.fields.vocabulary.named(codes).values())
            named += [(context, centres[name]) for name in compared if name in centres][:1]
        for name, xy in points.items():
            ax.scatter([], [], s=40, color=colors[name], label=f"{name} ({len(xy):,} cells)")
        ax.set(xlabel=labels[0], ylabel=labels[1], xticks=[0, 1] if basis == "effect" else [], yticks=[])
        finish(ax, comparison.title(covariates))
        legend_beside(ax, handletextpad=0.3)
        if 1 < len(contexts) <= _FEW_CONTEXTS:
            label_points(
                ax,
                [centre[0] for _, centre in named],
                [centre[1] for _, centre in named],
                [name for name, _ in named],
                others=np.concatenate([*points.values(), *lines]),
            )
    return ax


def _cell_map(
    comparison: Comparison, drawn: Mapping[str, NDArray[np.intp]], *, basis: Basis, seed: int
) -> tuple[Points, list[str]]:
    """Place drawn cells in two dimensions: coordinates (n, 2) by source, and the labels of both axes."""
    sources = comparison.sources(drawn=drawn)
    n_real, n_genes = sum(len(each) for name, each in sources.items() if name != "predicted"), len(comparison.genes)
    if n_real < 3 or n_genes < 2:
        msg = f"Expected at least 3 real cells and 2 genes, found {n_real} and {n_genes}. Use fewer `covariates`."
        raise ValueError(msg)
    if basis == "effect":
        return _along_effect(comparison, drawn, seed)
    return _principal_components(sources, seed) if basis == "pca" else _umap(sources, seed)


def _along_effect(
    comparison: Comparison,
    drawn: Mapping[str, NDArray[np.intp]],
    seed: int,
) -> tuple[Points, list[str]]:
    """Place cells along the mean effect and, across it, along the first principal component of what is left."""
    target = "observed" if comparison.is_observed else "predicted"
    changes = comparison.changes(drawn)
    is_drawn_in = [np.isin(drawn[target], places[target]) for _, places in comparison.contexts()]
    effect = np.mean([changes[target][rows].mean(axis=0) for rows in is_drawn_in if rows.any()], axis=0)
    size = float(effect @ effect)
    if size == 0:
        msg = f"Expected {target} cells whose mean differs from that of the controls, found none. Pass `basis='pca'`."
        raise ValueError(msg)
    along = {name: values @ effect / size for name, values in changes.items()}
    across = {name: values - along[name][:, None] * effect for name, values in changes.items()}
    components, _ = _components(across, 1, seed)
    points = {name: np.column_stack([along[name], components[name]]) for name in along}
    return points, [f"along the {target} effect\n(0: controls, 1: {target} mean)", "PC1 of the other differences"]


def _principal_components(sources: Mapping[str, NDArray[np.floating]], seed: int) -> tuple[Points, list[str]]:
    """Place cells on the first two principal components."""
    components, shares = _components(sources, 2, seed)
    return components, [f"PC{i + 1} ({share:.1%} of variance)" for i, share in enumerate(shares)]


def _umap(sources: Mapping[str, NDArray[np.floating]], seed: int) -> tuple[Points, list[str]]:
    """Place cells on a UMAP of the real ones."""
    from umap import UMAP

    components, _ = _components(sources, N_COMPONENTS, seed)
    of_real = [name for name in components if name != "predicted"]
    real = np.concatenate([components[name] for name in of_real])
    reducer = UMAP(n_neighbors=min(15, len(real) - 1), random_state=seed, n_jobs=1)
    reducer.fit(real)
    ends = np.cumsum([len(components[name]) for name in of_real])
    placed = dict(zip(of_real, np.split(reducer.embedding_, ends[:-1]), strict=True))
    return {**placed, "predicted": reducer.transform(components["predicted"])}, ["UMAP 1", "UMAP 2"]


def _components(
    sources: Mapping[str, NDArray[np.floating]], n_components: int, seed: int
) -> tuple[Points, NDArray[np.floating]]:
    """Principal components of the real cells, with all cells placed on them, and their shares of the variance."""
    from sklearn.decomposition import PCA

    real = np.concatenate([values for name, values in sources.items() if name != "predicted"])
    pca = PCA(n_components=min(n_components, len(real) - 1, real.shape[1]), random_state=seed).fit(real)
    return {name: pca.transform(values) for name, values in sources.items()}, pca.explained_variance_ratio_
