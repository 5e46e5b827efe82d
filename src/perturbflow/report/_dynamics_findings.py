"""Findings about dynamics and the graph, at whatever stage."""

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
    """Say what is known of dynamics, of cells that are registered for them."""
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
            tables["Edges of most evidence"] = _edge_table(kept, has_confidence=n_fits > 0)
        if method in _METHODS and not n_fits:
            unknown.append("How sure edges are: the graph was read from one fit, without bootstraps.")
            steps.append(Step("Find out how sure the edges are", read))
        unknown.append(
            "Whether edges are true: only a known network tells, and a regulator that was not measured is blamed on genes that "
            "go with it."
        )
        known = call_with("pl.precision_recall", truth_key="known_network", **unless("dynamics_graph", keys=graph_key))
        steps.append(Step("Compare with a known network in `adata.varp`, where there is one", known))
    elif key in adata.uns:
        steps.append(Step("Read the graph", read))
    if key in adata.uns:
        gene = next(map(str, adata.uns["dynamics_fields"]["regulators"]), str(adata.var_names[0]))
        steps.append(Step("Simulate a knock-out", call_with("tl.simulate_knockout", genes=gene, **names)))
        if not is_standing(adata.uns[key]):
            steps.append(Step("Forecast along every trajectory", call_with("tl.forecast", **names)))
    return Findings(
        (_registered(adata),),
        tuple(found),
        tuple(unknown),
        tuple(steps),
        tables=tables,
        headline=next(iter(tables), ""),
    )


def _registered(adata: AnnData) -> str:
    """Say what was registered."""
    fields: Mapping[str, Any] = adata.uns["dynamics_fields"]
    regulators = counted(len(fields["regulators"]), "regulator")
    what = f"Which of {regulators} drive which of {counted(adata.n_vars, 'gene')}"
    if is_snapshot(adata):
        return f"{what}, from {adata.n_obs:,} cells at rest (no time is registered)."
    return f"{what}, from {adata.n_obs:,} cells along `adata.obs[{str(fields['time_key'])!r}]`."


def _fit(entry: Mapping[str, Any], *, where: str) -> tuple[list[str], list[str]]:
    """Say how dynamics were fitted, and what the fit cannot know."""
    if is_standing(entry):
        standing = StoredStanding.from_dict(entry, where=where)
        n = len(standing.perturbations)
        said = [
            f"Dynamics of {counted(len(standing.genes), 'gene')} at rest were fitted, with "
            f"{counted(n, 'measured perturbation')} beside the controls."
        ]
        limits = [] if n else ["The direction of edges: without perturbations it rests on how levels covary."]
        return said, limits
    stored = StoredDynamics.from_dict(entry, where=where)
    model, path = stored.model, pd.DataFrame(stored.model.path)
    said = [
        f"Dynamics of {counted(len(stored.genes), 'gene')} were fitted to {counted(len(model.names), 'trajectory', plural='trajectories')}: "
        f"{counted(int(model.support().sum()), 'input')} of genes are kept at strength {number(model.strength)} of the penalty."
    ]
    limits = []
    held_out = path.loc[path["chosen"].astype(bool), "valid_error"].to_numpy(dtype=float) if len(path) else np.zeros(0)
    if held_out.size and np.isfinite(held_out[0]):
        said.append(
            f"Rates on the held-out part of the data have relative error ↓ {number(float(held_out[0]))}, where 1 is the error "
            "of predicting no change."
        )
    else:
        limits.append("How well rates are predicted: the fit had nothing that could be held out.")
    if stored.interrupted:
        limits.append("What a whole fit would give: the fit was interrupted, and this is what it had learned by then.")
    return said, limits


def _graph(adata: AnnData, key: str) -> tuple[pd.DataFrame, str, int]:
    """Return all pairs of a graph, its method, and how many fits its confidences are shares of."""
    pairs = read_pairs(adata, key)
    if "kept" not in pairs:
        pairs = pairs.assign(kept=pairs["weight"] != 0)
    record = adata.uns[key]
    return pairs, str(record.get("method", "jacobian")), int(record.get("parameters", {}).get("n_bootstraps", 0))


def _edges(pairs: pd.DataFrame, kept: pd.DataFrame, method: str, n_fits: int) -> list[str]:
    """Say how many edges there are, and which have most evidence."""
    source = _METHODS.get(method, f"the baseline {method!r}, which knows no dynamics")
    said = [
        f"Of {counted(len(pairs), 'ranked pair')} of genes, {len(kept):,} are edges of the graph, read from {source}."
    ]
    if n_fits:
        sure = int((kept["confidence"] >= SURE).sum())
        said.append(f"{sure:,} of these edges came back in at least {SURE:.0%} of {n_fits:,} fits to resampled cells.")
    return said


def _edge_table(kept: pd.DataFrame, *, has_confidence: bool) -> pd.DataFrame:
    """Write the edges of most evidence as text."""
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
