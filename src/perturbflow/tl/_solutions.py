"""Solutions of fitted dynamics: along and beyond the observed time, and under interventions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from perturbflow._checks import (
    check_between,
    check_one_of,
    check_type,
    check_unique_names,
    check_whole_number,
    listing,
    nearest,
)
from perturbflow._warnings import warn
from perturbflow.predict._dynamics_store import (
    StoredDynamics,
    StoredStanding,
    has_standing,
    read_dynamics,
    read_standing,
)
from perturbflow.predict._solutions import (
    default_level,
    fitted_solutions,
    new_solutions,
    new_starts,
    observed_solutions,
    standing_response,
    time_grid,
    warn_beyond,
    warn_without_effect,
)
from perturbflow.predict._torch_state import usual_torch
from perturbflow.screen._conditions import TYPE_MARK, parse_label
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added
from perturbflow.tl._common import of_dynamics, written

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

KINDS = ("knockout", "knockdown", "overexpression")
LEAST_LOWERED = 1e-3  # spreads by which a loss of function lowers a gene that any cell expresses
KNOCKDOWN = 0.25  # of the mean level
OVEREXPRESSION = 1.5  # times the largest level
LARGEST = float(np.finfo(np.float32).max)  # of the levels that the result can hold


@takes_modality
@of_dynamics
@usual_torch()
def forecast(
    adata: AnnData | MuData,
    *,
    until: float | None = None,
    n_times: int = 100,
    start: ArrayLike | None = None,
    start_names: list[str] | None = None,
    observed: AnnData | None = None,
    key: str = "dynamics",
    key_added: str = "forecast",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Predict the levels of all genes over time, for the fitted trajectories, new initial cells or partly observed ones.

    The first part of new trajectories may have been observed, at one or more times (``observed``). Every new trajectory is
    then aligned to the solutions of the fit, :math:`x(t) = z(s + \tau t) + g(t)`, with a place s, a tempo :math:`\tau` and
    deviations g that are estimated from the observed part: a static offset, an individual readout of the state z, and a
    transient part. The two extremes are the solution itself and a trajectory that repeats itself. The size of deviations and
    the variation of tempos are estimated from the trajectories of the fit.

    Parameters
    ----------
    n_times
        Number of times, evenly spaced from the first observed time.
    start
        Levels of new initial cells at the first time, shape (K, d) or (d,): a pandas object whose columns or index are the
        genes in any order, or an array in the order of ``adata.var_names``. By default the trajectories of the fit, from
        their fitted initial levels.
    start_names
        Names of the new initial cells; by default "start 0", "start 1", ... Only with ``start``.
    observed
        Cells of new trajectories, with the registered columns and the same genes in any order. ``adata`` must then contain
        the cells of the fit. Not with ``start``.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["forecast" | key_added]` : dict
        ``time`` (n,), ``trajectories`` (K,), ``values`` (K, n, d), ``genes`` (d,) and ``observed_until`` (K,), the time
        after which values are a forecast. With ``observed`` these are the new trajectories. Values before the first
        observed time of a trajectory are NaN.

    Raises
    ------
    KeyError
        If there are no fitted dynamics, or ``observed`` lacks a gene or a registered column.
    TypeError
        If ``observed`` is not an AnnData.
    ValueError
        If ``until`` is before the first observed time, ``start`` has another number of genes or is not finite,
        ``observed`` has no cells, ``adata`` lacks trajectories of the fit, both ``start`` and ``observed`` are given, or
        ``key_added`` exists and is not an earlier forecast.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> pf.tl.forecast(adata, until=4.0, n_times=41)
    >>> adata.uns["forecast"]["values"].shape
    (6, 41, 5)

    A trajectory with five observed times:

    >>> new = pf.datasets.hill_network(n_genes=5, n_trajectories=7, n_times=20)
    >>> new = new[(new.obs["trajectory"] == "6") & (new.obs["time"] < 0.5)].copy()
    >>> pf.tl.forecast(adata, observed=new, until=2.0, n_times=21)
    >>> adata.uns["forecast"]["values"].shape, adata.uns["forecast"]["observed_until"].round(1).tolist()
    ((1, 21, 5), [0.4])
    """
    check_key_added(adata, key_added, "forecast")
    check_whole_number(n_times, name="n_times", least=2)
    stored = read_dynamics(adata, key)
    if observed is not None:
        if start is not None:
            msg = "Expected `start` or `observed`, found both. Levels at the first time may be cells of `observed`."
            raise ValueError(msg)
        entry = observed_solutions(adata, stored, observed, until=until, n_times=n_times)
    elif start is not None:
        entry = new_solutions(adata, stored, start, start_names, until=until, n_times=n_times)
    else:
        entry = fitted_solutions(stored, until=until, n_times=n_times)
    if observed is None:  # others may differ from all that was in the fit
        warn_beyond(stored, entry["values"])
    return written(adata, copy=copy, uns={key_added: entry})


