"""Solutions of fitted dynamics: starts and times, responses of cells at rest, and what to say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from perturbflow._checks import check_between, check_none, listing
from perturbflow._warnings import warn
from perturbflow.predict._dynamics_store import StoredDynamics, StoredStanding
from perturbflow.screen._named_arrays import chosen
from perturbflow.trajectories._fields import observed_of, trajectories_of

SAME_LEVEL = 1e-6  # relative difference of levels that are one
TOLERATED = 0.5  # of the range of a gene in the fit, how far beyond it a level raises no warning
BEYOND = 0.25  # of the observed time, how far a forecast goes unless asked otherwise


def check_until(until: float | None, *, first: float, last: float) -> float:
    """Return the last time of a solution, after the first observed time."""
    if until is None:
        return last + BEYOND * (last - first)
    check_between(until, -np.inf, np.inf, name="until")
    if not np.isfinite(until) or until <= first:
        msg = f"Expected `until` to be after the first observed time {first:g}, found {until!r}."
        raise ValueError(msg)
    return float(until)


def fitted_solutions(stored: StoredDynamics, *, until: float | None, n_times: int) -> dict[str, Any]:
    """Return the solutions of the trajectories of the fit, from the starts that were learned with it, as an entry."""
    model = stored.model
    time = time_grid(stored, until, n_times)
    values = np.full((len(model.names), n_times, len(stored.genes)), np.nan, dtype=np.float32)
    for begin in np.unique(model.span[:, 0]):
        rows, late = model.span[:, 0] == begin, time >= begin
        grid = np.concatenate([[begin], time[late]])
        solved = model.solve(model.start[rows], grid, clamped=model.clamped[rows])
        values[np.ix_(rows, late)] = solved[:, 1:]
    return _entry(stored, time, list(model.names), values, model.span[:, 1])


def new_solutions(
    adata: AnnData,
    stored: StoredDynamics,
    start: ArrayLike,
    start_names: Sequence[str] | None,
    *,
    until: float | None,
    n_times: int,
) -> dict[str, Any]:
    """Return the solutions from new starts, as an entry."""
    time = time_grid(stored, until, n_times)
    levels, names = new_starts(adata, stored, start, start_names)
    values = stored.model.solve(stored.model.state(levels), time).astype(np.float32)
    return _entry(stored, time, names, values, np.full(len(names), time[0]))


def observed_solutions(
    adata: AnnData, stored: StoredDynamics, observed: AnnData, *, until: float | None, n_times: int
) -> dict[str, Any]:
    """Return forecasts of new trajectories of which a part was observed, as an entry."""
    from perturbflow.dynamics import ObservedForecasts  # here, because it loads torch

    new = observed_of(observed, stored.fields, stored.genes)
    first, last = min(each.time[0] for each in new), max(each.time[-1] for each in new)
    fitted = {run.name: run for run in trajectories_of(adata[:, stored.genes], replace(stored.fields, has_prior=False))}
    missing = [name for name in stored.model.names if name not in fitted]
    expected = f"the cells of the {len(stored.model.names)} trajectories of the fit in `adata`"
    hint = "Pass the cells of the fit as `adata`, and new cells as `observed`."
    check_none(missing, expected, found=f"{len(missing)} missing: ", hint=hint)
    span = stored.model.span
    longest = max(last - first, float((span[:, 1] - span[:, 0]).max()))
    end = check_until(until, first=first, last=max(last, first + longest))
    time = np.linspace(first, end, n_times)
    duration = max(end - each.time[0] for each in new)
    forecasts = ObservedForecasts(stored.model, [fitted[name] for name in stored.model.names], duration=duration)
    values = np.full((len(new), n_times, len(stored.genes)), np.nan, dtype=np.float32)
    for row, each in zip(values, new, strict=True):
        late = time >= each.time[0]
        row[late] = forecasts.forecast(each, time[late])
    until_then = np.array([each.time[-1] for each in new])
    return _entry(stored, time, [each.name for each in new], values, until_then)


def time_grid(stored: StoredDynamics, until: float | None, n_times: int) -> NDArray[np.float64]:
    """Return evenly spaced times from the first observed one of the fit on."""
    span = stored.model.span
    first, last = float(span[:, 0].min()), float(span[:, 1].max())
    return np.linspace(first, check_until(until, first=first, last=last), n_times)


def _entry(
    stored: StoredDynamics, time: NDArray, names: Sequence[str], values: NDArray, observed_until: NDArray
) -> dict[str, Any]:
    """Return a forecast as it is stored."""
    return {
        "time": time,
        "genes": np.array(stored.genes, dtype=object),
        "trajectories": np.array(names, dtype=object),
        "values": values,
        "observed_until": observed_until,
    }


def warn_without_effect(
    stored: StoredDynamics, levels: Mapping[str, float], unperturbed: NDArray[np.floating] | None = None
) -> None:
    """Say which held genes cannot change any other gene, why, and which genes can."""
    config = stored.model.config
    acts = np.zeros((config.n_genes, config.n_genes), dtype=bool)
    sources = np.tile(config.regulators, config.order)
    for target, inputs in enumerate(stored.model.support()):
        acts[sources[inputs], target] = True
    np.fill_diagonal(acts, val=False)
    reasons: dict[str, str] = {}
    for gene, level in levels.items():
        at = stored.position(gene)
        if gene not in stored.fields.regulators:
            reasons[gene] = "is not a regulator in `pf.pp.setup_dynamics(adata, regulators=...)`"
        elif at not in config.regulators:
            reasons[gene] = "has the same level in all cells of the fit, so that its targets are unknown"
        elif not acts[at].any():
            reasons[gene] = "regulates no other gene in these dynamics"
        elif unperturbed is not None and np.allclose(
            unperturbed[..., at], level, rtol=SAME_LEVEL, atol=SAME_LEVEL * stored.model.units.scale[at]
        ):
            reasons[gene] = f"is at {level:g} even without intervention"
    if not reasons:
        return
    can = [stored.genes[k] for k in np.argsort(-acts.sum(axis=1), kind="stable") if acts[k].any()]
    who = f"Genes that regulate others here: {listing(can)}." if can else "No gene regulates another in these dynamics."
    why = "; ".join(f"{gene!r} {reason}" for gene, reason in reasons.items())
    warn(f"Holding {listing(reasons)} changes no other gene: {why}. {who}")


def warn_beyond(stored: StoredDynamics, values: NDArray[np.floating], *, held: Sequence[str] = ()) -> None:
    """Warn of genes, other than held ones, whose predicted levels (K, n, d) lie far outside those of the fit."""
    seen = stored.model.states[:, : len(stored.genes)] * stored.model.units.scale
    low, high = seen.min(axis=0), seen.max(axis=0)
    reach = TOLERATED * (high - low)
    far = ((values < low - reach) | (values > high + reach)).any(axis=(0, 1)) & (reach > 0)
    far[[stored.position(gene) for gene in held]] = False
    if far.any():
        names = [stored.genes[k] for k in np.flatnonzero(far)]
        warn(
            f"{len(names)} of {len(stored.genes)} genes are predicted far outside the levels of the fit: {listing(names)}. "
            "Treat these predictions as extrapolation. A shorter `until`, starts closer to those of the fit, or "
            "trajectories that reach such levels would help."
        )


def new_starts(
    adata: AnnData, stored: StoredDynamics, start: ArrayLike, names: Sequence[str] | None
) -> tuple[NDArray[np.float64], list[str]]:
    """Return levels (K, d) of new starts in the order of the genes of the fit, and their names."""
    levels = start_levels(start, stored.genes, order=adata.var_names)
    if names is None:
        names = [f"start {k}" for k in range(len(levels))]
    if len(names) != len(levels) or len(set(names)) != len(names):
        msg = f"Expected {len(levels)} different names of starts, found {list(names)}."
        raise ValueError(msg)
    return levels, [str(name) for name in names]


def start_levels(start: ArrayLike, genes: Sequence[str], *, order: Sequence[str]) -> NDArray[np.float64]:
    """Return levels (K, d) of new starts in the order of ``genes``: by name, or those of an array in another order."""
    named = chosen(start, genes, name="start")
    values: Any = start if named is None else named
    try:
        levels = np.asarray(values.toarray() if sparse.issparse(values) else values, dtype=float)
    except (TypeError, ValueError) as error:
        msg = f"Expected `start` to be an array of levels, found {type(start).__name__} ({error}). Pass one number per gene."
        raise ValueError(msg) from error
    levels = levels[None] if levels.ndim == 1 else levels
    n_genes = len(order if named is None else genes)
    if levels.ndim != 2 or levels.shape[1] != n_genes or len(levels) == 0:
        msg = f"Expected `start` of shape (number of starts, {n_genes}), found {np.shape(start)}."
        raise ValueError(msg)
    if not np.isfinite(levels).all():
        msg = "Expected `start` to be finite, found NaN or infinite levels. Remove those cells."
        raise ValueError(msg)
    return levels if named is not None else levels[:, pd.Index(order).get_indexer(list(genes))]


def default_level(stored: StoredStanding, gene: str, kind: str) -> float:
    """Return the level of a gene under a kind of intervention, 0 in a knockout.

    Else it is that of the measured perturbation of this gene alone that moved it down or up most; without one, a
    quarter of its mean, or its mean and three standard deviations.
    """
    if kind == "knockout":
        return 0.0
    model, place = stored.model, stored.position(gene)
    alone = (model.held.sum(axis=1) == 1) & model.held[:, place]
    moved = model.shift[alone, place] * (-1 if kind == "knockdown" else 1)
    if len(moved) and moved.max() > 0:
        change = moved.max() * (-1 if kind == "knockdown" else 1)
        return float(model.centre[place] + change * model.scale[place])
    mean = model.centre[place]
    return float(0.25 * mean if kind == "knockdown" else mean + 3 * model.scale[place])


def standing_response(stored: StoredStanding, levels: Mapping[str, float]) -> dict[str, Any]:
    """Return means and spreads (d,) with and without held genes, and the table ``response`` of what changes."""
    model = stored.model
    places = {stored.position(gene): level for gene, level in levels.items()}
    mean, spread = model.hold(places)
    genes = np.array(stored.genes, dtype=object)
    response = pd.DataFrame(
        {
            "gene": genes,
            "change": mean - model.centre,
            "standardised_change": (mean - model.centre) / model.scale,
            "sd_ratio": spread / model.scale,
        }
    )
    _warn_of_response(stored, levels, mean)
    return {
        "genes": genes,
        "unperturbed": model.centre,
        "perturbed": mean,
        "unperturbed_sd": model.scale,
        "perturbed_sd": spread,
        "response": response.sort_values(
            "standardised_change", key=abs, ascending=False, kind="stable", ignore_index=True
        ),
    }


def _warn_of_response(stored: StoredStanding, levels: Mapping[str, float], mean: np.ndarray) -> None:
    """Say what makes a response hard to believe."""
    model = stored.model
    known = [gene for gene in levels if stored.position(gene) in model.regulators]
    unable = [gene for gene in levels if gene not in known and not model.held[:, stored.position(gene)].any()]
    if unable:
        warn(
            f"Holding {unable} changes no other gene: they are not registered as regulators, and no measured perturbation "
            "held them. Pass them to `pf.pp.setup_dynamics(adata, regulators=...)`."
        )
    acts = dict(zip(model.regulators, np.any(model.weights, axis=0).tolist(), strict=True))
    places = {gene: stored.position(gene) for gene in known}
    if idle := [gene for gene, at in places.items() if not acts[at] and not model.held[:, at].any()]:
        warn(
            f"Holding {idle} changes no other gene: no gene depends on them in these dynamics, and no measured perturbation "
            "held them."
        )
    low = np.minimum(model.shift.min(axis=0, initial=0.0), -3.0)
    high = np.maximum(model.shift.max(axis=0, initial=0.0), 3.0)
    change = (mean - model.centre) / model.scale
    reach = TOLERATED * (high - low)
    far = (change < low - reach) | (change > high + reach)
    far[[stored.position(gene) for gene in levels]] = False
    if far.any():
        names = [stored.genes[k] for k in np.flatnonzero(far)]
        warn(
            f"The response of {len(names)} genes is outside their observed range, including {names[:5]}: it is unreliable there."
        )
