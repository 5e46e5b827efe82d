"""How well known graphs are found in cells without a time, and left-out perturbations foretold.

`python benchmarks/graphs.py` reads the folder named in PERTURBFLOW_DATA: networks of BEELINE, CARDAMOM and D-SPIN, and with
`--large` SIM350 and yeast. Simulated screens are always there; `--quick` takes these alone.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
from _common import markdown
from _graph_methods import METHODS, default, fitted
from _graph_networks import Network, dspin, judged, levels, networks

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Iterable

N_HALVES = 20
SURE = 0.9
SIZES = (250, 500, 1000)
SLOW = "boosting"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ranks in simulated screens alone")
    parser.add_argument("--large", action="store_true", help="networks of hundreds of genes, too")
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    options = parser.parse_args()
    folder = Path(os.environ["PERTURBFLOW_DATA"]) if "PERTURBFLOW_DATA" in os.environ and not options.quick else None
    rows = []
    for network in networks(folder, large=options.large):
        chosen = {name: METHODS[name] for name in METHODS if not (options.quick and name == SLOW)}
        for name, method in chosen.items():
            start = time.process_time()
            score = method(network)
            seconds = time.process_time() - start
            rows.append({"network": network.group, "method": name, **judged(score, network), "CPU s": seconds})
        print(pd.DataFrame(rows[-len(chosen) :]).round(2).to_string(index=False), flush=True)
    table = pd.DataFrame(rows)
    tables = {"graphs": table}
    for score in ("AUPRC ratio", "signed AUPRC ratio", "early ratio", "AUROC", "CPU s"):
        wide = table.pivot_table(index="network", columns="method", values=score, sort=False)
        wide = wide[[name for name in METHODS if name in wide]]
        if score == "AUPRC ratio":
            wide.loc["mean rank"] = wide.rank(axis=1, ascending=False).mean()
        print(f"\n{score}\n\n{markdown(wide.round(2))}")
    if not options.quick:
        tables["calibration"] = calibration(networks(folder, large=False))
        print(markdown(tables["calibration"].round(2).set_index("network")))
        tables["knockouts"] = knockouts(0)
        means = tables["knockouts"].drop(columns="perturbation").groupby("kind", sort=False).mean()
        print(markdown(means.round(3)))
    if folder is not None:
        cells = dspin(folder)
        tables["curve"] = curve(cells)
        tables["left_out"] = left_out(cells)
        print(markdown(tables["curve"].round(3).set_index(tables["curve"].columns[0])))
        print(tables["left_out"].drop(columns="perturbation").mean().round(3).to_string())
    if options.large:
        tables["speed"] = speed()
        print(markdown(tables["speed"].round(2).set_index("genes")))
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        for name, each in tables.items():
            each.to_csv(options.out / f"{name}.csv", index=False)


def calibration(every: Iterable[Network]) -> pd.DataFrame:
    """Edges that are sure, how many of them are true, and how many there are after every gene was shuffled among cells."""
    rows: dict[str, list[tuple[int, int, int]]] = {}
    for network in every:
        cells = fitted(network)
        pf.tl.infer_graph(cells, n_bootstraps=N_HALVES)
        edges = cells.uns["dynamics_graph"]["edges"]
        sure = edges[edges["confidence"] >= SURE]
        places = [cells.var_names.get_indexer(sure[end]) for end in ("source", "target")]
        rng, values = np.random.default_rng(0), levels(network)
        mixed = np.column_stack([rng.permutation(column) for column in values.T])
        none = Network(network.name, network.group, network.cells.copy(), network.truth, network.regulators)
        none.cells.X = mixed.astype(np.float32)
        shuffled = fitted(none)
        pf.tl.infer_graph(shuffled, n_bootstraps=N_HALVES)
        n_shuffled = int((shuffled.uns["dynamics_graph"]["edges"]["confidence"] >= SURE).sum())
        found = (len(sure), int((network.truth[tuple(places)] != 0).sum()), n_shuffled)
        rows.setdefault(network.group, []).append(found)
    totals = {group: np.sum(parts, axis=0) for group, parts in rows.items()}
    totals["all"] = np.sum(list(totals.values()), axis=0)
    return pd.DataFrame(
        [
            {"network": group, "sure": n, "true": true, "share true": true / max(n, 1), "sure, shuffled": mixed}
            for group, (n, true, mixed) in totals.items()
        ]
    )


def curve(network: Network) -> pd.DataFrame:
    """AUPRC with ever more perturbations, mean over five orders of them."""
    labels = network.cells.obs["perturbation"].astype(str)
    known = sorted({*labels} - {"control"})
    rows = []
    for number in (0, 4, 8, len(known)):
        scores = []
        for seed in range(5 if 0 < number < len(known) else 1):
            chosen = [*np.random.default_rng(seed).permutation(known)[:number], "control"]
            part = Network("", "", network.cells[labels.isin(chosen)].copy(), network.truth, network.regulators)
            scores.append(judged(default(part), part)["AUPRC"])
        rows.append({"perturbations": number, "AUPRC": np.mean(scores)})
    return pd.DataFrame(rows)


def knockouts(seed: int) -> pd.DataFrame:
    """Correlation over genes of true effects in the default simulated screen with simulated and with measured ones."""
    screen = pf.datasets.simulated_perturb_seq(seed=seed)
    pf.pp.setup_perturbation(screen, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.setup_dynamics(screen, regulators="is_regulator")
    labels = screen.obs["perturbation"].astype(str).to_numpy()
    truth = screen.uns["true_effects"]
    truth = truth.groupby([name.split("|")[0] for name in truth.index]).mean()
    means = pd.DataFrame(screen.X.toarray(), columns=screen.var_names)
    means = means.groupby([labels, screen.obs["cell_type"].astype(str).to_numpy()]).mean().groupby(level=0).mean()
    whole = screen.copy()
    pf.tl.fit_dynamics(whole)
    rows = []
    for name in sorted({*labels} - {"control"}):
        genes = name.split("+")
        free = ~screen.var_names.isin(genes)
        held = {gene: float(screen[labels == name, gene].X.mean()) for gene in genes}
        # Without a gene's own cells all that hold it are left out; without those of a pair its parts stay.
        rest = screen[(labels != name) & [len(genes) > 1 or name not in label.split("+") for label in labels]].copy()
        pf.tl.fit_dynamics(rest)
        row = {"perturbation": name, "kind": "pair" if len(genes) > 1 else "single"}
        for how, part in (("in the fit", whole), ("left out", rest)):
            pf.tl.simulate_knockout(part, held)
            change = part.uns["knockout"]["perturbed"] - part.uns["knockout"]["unperturbed"]
            row[how] = np.corrcoef(change[free], truth.loc[name][free])[0, 1]
        measured = (means.loc[name] - means.loc["control"]).to_numpy()
        row["measured means"] = np.corrcoef(measured[free], truth.loc[name][free])[0, 1]
        rows.append(row)
    return pd.DataFrame(rows)


def speed() -> pd.DataFrame:
    """CPU seconds of a fit as cells, genes and regulators double together, and the exponent against the row before."""
    rows = []
    for n_genes in SIZES:
        screen = pf.datasets.simulated_perturb_seq(
            50 * n_genes,
            n_genes,
            n_regulators=n_genes // 10,
            n_perturbations=n_genes // 20,
            n_combinations=0,
            cell_types=1,
        )
        for kind, key in (("cells alone", None), ("screen", "perturbation")):
            cells = ad.AnnData(screen.X, obs=screen.obs, var=screen.var).copy()
            pf.pp.setup_dynamics(cells, regulators="is_regulator", perturbation_key=key)
            start = time.process_time()
            pf.tl.fit_dynamics(cells)
            rows.append({"genes": n_genes, "cells": cells.n_obs, "kind": kind, "CPU s": time.process_time() - start})
    table = pd.DataFrame(rows)
    table["exponent"] = np.log2(table["CPU s"] / table.groupby("kind")["CPU s"].shift())
    return table


def left_out(network: Network) -> pd.DataFrame:
    """Errors of shifts, in s.d. of controls: gene by gene left out, and all in the fit, over the genes not held."""
    cells, values = network.cells, levels(network)
    labels = cells.obs["perturbation"].astype(str).to_numpy()
    control = values[labels == "control"]
    shifts = {
        name: (values[labels == name].mean(axis=0) - control.mean(axis=0)) / control.std(axis=0)
        for name in sorted({*labels} - {"control"})
    }
    rows = []
    for name, shift in shifts.items():
        gene = name.split("_")[0]
        place = cells.var_names.get_loc(gene)
        free = np.arange(cells.n_vars) != place
        level = {gene: float(values[labels == name, place].mean())}
        others = np.mean([each for other, each in shifts.items() if other.split("_")[0] != gene], axis=0)
        found = {}
        for how, part in (("left out", cells[cells.obs["gene"] != gene].copy()), ("in the fit", cells.copy())):
            pf.pp.setup_dynamics(part, perturbation_key="gene", perturbation_type_key="kind")
            pf.tl.fit_dynamics(part)
            pf.tl.simulate_knockout(part, level)
            response = part.uns["knockout"]
            found[how] = (response["perturbed"] - response["unperturbed"]) / control.std(axis=0)
        errors = {**found, "mean of the others": others, "no change": np.zeros(len(shift))}
        row = {f"RMSE, {how}": np.sqrt(((each - shift)[free] ** 2).mean()) for how, each in errors.items()}
        pearson = np.corrcoef(found["left out"][free], shift[free])[0, 1]
        rows.append({"perturbation": name, **row, "Pearson, left out": pearson})
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
