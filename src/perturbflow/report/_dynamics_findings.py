"""Findings about dynamics and the graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from perturbflow.predict._dynamics_store import StoredDynamics, StoredStanding, read_pairs
from perturbflow.report._summary import Findings, Step
from perturbflow.report._words import call_with, counted, number, unless
from perturbflow.store._keys import is_standing
from perturbflow.trajectories._snapshot_fields import is_snapshot

SURE = 0.9
_MOST_EDGES = 10
_METHODS = {"jacobian": "the fitted dynamics", "gates": "the weights of the fitted dynamics"}


def dynamics_findings(adata: AnnData, *, key: str, graph_key: str) -> Findings:
    """Return the findings about dynamics, at any stage after registration."""
    found: list[str] = []
    unknown: list[str] = []
    steps: list[Step] = []
    tables: dict[str, pd.DataFrame] = {}
    names = {} if key == "dynamics" else {"key": key}
    read = call_with("tl.infer_graph", **names, **unless("dynamics_graph", key_added=graph_key))
    if key not in adata.uns:
        steps.append(Step("Fit dynamics", call_with("tl.fit_dynamics", **({"key_added": key} if names else {}))))
    else:
        said, limits = _fit(adata.uns[key], where=f"`adata.uns[{key!r}]`")
        found, unknown = [*found, *said], [*unknown, *limits]
    if graph_key in adata.uns:
        pairs, method, n_fits = _graph(adata, graph_key)
        kept = pairs[pairs["kept"].astype(bool)]
        found += _edges(pairs, kept, method, n_fits)
        if len(kept):
            tables["Edges with the strongest evidence"] = _edge_table(kept, has_confidence=n_fits > 0)
        if method in _METHODS and not n_fits:
            unknown.append("The confidence of the edges: the graph was inferred from a single fit, without bootstraps.")
            steps.append(Step("Estimate the confidence of the edges", read))
        unknown.append(
            "Whether the edges are true: this requires a known network. The effect of an unmeasured regulator is attributed to "
            "genes that are correlated with it."
        )
        known = call_with("pl.precision_recall", truth_key="known_network", **unless("dynamics_graph", keys=graph_key))
        steps.append(Step("Compare with a known network in `adata.varp`, if there is one", known))
    elif key in adata.uns:
        steps.append(Step("Infer the graph", read))
    if key in adata.uns:
        gene = next(map(str, adata.uns["dynamics_fields"]["regulators"]), str(adata.var_names[0]))
        steps.append(Step("Simulate a knock-out", call_with("tl.simulate_knockout", genes=gene, **names)))
        if not is_standing(adata.uns[key]):
            steps.append(Step("Forecast all trajectories", call_with("tl.forecast", **names)))
    return Findings(
        (_registered(adata),),
        tuple(found),
        tuple(unknown),
        tuple(steps),
        tables=tables,
        headline=next(iter(tables), ""),
    )


def _registered(adata: AnnData) -> str:
    """Describe what was registered."""
    fields: Mapping[str, Any] = adata.uns["dynamics_fields"]
    regulators = counted(len(fields["regulators"]), "regulator")
    what = f"Which of {regulators} drive which of {counted(adata.n_vars, 'gene')}"
    if is_snapshot(adata):
        return f"{what}, from {adata.n_obs:,} cells assumed to be at steady state (no time is registered)."
    return f"{what}, from {adata.n_obs:,} cells along `adata.obs[{str(fields['time_key'])!r}]`."


def _fit(entry: Mapping[str, Any], *, where: str) -> tuple[list[str], list[str]]:
    """Describe the fit and its limits."""
    if is_standing(entry):
        standing = StoredStanding.from_dict(entry, where=where)
        n = len(standing.perturbations)
        said = [
            f"Steady-state dynamics of {counted(len(standing.genes), 'gene')} were fitted to the control cells and "
            f"{counted(n, 'measured perturbation')}."
        ]
        limits = [] if n else ["The direction of edges: without perturbations, it is inferred from covariation alone."]
        return said, limits
    stored = StoredDynamics.from_dict(entry, where=where)
    model, path = stored.model, pd.DataFrame(stored.model.path)
    said = [
        f"Dynamics of {counted(len(stored.genes), 'gene')} were fitted to {counted(len(model.names), 'trajectory', plural='trajectories')}, "
        f"with {counted(int(model.support().sum()), 'input')} kept at penalty strength {number(model.strength)}."
    ]
    limits = []
    held_out = path.loc[path["chosen"].astype(bool), "valid_error"].to_numpy(dtype=float) if len(path) else np.zeros(0)
    if held_out.size and np.isfinite(held_out[0]):
        said.append(
            f"The relative error of the predicted rates on held-out data ↓ is {number(float(held_out[0]))}; 1 is the error of "
            "predicting no change."
        )
    else:
        limits.append("How well rates are predicted: no data could be held out.")
    if stored.interrupted:
        limits.append("The result of a complete fit: this one was interrupted.")
    return said, limits


def _graph(adata: AnnData, key: str) -> tuple[pd.DataFrame, str, int]:
    """Return all pairs of a graph, its method, and the number of bootstraps."""
    pairs = read_pairs(adata, key)
    if "kept" not in pairs:
        pairs = pairs.assign(kept=pairs["weight"] != 0)
    record = adata.uns[key]
    return pairs, str(record.get("method", "jacobian")), int(record.get("parameters", {}).get("n_bootstraps", 0))


def _edges(pairs: pd.DataFrame, kept: pd.DataFrame, method: str, n_fits: int) -> list[str]:
    """Say how many edges there are, and how many are reproducible."""
    source = _METHODS.get(method, f"the baseline {method!r}, which does not model dynamics")
    said = [
        f"The graph has {counted(len(kept), 'edge')} among {counted(len(pairs), 'ranked gene pair')}, inferred from {source}."
    ]
    if n_fits:
        sure = int((kept["confidence"] >= SURE).sum())
        said.append(f"{sure:,} of these edges were found in at least {SURE:.0%} of {n_fits:,} bootstrap fits.")
    return said


def _edge_table(kept: pd.DataFrame, *, has_confidence: bool) -> pd.DataFrame:
    """Return the edges with the strongest evidence, formatted as text."""
    top = kept.head(_MOST_EDGES)
    columns = {
        "source": top["source"].astype(str),
        "target": top["target"].astype(str),
        "effect": np.where(top["sign"].to_numpy() > 0, "activates", "represses"),
        "weight": [number(weight) for weight in top["weight"]],
    }
    if has_confidence:
        columns["confidence ↑"] = [f"{confidence:.2f}" for confidence in top["confidence"]]
    return pd.DataFrame(columns)