@takes_modality
@of_dynamics
@usual_torch()
def simulate_knockout(
    adata: AnnData | MuData,
    genes: str | Iterable[str] | Mapping[str, float] | pd.Series,
    *,
    kind: Literal["knockout", "knockdown", "overexpression"] = "knockout",
    until: float | None = None,
    n_times: int = 50,
    start: ArrayLike | None = None,
    key: str = "dynamics",
    key_added: str = "knockout",
    modality: str | None = None,
    copy: bool = False,
) -> AnnData | MuData | None:
    """Hold genes at a fixed level, and predict the response of all other genes over time.

    This is a do-intervention: the regulators of the held genes have no effect on them. The response is the difference between
    solutions with and without the intervention. A warning names held genes that cannot affect any other gene, and why.

    For cells at steady state, registered without a time, the result is the new steady-state distribution, with means and
    standard deviations of all genes. For measured perturbations, effects beyond the fitted edges are added (without the part
    explained by sampling noise), so that the perturbations are reproduced at their level. The effects of several genes are
    added, unless they were measured together. ``until``, ``n_times`` and ``start`` do not apply.

    Parameters
    ----------
    genes
        One or several genes that are held together, or a dictionary or Series with the level of each. The label of a combination,
        such as "KLF1+SET", stands for all of its genes.
    kind
        Level of genes without a given level: 0 for "knockout", a quarter of the mean observed level for "knockdown", 1.5
        times the largest observed level for "overexpression". For cells at steady state, the latter two use the level of the
        measured perturbation of this gene alone in that direction; without one, a quarter of the mean, or the mean plus
        three standard deviations.
    n_times
        Number of evenly spaced times.
    start
        Levels of initial cells, shape (K, d) or (d,): a pandas object whose columns or index are the genes in any order, or
        an array in the order of ``adata.var_names``. By default the initial levels of the trajectories without intervention,
        or of all trajectories if there are none.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["knockout" | key_added]` : dict
        ``time`` (n,), ``trajectories`` (K,), ``unperturbed`` and ``perturbed`` (K, n, d), ``genes`` (d,),
        ``interventions`` (gene, kind, value) and ``response``, a table of all genes with the mean change at the last
        time, the largest mean change and its time, in the unit of the expression. For cells at steady state,
        ``unperturbed``, ``perturbed``, ``unperturbed_sd`` and ``perturbed_sd`` (d,), and in ``response`` the change, the
        same in standard deviations, and the ratio of the standard deviations.

    Examples
    --------
    >>> import perturbflow as pf
    >>> adata = pf.datasets.hill_network(n_genes=5, n_trajectories=6, n_times=20)
    >>> pf.pp.setup_dynamics(adata, time_key="time", trajectory_key="trajectory")
    >>> pf.tl.fit_dynamics(adata, effort=0.02, progress_bar=False)
    >>> pf.tl.simulate_knockout(adata, "gene0")
    >>> adata.uns["knockout"]["perturbed"][:, :, 0].max()
    np.float32(0.0)
    """
    check_key_added(adata, key_added, "knockout")
    check_one_of(kind, KINDS, name="kind")
    check_whole_number(n_times, name="n_times", least=2)
    if isinstance(genes, pd.Series) and pd.api.types.is_numeric_dtype(genes):
        check_unique_names(genes.index, what="the index of `genes`", hint="Pass one level per gene.")
        genes = genes.to_dict()
    if has_standing(adata, key):
        if until is not None or start is not None:
            msg = "Expected neither `until` nor `start` for cells at steady state, found at least one. Omit them."
            raise ValueError(msg)
        standing = read_standing(adata, key)
        interventions = _interventions(standing, genes, kind)
        response = standing_response(standing, dict(zip(interventions["gene"], interventions["value"], strict=True)))
    else:
        stored = read_dynamics(adata, key)
        interventions = _interventions(stored, genes, kind)
        response = _response(adata, stored, interventions, until=until, n_times=n_times, start=start)
    return written(adata, copy=copy, uns={key_added: response | {"interventions": interventions}})


def _response(
    adata: AnnData,
    stored: StoredDynamics,
    interventions: pd.DataFrame,
    *,
    until: float | None,
    n_times: int,
    start: ArrayLike | None,
) -> dict[str, Any]:
    """Solve with and without interventions, and say how far apart both are."""
    model = stored.model
    time = time_grid(stored, until, n_times)
    if start is None:
        free = np.flatnonzero(~model.clamped.any(axis=1))
        rows = free if len(free) else np.arange(len(model.names))
        states, names = model.start[rows], [model.names[row] for row in rows]
    else:
        levels, names = new_starts(adata, stored, start, None)
        states = model.state(levels)
    held = dict(zip(interventions["gene"], interventions["value"], strict=True))
    clamp = {stored.position(gene): value for gene, value in held.items()}
    unperturbed = model.solve(states, time).astype(np.float32)
    perturbed = model.solve(states, time, clamp=clamp).astype(np.float32)
    warn_without_effect(stored, held, unperturbed)
    warn_beyond(stored, perturbed, held=list(held))
    change = (perturbed - unperturbed).mean(axis=0)
    largest = np.abs(change).argmax(axis=0)
    response = pd.DataFrame(
        {
            "gene": np.array(stored.genes, dtype=object),
            "change": change[-1],
            "largest_change": change[largest, np.arange(len(stored.genes))],
            "time_of_largest": time[largest],
        }
    )
    return {
        "time": time,
        "trajectories": np.array(names, dtype=object),
        "genes": np.array(stored.genes, dtype=object),
        "unperturbed": unperturbed,
        "perturbed": perturbed,
        "response": response.sort_values("largest_change", key=abs, ascending=False, kind="stable", ignore_index=True),
    }


