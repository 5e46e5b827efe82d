"""Ways to rank the edges of a network: the default, its parts, and references. Scores (d, d), rows regulate columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
from _graph_networks import Network, levels

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

N_TREES = 100
N_BOOSTS = 150
RIDGE = 0.1  # of total effects, for their inverse


def fitted(network: Network, *, perturbed: bool = True) -> ad.AnnData:
    """Return cells with dynamics as `tl.fit_dynamics` fits them by default."""
    cells = ad.AnnData(network.cells.X, obs=network.cells.obs, var=network.cells.var[[]]).copy()
    keys = {"perturbation_key": "gene", "perturbation_type_key": "kind"} if perturbed and "gene" in cells.obs else {}
    pf.pp.setup_dynamics(cells, regulators=cells.var_names[network.regulators].tolist(), **keys)
    pf.tl.fit_dynamics(cells)
    return cells


def default(network: Network) -> NDArray:
    """Signed evidence of `tl.fit_dynamics` as it is."""
    return _evidence(fitted(network))


def time_stamped(network: Network) -> NDArray:
    """Signed evidence of `tl.fit_dynamics` if it is told the time of every cell."""
    cells = network.cells.copy()
    pf.pp.setup_dynamics(cells, time_key="time", regulators=cells.var_names[network.regulators].tolist())
    pf.tl.fit_dynamics(cells, progress_bar=False)
    pf.tl.infer_graph(cells, n_bootstraps=0, progress_bar=False)
    edges = cells.uns["dynamics_graph"]["edges"]
    score = np.zeros(network.truth.shape)
    places = tuple(cells.var_names.get_indexer(edges[end]) for end in ("source", "target"))
    score[places] = edges["evidence"] * np.where(edges["sign"] < 0, -1, 1)
    return score


def covariation(network: Network) -> NDArray:
    """The part of the default that reads no perturbation: all cells are one condition."""
    return _evidence(fitted(network, perturbed=False))


def _evidence(cells: ad.AnnData) -> NDArray:
    fit = cells.uns["dynamics"]
    evidence = np.zeros((cells.n_vars, cells.n_vars))
    evidence[fit["standing"]["regulators"]] = fit["evidence"] * np.where(fit["sign"] < 0, -1, 1)
    return evidence


def stationary(network: Network) -> NDArray:
    """Linear rates whose standing covariance is that of the cells, summed along strengths, as in stationary fits."""
    values = levels(network)
    spread = values.std(axis=0)
    standard = (values - values.mean(axis=0)) / np.where(spread > 0, spread, 1.0)
    correlation = 0.98 * standard.T @ standard / len(values)
    np.fill_diagonal(correlation, 1.0)
    path = pf.dynamics.lyapunov_path(correlation, np.flatnonzero(network.regulators), np.geomspace(1.0, 2e-3, 20))
    score = np.zeros(network.truth.shape)
    for rates in path:
        off = rates.T - np.diag(np.diag(rates))
        size = np.abs(off).sum(axis=0)
        score += off / np.where(size > 0, size, 1.0)
    return score


def _effects(network: Network) -> NDArray:
    """Largest total effect of every perturbed gene in standard deviations, per unit of what it did to itself."""
    values = levels(network)
    labels, kinds = (network.cells.obs[key].astype(str).to_numpy() for key in ("gene", "kind"))
    control, effects = labels == "control", np.zeros(network.truth.shape)
    spread = np.maximum(values.std(axis=0), 1e-12)  # a gene without counts in any cell moves by nothing
    for gene, kind in sorted({*zip(labels[~control], kinds[~control], strict=True)}):
        place = network.cells.var_names.get_loc(gene)
        change = values[(labels == gene) & (kinds == kind)].mean(axis=0) - values[control].mean(axis=0)
        change = change / spread * np.sign(change[place])
        effects[place] = np.where(np.abs(change) > np.abs(effects[place]), change, effects[place])
    return effects


def mean_difference(network: Network) -> NDArray:
    """Total effects in standard deviations; correlations where nothing was perturbed."""
    if "gene" not in network.cells.obs:
        return pf.baselines.correlation_graph(levels(network))
    score = _effects(network)
    np.fill_diagonal(score, 0.0)
    return score


def inverse_effects(network: Network) -> NDArray:
    """Direct from total effects R by a ridge inverse, B = I - R^-1 / diag(R^-1); partial correlations without any."""
    if "gene" not in network.cells.obs:
        return pf.baselines.partial_correlation_graph(levels(network))
    total = _effects(network)
    known = np.flatnonzero(np.diag(total))
    total = total[known] / np.diag(total)[known][:, None]
    among = total[:, known]
    inverse = np.linalg.solve(among.T @ among + RIDGE * np.eye(len(known)), among.T)
    direct = inverse @ total  # of every gene, given the others that were perturbed
    direct[:, known] = -inverse / np.diag(inverse)
    score = np.zeros(network.truth.shape)
    score[known] = direct
    np.fill_diagonal(score, 0.0)
    return score


def trees(network: Network) -> NDArray:
    """Importances in extremely randomised trees of every gene on the regulators, as in GENIE3."""
    from sklearn.ensemble import ExtraTreesRegressor

    def importances(inputs: NDArray, target: NDArray) -> NDArray:
        forest = ExtraTreesRegressor(N_TREES, max_features="sqrt", min_samples_leaf=5, random_state=0)
        return forest.fit(inputs, target).feature_importances_

    return _by_target(network, importances)


def boosting(network: Network) -> NDArray:
    """Importances in stochastic gradient boosting of every gene on the regulators, as in GRNBoost2."""
    from sklearn.ensemble import GradientBoostingRegressor

    def importances(inputs: NDArray, target: NDArray) -> NDArray:
        model = GradientBoostingRegressor(
            n_estimators=N_BOOSTS, learning_rate=0.05, subsample=0.9, max_features=0.3, random_state=0
        )
        return model.fit(inputs, target).feature_importances_

    return _by_target(network, importances)


def _by_target(network: Network, importances: Callable[[NDArray, NDArray], NDArray]) -> NDArray:
    values, score = levels(network), np.zeros(network.truth.shape)
    for target in range(values.shape[1]):
        inputs = np.flatnonzero(network.regulators & (np.arange(values.shape[1]) != target))
        score[inputs, target] = importances(values[:, inputs], values[:, target])
    return score


METHODS: dict[str, Callable[[Network], NDArray]] = {
    "default": default,
    "covariation only": covariation,
    "linear stationary": stationary,
    "correlation": lambda network: pf.baselines.correlation_graph(levels(network)),
    "partial correlation": lambda network: pf.baselines.partial_correlation_graph(levels(network)),
    "mean difference": mean_difference,
    "inverse effects": inverse_effects,
    "extra trees": trees,
    "boosting": boosting,
}
