"""Time courses of random gene networks with known signed edges and interventions."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral, Real

import numpy as np
from anndata import AnnData

from perturbflow._checks import check_type, check_whole_number, nearest
from perturbflow.datasets._counts import of_simulation
from perturbflow.datasets._hill_system import MAX_START, HillNetwork
from perturbflow.datasets._time_courses import CONTROL, Bools, solve_system, time_courses


@of_simulation
def hill_network(
    *,
    n_genes: int = 20,
    n_trajectories: int = 12,
    n_times: int = 60,
    step: float = 0.1,
    noise: float = 0.05,
    irregular: bool = False,
    max_regulators: int = 3,
    knockouts: Sequence[str] | int = 0,
    overexpressions: Sequence[str] | int = 0,
    n_knockout_trajectories: int = 3,
    n_overexpression_trajectories: int = 3,
    seed: int = 0,
) -> AnnData:
    r"""Simulate time courses of a random gene network, :class:`HillNetwork`, without and with interventions.

    Every gene has 1 to 3 regulators of random sign, whose effects multiply; production is at most 1.5, decay 1, the
    Hill exponent 3, thresholds lie between 0.3 and 0.7, and levels start uniformly between 0 and 1.2. Every gene is a
    candidate regulator.

    Parameters
    ----------
    n_times
        Number of times of a run.
    step
        Time between two of them, in mean lifetimes of the product; the first is 0.
    noise
        Standard deviation of additive normal noise, as a fraction of that of all values without intervention.
        Observed levels may be negative.
    irregular
        Draw the times of every run uniformly between 0 and the last time of the grid instead.
    max_regulators
        Highest number of regulators of a gene.
    knockouts
        Genes that are held at 0 in further runs, such as ``["gene3", "gene3+gene7"]`` ("+" for both at once), or a
        number of genes, which are drawn from those that regulate others.
    overexpressions
        The same for genes that are held at 1.5, the highest level that lasts. Numbers of knock-outs and
        over-expressions draw different genes as long as there are enough.
    n_knockout_trajectories, n_overexpression_trajectories
        Number of runs of every intervention, from starts of their own.
    seed
        Seed of all random numbers. Network, starts, times and noise have streams of their own: interventions leave the
        other runs as they are, up to the tolerance of the solver.

    Returns
    -------
    AnnData with

    `adata.X`, `adata.layers["noise_free"]`
        Levels with and without noise, float32. A held level is known: it has no noise.
    `adata.obs`
        ``time``, ``trajectory`` ("0", "1", ...), ``perturbation`` ("control" or the genes held), and with
        interventions ``held_at``, the level at which they are held (NaN in controls).
    `adata.var["is_regulator"]`
        True: every gene is a candidate.
    `adata.varp["true_graph"]` : CSR, float32
        Signs; row regulates column. There are no self edges; decay is not one.
    `adata.uns["true_edges"]`
        The same as a table: ``source``, ``target``, ``sign``.
    `adata.uns["simulation"]`
        The parameters, and those of the kinetics: ``threshold`` (in the order of the edges), ``exponent``,
        ``production``. :meth:`HillNetwork.from_anndata` makes the network of them, to simulate interventions that are
        not in the data.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=2, n_times=10, knockouts=["gene1"])
    >>> adata.shape
    (50, 5)
    >>> adata.obs["perturbation"].cat.categories.tolist()
    ['control', 'gene1']
    """
    parameters = dict(locals())
    check_whole_number(n_trajectories, name="n_trajectories", least=1)
    check_whole_number(n_times, name="n_times", least=2)
    check_type(step, () if isinstance(step, bool) else Real, name="step", expected="a number")
    if not 0 < step < np.inf:
        msg = f"Expected `step` to be a finite number above 0, found {step!r}."
        raise ValueError(msg)
    check_type(irregular, bool, name="irregular", expected="True or False")
    check_whole_number(n_knockout_trajectories, name="n_knockout_trajectories", least=1)
    check_whole_number(n_overexpression_trajectories, name="n_overexpression_trajectories", least=1)

    network_rng, start_rng, time_rng, noise_rng, gene_rng = np.random.default_rng(seed).spawn(5)
    network = HillNetwork.random(n_genes, network_rng, max_regulators=max_regulators)
    genes = [f"gene{number}" for number in range(n_genes)]
    drawn = [genes[regulator] for regulator in gene_rng.permutation(np.unique(network.source))]
    removed = _labels(knockouts, drawn, name="knockouts")
    added = _labels(overexpressions, drawn[::-1], name="overexpressions")
    # One row a kind of run: how it is called, which genes it holds and where, and how many there are.
    labels = [CONTROL, *removed, *added]
    held = np.concatenate(
        [
            np.zeros((1, n_genes), dtype=bool),
            _held_genes(removed, genes, parameter="knockouts"),
            _held_genes(added, genes, parameter="overexpressions"),
        ]
    )
    level = np.repeat([0.0, network.production], [1 + len(removed), len(added)])
    n_runs = np.repeat(
        [n_trajectories, n_knockout_trajectories, n_overexpression_trajectories], [1, len(removed), len(added)]
    )
    kind = np.repeat(np.arange(len(labels)), n_runs)
    held = held[kind]

    start = np.where(held, level[kind][:, None], start_rng.uniform(0.0, MAX_START, held.shape))
    times = np.tile(step * np.arange(n_times), (len(kind), 1))
    if irregular:
        times = np.sort(time_rng.uniform(0.0, times[0, -1], times.shape), axis=1)
    return time_courses(
        solve_system(network.rhs, start, times if irregular else times[0], held=held),
        times,
        genes,
        graph=network.adjacency(),
        perturbation=[labels[number] for number in kind],
        held=held,
        noise=noise,
        rng=noise_rng,
        simulation={
            **parameters,
            "knockouts": removed,
            "overexpressions": added,
            "threshold": network.threshold[np.lexsort((network.target, network.source))],
            "exponent": network.exponent,
            "production": network.production,
        },
    )


def _labels(asked: Sequence[str] | int, drawn: Sequence[str], *, name: str) -> list[str]:
    """Return the interventions that are asked for: as named, or the first of those drawn."""
    if not isinstance(asked, Integral) or isinstance(asked, bool):
        if isinstance(asked, str) or not isinstance(asked, Sequence) or not all(isinstance(x, str) for x in asked):
            msg = f"Expected `{name}` to be a sequence of names such as ['A', 'A+B'], found {asked!r}."
            raise TypeError(msg)
        return list(asked)
    number = int(asked)
    if not 0 <= number <= len(drawn):
        msg = (
            f"Expected `{name}` to be from 0 to {len(drawn)}, the number of genes that regulate others, found {asked}."
        )
        raise ValueError(msg)
    return list(drawn[:number])


def _held_genes(labels: Sequence[str], names: Sequence[str], *, parameter: str) -> Bools:
    """Return which genes labels such as ``"A+B"`` name, shape (labels, genes); ValueError if one is unknown."""
    position = {name: number for number, name in enumerate(names)}
    held = np.zeros((len(labels), len(names)), dtype=bool)
    for row, label in enumerate(labels):
        for gene in label.split("+"):
            if gene not in position:
                msg = f"Expected `{parameter}` to name genes, found {gene!r}. Similar: {nearest(gene, names, n=3)}."
                raise ValueError(msg)
            held[row, position[gene]] = True
    return held
