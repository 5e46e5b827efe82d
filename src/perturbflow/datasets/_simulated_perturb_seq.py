"""A simulated perturbation screen with known network and known effects."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import NDArray
from scipy import sparse

from perturbflow.datasets._counts import BurstyGenes, of_simulation
from perturbflow.datasets._network import Cells, FloatArray, GeneNetwork
from perturbflow.datasets._screen import PRODUCTION, Screen, check_parameters

CELLS_PER_BLOCK = 2048  # bounds the memory of the dense intermediate results
N_PROGRAMS = 3


@of_simulation
def simulated_perturb_seq(
    n_cells: int = 3600,
    n_genes: int = 300,
    *,
    n_perturbations: int = 12,
    n_combinations: int = 10,
    cell_types: int = 2,
    modes: Sequence[Literal["knockout", "overexpression"]] = ("knockout", "overexpression"),
    doses: Sequence[float] = (1.0,),
    time_points: Sequence[float] = (math.inf,),
    control_fraction: float = 0.2,
    n_regulators: int | None = None,
    mean_regulators: float = 4.0,
    effect_strength: float = 5.0,
    n_pathways: int | None = None,
    embedding_size: int = 16,
    embedding_noise: float = 0.3,
    cell_state_sd: float = 0.4,
    mean_library_size: float | None = None,
    library_size_sd: float = 0.35,
    dropout: float = 0.1,
    target_sum: float = 1e4,
    seed: int = 0,
) -> AnnData:
    r"""Simulate a Perturb-seq screen from a signed gene network with bursty promoters.

    In every single cell the level :math:`x_g` of gene g (the mean mRNA, relative to that of an always open promoter)
    follows a network of Hill functions; bursts of transcription make :math:`m_g` molecules of it, and :math:`n_g` of
    these are counted:

    .. math::

        \begin{aligned}
        \dot x_g &= \gamma_g \Big( a_g f_g\, \sigma\Big( b_{cg} + \sum_r w_{rg} (\theta_r - \tfrac12) \Big) - x_g \Big),
        & \theta_r &= \frac{x_r^2}{k_r^2 + x_r^2}, \\
        m_g &\sim \text{Gamma}(\text{shape } \kappa_g x_g, \text{scale } e_g / \kappa_g),
        & n_g &\sim \text{Bernoulli}(1 - d) \cdot \text{Poisson}(s\, m_g).
        \end{aligned}

    Regulators :math:`r` drive their targets with signed weights :math:`w_{rg}` through the logistic function
    :math:`\sigma`, from a basal input :math:`b_{cg}` that depends on the cell type c. A perturbation changes the
    production :math:`f` of its regulator, to :math:`1 - \text{dose}` in a knock-out and :math:`1 + 4\,\text{dose}` in
    an over-expression, and all that is downstream follows; effects of combinations add up only as long as neither
    function saturates. Cells of one condition differ in the log-normal production :math:`a` of their regulators, half
    of whose variance comes from three programs that all regulators share, so that genes covary along the network. The
    gamma-Poisson distribution is the steady state of a promoter that fires :math:`\kappa_g x_g` bursts a lifetime; the
    sequencing depth :math:`s` is log-normal, with a mean that depends on the cell type but not on the perturbation;
    :math:`d` is the dropout.

    Parameters
    ----------
    n_cells
        Number of cells over all conditions.
    n_perturbations
        Number of regulators that are perturbed alone.
    n_combinations
        Number of pairs of them that are perturbed together.
    cell_types
        Number of cell types, equally frequent.
    modes
        The ways of perturbing; the perturbed regulators are divided evenly among them.
    doses
        Doses of every component, from 0 (no effect) to 1 (complete) or, without knock-outs, more. Combinations are
        simulated for every combination of doses.
    time_points
        Times after the perturbation in mean mRNA lifetimes; infinity is the new steady state.
    control_fraction
        Fraction of the cells without perturbation; the others are divided evenly among the perturbed conditions.
    n_regulators
        Number of genes that regulate others. By default a tenth of them, or ``n_perturbations`` if this is more.
    mean_regulators
        Mean number of regulators of a gene; regulators have a quarter as many.
    effect_strength
        Typical absolute weight of an edge, in units of the log-odds of an open promoter.
    n_pathways
        Number of pathways among which the regulators are divided evenly: those of one share most targets. By default
        regulators choose their targets independently of each other.
    embedding_size
        Length of the vectors in ``adata.uns["perturbation_embedding"]``.
    embedding_noise
        Noise of these vectors, relative to their root mean square.
    cell_state_sd
        Standard deviation of the log production of a regulator among the cells of a condition.
    mean_library_size
        Expected total count of an unperturbed average cell. By default 1.5 a gene, which leaves about two thirds of
        the counts at 0.
    library_size_sd
        Standard deviation of the log sequencing depth.
    dropout
        Probability that a gene is missed in a cell, whatever its level.
    target_sum
        Total to which the counts of every cell are scaled before the logarithm.
    seed
        Seed of all random numbers. Network, screen and cells have streams of their own: neither ``doses`` nor
        ``n_cells``, for example, changes the network.

    Returns
    -------
    AnnData with

    `adata.X` : CSR, float32
        Log1p of the counts scaled to ``target_sum``.
    `adata.layers["counts"]` : CSR, float32
        The counts.
    `adata.obs`
        ``perturbation`` ("control", "GENE_003", "GENE_003+GENE_010"); ``cell_type``; ``dose`` (a number, 0 in
        controls; with several doses a string, one dose per component such as "1+0.5"); ``time``; ``condition`` (row of
        the true effects); ``library_size`` (total count).
    `adata.var["is_regulator"]`
        Whether the gene may regulate others.
    `adata.varp["true_network"]` : CSR, float64
        Signed weights :math:`w`; row regulates column.
    `adata.uns["true_network"]`
        ``edges``: the same as a table with the columns source, target, weight.
    `adata.uns["perturbation_embedding"]`
        Table, regulators by ``embedding_size``: a noisy random projection of the linear effect of a regulator on all
        genes downstream, with the sign of its mode (of the first mode, where it is not perturbed). Where regulators
        share targets, features from which a perturbation can be predicted that has no cells.
    `adata.uns["true_effects"]`
        Table, conditions (``"perturbation|cell_type"``, then ``"|dose=..."`` and ``"|time=..."`` where there are several)
        by genes: the noise-free effect
        :math:`\log(1 + T e_g x_g / M_c) - \log(1 + T e_g x^0_g / M_c)` with the levels :math:`x, x^0` of the average
        cell (:math:`a_g = 1`) with and without the perturbation, the target sum :math:`T`, and
        :math:`M_c = \sum_g e_g x^0_g` in this cell type. The common scale :math:`M_c` keeps what is not downstream of
        a perturbation at exactly 0, whereas ``X`` shows the compositional effect of normalisation.
    `adata.uns["simulation"]`
        The parameters, and ``perturbation_modes``: the mode of every perturbed gene.

    Notes
    -----
    Linear in cells and genes: 20,000 cells of 500 genes take about 2 seconds on one core in steady state, more with
    finite time points. Levels at finite times are simulated, but the gamma distribution is that of the steady state. A
    knocked-out gene has no counts in steady state; at finite times its mRNA decays.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.simulated_perturb_seq(n_cells=600, n_genes=50, n_perturbations=4, n_combinations=2)
    >>> adata.shape
    (600, 50)
    >>> adata.obs["perturbation"].nunique()
    7
    """
    n_regulators = max(n_perturbations, n_genes // 10) if n_regulators is None else n_regulators
    mean_library_size = 1.5 * n_genes if mean_library_size is None else mean_library_size
    parameters = dict(locals())
    check_parameters(parameters)
    network_rng, screen_rng, cell_rng, embedding_rng = np.random.default_rng(seed).spawn(4)

    genes = _numbered("GENE", n_genes, min_digits=3)
    network = GeneNetwork.random(
        n_genes=n_genes,
        n_regulators=n_regulators,
        n_cell_types=cell_types,
        mean_regulators=mean_regulators,
        effect_strength=effect_strength,
        n_pathways=n_pathways,
        rng=network_rng,
    )
    bursty = BurstyGenes.random(n_genes, rng=network_rng)
    programs = network_rng.normal(size=(N_PROGRAMS, n_regulators))
    depth_of_type = network_rng.lognormal(0.0, 0.25, cell_types)
    screen = Screen.random(
        genes[network.regulators].tolist(),
        n_cells=n_cells,
        n_perturbations=n_perturbations,
        n_combinations=n_combinations,
        cell_types=_numbered("type", cell_types, start=1).tolist(),
        modes=modes,
        doses=doses,
        time_points=time_points,
        control_fraction=control_fraction,
        rng=screen_rng,
    )
    regulators = genes[network.regulators]
    sign = np.array([np.sign(PRODUCTION[screen.modes.get(name, modes[0])] - 1) for name in regulators.tolist()])
    embedding = network.embedding(sign, size=embedding_size, noise=embedding_noise, rng=embedding_rng)
    effects, control_total = _true_effects(network, screen, bursty, target_sum=target_sum)

    condition = cell_rng.permutation(np.repeat(np.arange(len(screen.n_cells)), screen.n_cells))
    cells = Cells(
        cell_type=screen.cell_type[condition],
        state=_regulator_state(n_cells, programs, sd=cell_state_sd, rng=cell_rng),
        factor=screen.factor[condition],
    )
    library_size = mean_library_size * (depth_of_type / depth_of_type.mean())[cells.cell_type]
    library_size *= cell_rng.lognormal(-(library_size_sd**2) / 2, library_size_sd, n_cells)
    counts = _count_molecules(
        network,
        cells,
        bursty,
        time=screen.conditions["time"].to_numpy()[condition],
        depth=library_size / (1 - dropout) / control_total[condition],
        dropout=dropout,
        rng=cell_rng,
    )

    obs = screen.conditions.iloc[condition]
    total = np.asarray(counts.sum(axis=1)).ravel()
    scaled = counts.copy()
    scaled.data *= np.repeat(target_sum / np.maximum(total, 1), np.diff(counts.indptr))
    obs = obs.assign(condition=obs.index, library_size=total)
    obs.index = _numbered("cell", n_cells)
    labels = ["perturbation", "cell_type", "condition", *(["dose"] if len(doses) > 1 else [])]
    obs[labels] = obs[labels].astype("category")
    return AnnData(
        scaled.log1p(),
        obs=obs,
        var=pd.DataFrame({"is_regulator": np.isin(np.arange(n_genes), network.regulators)}, index=genes),
        layers={"counts": counts},
        varp={"true_network": network.adjacency()},
        uns={
            "true_network": {"edges": network.edges(genes)},
            "perturbation_embedding": pd.DataFrame(embedding, regulators, _numbered("dimension", embedding_size)),
            "true_effects": pd.DataFrame(effects, index=screen.conditions.index.to_numpy(), columns=genes),
            "simulation": {
                **{name: value for name, value in parameters.items() if value is not None},
                "modes": list(modes),
                "doses": list(doses),
                "time_points": list(time_points),
                "perturbation_modes": screen.modes,
            },
        },
    )


def _true_effects(
    network: GeneNetwork, screen: Screen, bursty: BurstyGenes, *, target_sum: float
) -> tuple[FloatArray, FloatArray]:
    """Return the noise-free effects (C, G) and the expected total mRNA of the unperturbed cells (C,)."""
    average = Cells(screen.cell_type, np.ones_like(screen.factor), screen.factor)
    control = bursty.expression * network.steady_state(average.unperturbed())
    perturbed = bursty.expression * network.response(average, screen.conditions["time"].to_numpy())
    total = control.sum(axis=1, keepdims=True)
    effects = np.log1p(target_sum * perturbed / total) - np.log1p(target_sum * control / total)
    downstream = (screen.factor != 1) @ network.descendants()
    return np.where(downstream, effects, 0.0), total[:, 0]  # elsewhere they are 0 up to rounding


def _regulator_state(n_cells: int, programs: FloatArray, *, sd: float, rng: np.random.Generator) -> FloatArray:
    """Draw log-normal states (n, R); half of the variance comes from programs (k, R) that regulators share."""
    shared = rng.normal(size=(n_cells, len(programs))) @ (programs / np.linalg.norm(programs, axis=0))
    own = rng.normal(size=(n_cells, programs.shape[1]))
    return np.exp(sd * np.sqrt(0.5) * (shared + own))


def _count_molecules(
    network: GeneNetwork,
    cells: Cells,
    bursty: BurstyGenes,
    *,
    time: FloatArray,
    depth: FloatArray,
    dropout: float,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Simulate every cell, block by block and in single precision."""
    network, cells = network.astype(np.float32), cells.astype(np.float32)
    blocks = []
    for rows in np.array_split(np.arange(len(time)), math.ceil(len(time) / CELLS_PER_BLOCK)):
        levels = network.response(cells[rows], time[rows])
        blocks.append(bursty.counts(levels, depth=depth[rows], dropout=dropout, rng=rng))
    return sparse.vstack(blocks, format="csr")


def _numbered(prefix: str, n: int, *, start: int = 0, min_digits: int = 1) -> NDArray[np.str_]:
    """Return names such as GENE_007 that sort like their numbers."""
    digits = max(min_digits, len(str(start + n - 1)))
    return np.array([f"{prefix}_{number:0{digits}d}" for number in range(start, start + n)])
