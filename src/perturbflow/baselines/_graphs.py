"""Null models of inferred networks: correlations, a linear model of the derivatives, and orders without any edge.

All functions return scores (d, d) with zeros on the diagonal; entry (j, i) is about the edge from gene j to gene i.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from perturbflow._checks import check_between, check_one_of, check_whole_number
from perturbflow._docs import shares
from perturbflow.baselines._kernel import best_bandwidth, local_line, pool
from perturbflow.baselines._ridge import ridge_coefficients
from perturbflow.screen._named_arrays import same_on_both_sides, without_names

if TYPE_CHECKING:
    from perturbflow.dynamics import Trajectory

FloatArray = NDArray[np.float64]
Matrix: TypeAlias = NDArray | sparse.spmatrix | sparse.sparray

of_network = shares(
    {
        "values": "Levels (n, d), one row per cell or time.",
        "n_genes": "Number of genes d.",
        "rng": "Random generator.",
    },
    returns="Scores (d, d), diagonal 0.",
    raises="ValueError\n    If there is too little data, a shape is wrong, values are not finite, or an option is out of range.",
)


@of_network
def correlation_graph(values: FloatArray) -> FloatArray:
    """Correlation of every two genes.

    ``r_ji = cov(x_j, x_i) / (sd_j sd_i)``; symmetric, so it cannot tell regulators from targets. A gene that does not
    vary is correlated with none.

    Examples
    --------
    >>> correlation_graph(np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 5.0]])).tolist()
    [[0.0, -1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]
    """
    standard = _standardised(_levels(values, least=2))
    correlation = np.clip(standard.T @ standard / (len(standard) - 1), -1.0, 1.0)
    return _without_diagonal(correlation)


@of_network
def partial_correlation_graph(values: FloatArray, *, shrinkage: float | None = None) -> FloatArray:
    """Correlation of every two genes given all others, from a shrunken correlation matrix.

    With ``R* = (1 - s) R + s I`` and ``P`` its inverse, ``rho_ji = -P_ji / sqrt(P_jj P_ii)``. The intensity that
    minimises the expected squared error of ``R*`` is estimated in closed form,
    ``s = sum_(i != j) var(r_ij) / sum_(i != j) r_ij^2`` within 0 to 1, where the variance of ``r_ij`` over samples is
    ``n / (n - 1)^3 sum_k (w_kij - mean_k w_kij)^2`` with ``w_kij = z_ki z_kj`` of standardised levels z.

    Symmetric, so it cannot tell regulators from targets. The intensity holds for independent rows; neighbours in time
    are not, and are shrunken too little. Costs O(n d^2 + d^3).

    Parameters
    ----------
    shrinkage
        Intensity s from 0 (none) to 1 (all partial correlations 0); estimated by default. ValueError if it is too small for
        the matrix to have an inverse.

    References
    ----------
    Schäfer and Strimmer (2005), *Statistical Applications in Genetics and Molecular Biology* 4, 32.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0], [2.0, 1.0], [3.0, 4.0], [4.0, 3.0]])
    >>> partial_correlation_graph(x, shrinkage=0.0).round(6).tolist()  # no other genes: the correlation
    [[0.0, 0.6], [0.6, 0.0]]
    """
    standard = _standardised(_levels(values, least=3))
    n, d = standard.shape
    correlation = standard.T @ standard / (n - 1)
    np.fill_diagonal(correlation, 1.0)
    if shrinkage is None:
        shrinkage = _shrinkage_intensity(standard)
    else:
        check_between(shrinkage, 0.0, 1.0, name="shrinkage")
    shrunken = (1 - shrinkage) * correlation + shrinkage * np.eye(d)
    smallest = linalg.eigvalsh(shrunken, subset_by_index=(0, 0))[0]
    if smallest <= d * np.finfo(float).eps:
        msg = (
            f"Expected an invertible correlation matrix, found {d} genes in {n} rows, which are linearly dependent "
            f"at shrinkage {shrinkage:g}. Use a larger `shrinkage`."
        )
        raise ValueError(msg)
    precision = linalg.inv(shrunken)
    scale = 1 / np.sqrt(np.diag(precision))
    return _without_diagonal(0.0 - precision * scale[:, None] * scale)


@of_network
def random_graph(n_genes: int, *, rng: np.random.Generator) -> FloatArray:
    """Scores drawn uniformly between -1 and 1, independently: chance.

    Examples
    --------
    >>> random_graph(3, rng=np.random.default_rng(0)).shape
    (3, 3)
    """
    check_whole_number(n_genes, name="n_genes", least=1)
    return _without_diagonal(rng.uniform(-1.0, 1.0, (n_genes, n_genes)))


@of_network
def expression_level_graph(values: FloatArray, *, of: Literal["source", "target"]) -> FloatArray:
    """Score every edge by the mean level of one of its genes: no information about the pair.

    Curated and motif networks list well-expressed genes more often; a score that does not exceed this one has not been
    shown to know more than expression.

    Parameters
    ----------
    of
        ``"source"``: the regulator's mean, ``"target"``: the target's mean.

    Examples
    --------
    >>> expression_level_graph(np.array([[1.0, 2.0], [3.0, 4.0]]), of="source").tolist()
    [[0.0, 2.0], [3.0, 0.0]]
    """
    check_one_of(of, ("source", "target"), name="of")
    return _by_gene(_levels(values, least=1).mean(axis=0), of)


@of_network
def degree_graph(network: Matrix, *, of: Literal["source", "target"]) -> FloatArray:
    """Score every edge by the number of edges of one of its genes in a network: no information about the pair.

    From the network that scores are judged by, this is what can be gained by knowing no more than which regulators
    have many targets (``"source"``), or which targets many regulators; it reads the truth, so it is a reference and no
    method. From a prior network, it is what its degrees alone say.

    Parameters
    ----------
    network
        Network (d, d), dense or sparse, row regulates column; an entry other than 0 is an edge. Self edges do not
        count.
    of
        ``"source"``: the regulator's number of targets, ``"target"``: the target's number of regulators.

    Examples
    --------
    >>> degree_graph(np.array([[0, 1, -1], [0, 0, 0], [0, 1, 0]]), of="source").tolist()
    [[0.0, 2.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]
    """
    check_one_of(of, ("source", "target"), name="of")
    network = same_on_both_sides(network, name="network", what="genes")
    dense = network.toarray() if sparse.issparse(network) else np.asarray(network)
    if dense.ndim != 2 or dense.shape[0] != dense.shape[1] or not np.isfinite(dense).all():
        msg = f"Expected `network` to be a square matrix of finite numbers, found shape {dense.shape}."
        raise ValueError(msg)
    is_edge = _without_diagonal((dense != 0).astype(np.float64))
    return _by_gene(is_edge.sum(axis=1 if of == "source" else 0), of)


@of_network
def derivative_ridge_graph(
    trajectories: Sequence[Trajectory], *, bandwidth: float | None = None, penalty: float | None = None
) -> FloatArray:
    """Linear dynamics by ridge regression of smoothed derivatives on smoothed levels.

    Levels and derivatives at the times of every trajectory are those of lines fitted locally with a Gaussian kernel.
    For every target, ``min_b mean (dx_i/dt / sd_i - a - sum_j b_j x_j / sd_j)^2 + penalty sum_j b_j^2``, with ``sd`` the
    spread of the smoothed levels; the score of the edge is ``b_j``, which is ``(df_i / dx_j) sd_j / sd_i`` of the linear
    field. The gene itself is among its regressors (decay) but gets no score. Trajectories in which a gene is clamped
    say nothing of its dynamics and are left out for that target; a column is 0 if its gene is clamped everywhere. Costs O(n d min(n, d)) per fold and set of
    trajectories.

    Parameters
    ----------
    trajectories
        Observed trajectories.
    bandwidth
        Standard deviation of the kernel in units of time. By default, for every trajectory, that of the kernel mean
        whose leave-one-out error is smallest.
    penalty
        Ridge penalty. By default the one out of 13 from 1e-5 to 10 with the smallest error on blocks of time: every
        trajectory is cut into five, one of which is held out in all at a time.

    Examples
    --------
    Gene 0 drives gene 1, whose rate of change it is, and gene 1 slows gene 0, ``dx/dt = 1 - y`` and ``dy/dt = x``:

    >>> import perturbflow as pf
    >>> time = np.linspace(0.0, 6.0, 31)
    >>> levels = np.column_stack([np.sin(time), 1 - np.cos(time)])
    >>> run = pf.dynamics.Trajectory("run", time, levels, np.ones(31), np.zeros(2, dtype=bool))
    >>> pf.baselines.derivative_ridge_graph([run]).round(1)
    array([[ 0.,  1.],
           [-1.,  0.]])
    """
    for name, option in (("bandwidth", bandwidth), ("penalty", penalty)):
        if option is not None and not option > 0:
            msg = f"Expected `{name}` to be above 0, found {option!r}."
            raise ValueError(msg)
    if len({one.n_genes for one in trajectories}) != 1:
        msg = f"Expected trajectories of the same genes, found {[one.n_genes for one in trajectories]} genes."
        raise ValueError(msg)
    lines = []
    for one in trajectories:
        _levels(one.values, least=2)
        observed = pool([one])
        lines.append(local_line(observed, best_bandwidth(observed) if bandwidth is None else bandwidth))
    level = np.concatenate([line[0] for line in lines])
    slope = np.concatenate([line[1] for line in lines])
    spread = _spread(level)
    level, slope = (level - level[0]) / spread, slope / spread
    owner = np.repeat(np.arange(len(lines)), [len(one.time) for one in trajectories])
    block = np.concatenate([5 * np.arange(len(one.time)) // len(one.time) for one in trajectories])

    scores = np.zeros((level.shape[1], level.shape[1]))
    clamped = np.array([one.clamped for one in trajectories])
    patterns, pattern_of = np.unique(clamped, axis=1, return_inverse=True)
    for k, pattern in enumerate(patterns.T):
        targets, rows = np.flatnonzero(np.ravel(pattern_of) == k), ~pattern[owner]
        if rows.any():
            scores[:, targets] = ridge_coefficients(level[rows], slope[rows][:, targets], block[rows], penalty)
    return _without_diagonal(scores)


def _levels(values: FloatArray, *, least: int) -> FloatArray:
    levels = np.asarray(without_names(values, name="values"), dtype=np.float64)
    if levels.ndim != 2 or levels.shape[0] < least or levels.shape[1] == 0:
        msg = f"Expected levels of shape (rows, genes) with at least {least} rows, found {levels.shape}."
        raise ValueError(msg)
    if not np.isfinite(levels).all():
        row, column = np.argwhere(~np.isfinite(levels))[0]
        msg = f"Expected finite levels, found {levels[row, column]} at row {row}, column {column}."
        raise ValueError(msg)
    return levels


def _spread(levels: FloatArray) -> FloatArray:
    """Standard deviation of every gene; 1 for genes that do not vary beyond rounding."""
    spread = levels.std(axis=0, ddof=1)
    return np.where(spread > 1e-12 * np.abs(levels).max(axis=0), spread, 1.0)


def _standardised(levels: FloatArray) -> FloatArray:
    """Levels with mean 0 and variance 1, or 0 for genes that do not vary."""
    centred = levels - levels.mean(axis=0)
    varies = np.ptp(levels, axis=0) > 1e-12 * np.abs(levels).max(axis=0)
    return np.where(varies, centred / _spread(levels), 0.0)


def _shrinkage_intensity(standard: FloatArray) -> float:
    n, d = standard.shape
    products = standard.T @ standard
    squares = (standard**2).T @ standard**2
    variance = n / (n - 1) ** 3 * (squares - products**2 / n)
    off_diagonal = ~np.eye(d, dtype=bool)
    signal = ((products / (n - 1)) ** 2)[off_diagonal].sum()
    return float(np.clip(variance[off_diagonal].sum() / signal, 0.0, 1.0)) if signal > 0 else 1.0


def _by_gene(score: FloatArray, of: str) -> FloatArray:
    d = len(score)
    return _without_diagonal(np.tile(score[:, None] if of == "source" else score, (1, d) if of == "source" else (d, 1)))


def _without_diagonal(scores: FloatArray) -> FloatArray:
    np.fill_diagonal(scores, 0.0)
    return scores
