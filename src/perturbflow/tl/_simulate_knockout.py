"""Simulate interventions on genes in fitted dynamics."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from perturbflow._checks import check_between, check_one_of, check_type, check_whole_number, nearest
from perturbflow.predict._dynamics_store import read_dynamics
from perturbflow.predict._solutions import check_until, new_starts, warn_beyond, warn_without_effect
from perturbflow.predict._standing_store import default_level, has_standing, read_standing, standing_response
from perturbflow.predict._torch_state import usual_torch
from perturbflow.screen._conditions import TYPE_MARK, parse_label
from perturbflow.screen._fields import writable
from perturbflow.screen._modality import takes_modality
from perturbflow.store._keys import check_key_added

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from perturbflow.predict._dynamics_store import StoredDynamics
    from perturbflow.predict._standing_store import StoredStanding

KINDS = ("knockout", "knockdown", "overexpression")
KNOCKDOWN = 0.25  # of the mean level
OVEREXPRESSION = 1.5  # times the largest level
LARGEST = float(np.finfo(np.float32).max)  # of the levels that the result can hold


@takes_modality
@usual_torch()
def simulate_knockout(
    adata: AnnData | MuData,
    genes: str | Sequence[str] | Mapping[str, float],
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
    """Hold genes at a level from the start on, and predict how all others respond over time.

    A do-intervention: whatever regulates the held genes no longer counts. The response is the difference between the
    run under intervention and the same run without it. A warning names held genes that cannot change any other, and why.

    Of cells at rest, registered without a time, the result is the new standing distribution: means and standard deviations
    of all genes. Perturbations that were measured add what they did beyond the fitted edges, so that at their level they are
    reproduced, without what sampling alone explains; several genes add up what each did alone, where they were not held
    together. ``until``, ``n_times`` and
    ``start`` do not apply.

    Parameters
    ----------
    adata
        Cells with fitted dynamics (:func:`perturbflow.tl.fit_dynamics`).
    genes
        One gene or several that are held together; or the level at which to hold each. The label of a combination, such as
        "KLF1+SET", names all of its genes.
    kind
        Level of genes named without one: 0 for "knockout", a quarter of the mean observed level for "knockdown", 1.5
        times the largest observed level for "overexpression". Of cells at rest, the level of the measured perturbation of
        this gene alone in that direction, for the latter two; without one, a quarter of the mean, or the mean and three
        standard deviations.
    until
        Time up to which to solve; a quarter beyond the observed time by default.
    n_times
        Number of times, evenly spaced.
    start
        Levels of initial cells, shape (K, d) or (d,): a table of pandas, whose columns or index name the genes in any
        order, or an array in the order of ``adata.var_names``. By default the starts of the trajectories without
        intervention, or of all if there are none.
    key
        The dynamics in ``adata.uns``.
    key_added
        Where the response goes in ``adata.uns``.

    Returns
    -------
    None, or the copy with the entry

    `adata.uns["knockout" | key_added]` : dict
        ``time`` (n,), ``trajectories`` (K,), ``unperturbed`` and ``perturbed`` (K, n, d), ``genes`` (d,),
        ``interventions`` (gene, kind, value) and ``response``, a table of all genes with the mean change at the last
        time, the largest mean change and when it is reached, in the unit of the expression. Of cells at rest,
        ``unperturbed``, ``perturbed``, ``unperturbed_sd`` and ``perturbed_sd`` (d,), and in ``response`` the change, the
        same in standard deviations, and the ratio of the standard deviations.

    Raises
    ------
    KeyError
        If there are no fitted dynamics, or a gene is unknown.
    ValueError
        If a setting is wrong, or ``key_added`` names something else than an earlier response.

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
    if has_standing(adata, key):
        return _at_rest(adata, genes, kind, timed=(until, start), key=key, key_added=key_added, copy=copy)
    stored = read_dynamics(adata, key)
    model = stored.model
    interventions = _interventions(stored, _held(genes, stored), kind)
    first, last = float(model.span[:, 0].min()), float(model.span[:, 1].max())
    time = np.linspace(first, check_until(until, first=first, last=last), n_times)
    if start is None:
        free = np.flatnonzero(~model.clamped.any(axis=1))
        rows = free if len(free) else np.arange(len(model.names))
        states, names = model.start[rows], [model.names[row] for row in rows]
    else:
        levels, names = new_starts(adata, stored, start, None)
        states = model.state(levels)
    clamp = {
        stored.position(gene): value for gene, value in zip(interventions["gene"], interventions["value"], strict=True)
    }
    unperturbed = model.solve(states, time).astype(np.float32)
    perturbed = model.solve(states, time, clamp=clamp).astype(np.float32)
    warn_without_effect(stored, dict(zip(interventions["gene"], interventions["value"], strict=True)), unperturbed)
    warn_beyond(stored, perturbed, held=list(interventions["gene"]))
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
    order = np.argsort(-response["largest_change"].abs().to_numpy(), kind="stable")
    adata = writable(adata, copy=copy)
    adata.uns[key_added] = {
        "time": time,
        "trajectories": np.array(names, dtype=object),
        "genes": np.array(stored.genes, dtype=object),
        "unperturbed": unperturbed,
        "perturbed": perturbed,
        "interventions": interventions,
        "response": response.iloc[order].reset_index(drop=True),
    }
    return adata if copy else None


