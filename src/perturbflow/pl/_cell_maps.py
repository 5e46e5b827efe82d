"""Maps of cells in two dimensions: along an effect, principal components, UMAP."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from perturbflow.pl._predictions import mean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from perturbflow.pl._predictions import Comparison

Basis = Literal["effect", "pca", "umap"]
Points = dict[str, "NDArray[np.floating]"]

N_COMPONENTS = 30  # of the PCA that UMAP starts from


def cell_map(
    comparison: Comparison, drawn: Mapping[str, NDArray[np.intp]], *, basis: Basis, seed: int
) -> tuple[Points, list[str]]:
    """Place drawn cells in two dimensions: coordinates (n, 2) by source, and the labels of both axes."""
    sources = comparison.sources(drawn=drawn)
    n_real, n_genes = sum(len(each) for name, each in sources.items() if name != "predicted"), len(comparison.genes)
    if n_real < 3 or n_genes < 2:
        msg = f"Expected at least 3 real cells and 2 genes, found {n_real} and {n_genes}. Widen `covariates`."
        raise ValueError(msg)
    if basis == "effect":
        return _along_effect(comparison, sources, drawn, seed)
    return _principal_components(sources, seed) if basis == "pca" else _umap(sources, seed)


def _along_effect(
    comparison: Comparison,
    sources: Mapping[str, NDArray[np.floating]],
    drawn: Mapping[str, NDArray[np.intp]],
    seed: int,
) -> tuple[Points, list[str]]:
    """Place cells along the mean effect and, across it, along the first principal component of what is left."""
    target = "observed" if comparison.is_observed else "predicted"
    changes = {name: values.astype(np.float64) for name, values in sources.items()}
    effects = []
    for _, places in comparison.contexts():
        controls = mean(comparison.controls(places["control"]))
        for name, values in changes.items():
            values[np.isin(drawn[name], places[name])] -= controls
        own = changes[target][np.isin(drawn[target], places[target])]
        if len(own):
            effects.append(own.mean(axis=0))
    effect = np.mean(effects, axis=0)
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