def _interventions(stored: StoredDynamics | StoredStanding, genes: Any, kind: str) -> pd.DataFrame:
    """Return the table of genes and the levels at which they are held."""
    rows = []
    for name, level in _held(genes, stored):
        this_kind = kind
        if isinstance(genes, Mapping):
            check_between(level, -LARGEST, LARGEST, name=f"genes[{name!r}]")
            usual = _observed(stored, name).mean()
            this_kind = "knockout" if level == 0 else "knockdown" if level < usual else "overexpression"
        elif isinstance(stored, StoredStanding):
            level = default_level(stored, name, kind)
        else:
            observed = _observed(stored, name)
            level = {"knockdown": KNOCKDOWN * observed.mean(), "overexpression": OVEREXPRESSION * observed.max()}.get(
                kind, 0
            )
        rows.append({"gene": name, "kind": this_kind, "value": float(level)})
    table = pd.DataFrame(rows)
    if not isinstance(genes, Mapping) and kind != "overexpression":
        _warn_of_scaled(stored, table.set_index("gene")["value"].to_dict(), kind)
    return table


def _warn_of_scaled(stored: StoredDynamics | StoredStanding, levels: Mapping[str, float], kind: str) -> None:
    """Say which genes a loss of function does not lower: where expression is centred, 0 is its mean."""
    raised = []
    for name, level in levels.items():
        observed = _observed(stored, name)
        place = stored.position(name)
        spread = stored.model.scale[place] if isinstance(stored, StoredStanding) else observed.std()
        if (
            observed.mean() != 0 and level >= observed.mean() - LEAST_LOWERED * spread
        ):  # 0 in all cells: nothing to lower
            raised.append(name)
    if raised:
        warn(
            f"The {kind} of {listing(raised)} holds them at or above their mean level: if expression was centred or scaled, 0 "
            f"does not mean that a gene is off. Pass levels, such as `genes={{{raised[0]!r}: level}}`, or fit to expression "
            "that is not scaled."
        )


def _observed(stored: StoredDynamics | StoredStanding, name: str) -> NDArray[np.float64]:
    """Levels of a gene that the fit has seen (n,); of cells at rest their mean (1,)."""
    position = stored.position(name)
    if isinstance(stored, StoredStanding):
        return stored.model.centre[[position]]
    return stored.model.states[:, position] * stored.model.units.scale[position]


def _held(genes: Any, stored: StoredDynamics | StoredStanding) -> list[tuple[str, Any]]:
    """Genes that are named, with their levels if these are; those of a label that joins several one by one.

    A label may name control cells beside its genes, and the type of the perturbation of each.
    """
    check_type(genes, Iterable, name="genes", expected="a gene, several, or the level of each")
    names = [genes] if isinstance(genes, str) else genes if isinstance(genes, Mapping) else list(genes)
    if len(names) == 0:
        msg = "Expected at least one gene in `genes`, found none. Name the genes to hold."
        raise ValueError(msg)
    held: list[tuple[str, Any]] = []
    for name in names:
        check_type(name, str, name="genes", expected="names of genes")
        level = names[name] if isinstance(names, Mapping) else None
        held += [(part, level) for part in _parts(name, stored)]
    if len({name for name, _ in held}) < len(held):
        msg = f"Expected every gene once in `genes`, found {[name for name, _ in held]}. Name each once."
        raise ValueError(msg)
    return held


def _parts(name: str, stored: StoredDynamics | StoredStanding) -> list[str]:
    """Genes of a label; KeyError, with those of similar names, if one is none of the fit."""
    known, fields = set(stored.genes), stored.fields
    if name in known:
        return [name]
    parts = parse_label(name, control=fields.controls, separator=fields.separator)
    plain = [part if part in known else part.split(TYPE_MARK)[0] for part in parts]
    unknown = [part for part in plain if part not in known]
    if unknown or not parts:
        wrong = (unknown or [name])[0]
        inside = "" if wrong == name else f" of {name!r}"
        msg = (
            f"Expected one of the {len(known)} genes of the fit in `genes`, found {wrong!r}{inside}. "
            f"Similar names: {nearest(wrong, known, n=3)}."
        )
        raise KeyError(msg)
    return plain
