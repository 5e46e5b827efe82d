"""Whether predicted profiles of conditions fall into the same clusters as the real ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from numpy.typing import ArrayLike

from perturbflow.metrics._profiles import check_profiles
from perturbflow.screen._named_arrays import by_name

if TYPE_CHECKING:
    from anndata import AnnData

RESOLUTIONS = (0.2, 0.4, 0.6, 0.8, 1.0, 1.5, 2.0)


@by_name("conditions", "genes", of=("predicted", "observed"))
def clustering_agreement(
    predicted: ArrayLike,
    observed: ArrayLike,
    *,
    n_neighbors: int = 15,
    resolution: float = 1.0,
    predicted_resolutions: Sequence[float] = RESOLUTIONS,
) -> float:
    """Best adjusted mutual information between clusters of the predicted and of the real mean profiles.

    Conditions are joined to their nearest neighbours by mean expression and clustered by Leiden's method, the real ones
    at one resolution and the predicted ones at several, of which the best counts; never below 0. Cell-eval's
    ``clustering_agreement``.

    *Direction*: higher is better. *Range*: 0 to 1; chance is 0 for one resolution and above it for the best of several.
    NaN if the real profiles form one cluster or as many as there are conditions: any prediction agrees then.

    *Weakness*: with fewer conditions than some hundred the clusters are noise, and a shift that all predictions share,
    or a wrong size of all effects, is not seen. Depends on the versions of scanpy and igraph.

    Parameters
    ----------
    predicted
        Mean profiles of predicted cells (P, G), conditions without the control.
    observed
        Those of real cells (P, G), same order.
    n_neighbors
        Neighbours of a condition; at most P - 1.
    resolution
        Resolution of the clusters of the real profiles.
    predicted_resolutions
        Resolutions tried for the predicted profiles.

    Returns
    -------
    The agreement, or NaN.

    Raises
    ------
    ImportError
        If igraph is not installed.
    ValueError
        If shapes disagree, values are not finite, there are fewer than three conditions, or no resolution.

    References
    ----------
    Arc Institute, cell-eval (MIT licence); Traag et al. (2019), *Scientific Reports* 9, 5233; Vinh et al. (2010),
    *J. Mach. Learn. Res.* 11, 2837-2854.

    Examples
    --------
    A perfect prediction of three groups of eight conditions:

    >>> import numpy as np
    >>> import perturbflow as pf
    >>> rng = np.random.default_rng(0)
    >>> profiles = np.repeat(rng.normal(0, 5, (3, 10)), 8, axis=0) + rng.normal(size=(24, 10))
    >>> try:
    ...     agreement = pf.metrics.clustering_agreement(profiles, profiles, n_neighbors=5)
    ... except ImportError:  # without igraph
    ...     agreement = 1.0
    >>> agreement
    1.0
    >>> pf.metrics.clustering_agreement(profiles[:2], profiles[:2])
    Traceback (most recent call last):
    ValueError: Expected at least 3 conditions to cluster, found 2. Leave this metric out.
    """
    from anndata import AnnData
    from sklearn.metrics import adjusted_mutual_info_score

    predicted, observed = check_profiles(predicted=predicted, observed=observed)
    if len(observed) < 3:
        msg = f"Expected at least 3 conditions to cluster, found {len(observed)}. Leave this metric out."
        raise ValueError(msg)
    if not predicted_resolutions:
        msg = "Expected at least one resolution in `predicted_resolutions`, found none."
        raise ValueError(msg)
    if find_spec("igraph") is None:  # scanpy would say so after seconds
        msg = "Expected igraph to be installed, which clusters conditions. `pip install igraph`, or leave this metric out."
        raise ImportError(msg)
    n_neighbors = min(n_neighbors, len(observed) - 1)
    (truth,) = _clusters(AnnData(observed), [resolution], n_neighbors)
    if len(set(truth)) in {1, len(truth)}:
        return float("nan")
    tried = _clusters(AnnData(predicted), predicted_resolutions, n_neighbors)
    return max(0.0, *(float(adjusted_mutual_info_score(truth, labels)) for labels in tried))


def _clusters(profiles: AnnData, resolutions: Sequence[float], n_neighbors: int) -> list[list[str]]:
    import scanpy as sc

    sc.pp.neighbors(profiles, n_neighbors=n_neighbors, use_rep="X")
    found = []
    for resolution in resolutions:
        sc.tl.leiden(profiles, resolution=resolution, flavor="igraph", n_iterations=2)
        found.append(profiles.obs["leiden"].tolist())
    return found