def _at_rest(
    adata: AnnData,
    genes: str | Sequence[str] | Mapping[str, float],
    kind: str,
    *,
    timed: tuple[object, ...],
    key: str,
    key_added: str,
    copy: bool,
) -> AnnData | None:
    """Write the response of cells at rest."""
    if any(value is not None for value in timed):
        msg = "Expected neither `until` nor `start` for cells at rest, found at least one. Leave them out."
        raise ValueError(msg)
    standing = read_standing(adata, key)
    interventions = _table(
        _held(genes, standing), kind, mean=lambda name: float(standing.model.centre[standing.position(name)]),
        level=lambda name: default_level(standing, name, kind),
    )  # fmt: skip
    response = standing_response(standing, dict(zip(interventions["gene"], interventions["value"], strict=True)))
    adata = writable(adata, copy=copy)
    adata.uns[key_added] = response | {"interventions": interventions}
    return adata if copy else None


def _held(genes: Any, stored: StoredDynamics | StoredStanding) -> list[str] | dict[str, float]:
    """Genes that are named, those of a label that joins several one by one, or the level of each.

    A label may name control cells beside its genes, and the type of the perturbation of each.
    """
    names = [genes] if isinstance(genes, str) else genes
    check_type(names, (Mapping, Sequence), name="genes", expected="a gene, several, or the level of each")
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
    return dict(held) if isinstance(names, Mapping) else [name for name, _ in held]


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


def _interventions(stored: StoredDynamics, genes: list[str] | dict[str, float], kind: str) -> pd.DataFrame:
    """Return the table of genes and the levels at which they are held in courses."""

    def observed(name: str) -> NDArray[np.float64]:
        position = stored.position(name)
        return stored.model.states[:, position] * stored.model.units.scale[position]

    levels: dict[str, Callable[[str], float]] = {
        "knockout": lambda name: 0.0,
        "knockdown": lambda name: KNOCKDOWN * observed(name).mean(),
        "overexpression": lambda name: OVEREXPRESSION * observed(name).max(),
    }
    return _table(genes, kind, mean=lambda name: observed(name).mean(), level=levels[kind])


def _table(
    genes: list[str] | dict[str, float],
    kind: str,
    *,
    mean: Callable[[str], float],
    level: Callable[[str], float],
) -> pd.DataFrame:
    """Return the table of genes and the levels at which they are held."""
    rows = []
    for name in genes:
        usual, this_kind = mean(name), kind
        if isinstance(genes, dict):
            check_between(genes[name], -LARGEST, LARGEST, name=f"genes[{name!r}]")
            value = float(genes[name])
            this_kind = "knockout" if value == 0 else "knockdown" if value < usual else "overexpression"
        else:
            value = float(level(name))
        rows.append({"gene": name, "kind": this_kind, "value": value})
    return pd.DataFrame(rows)
