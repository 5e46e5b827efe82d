"""How well known graphs are found in cells without a time, and left-out perturbations predicted.

`python benchmarks/graphs.py` reads the folder named in PERTURBFLOW_DATA: networks of BEELINE, CARDAMOM and D-SPIN, and with
`--large` SIM350 and yeast. Simulated screens are always there; `--quick` takes these alone. `--time` compares cells of CARDAMOM with
and without their times, and nothing else.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _common import markdown
from _graph_methods import METHODS, default, fitted, time_stamped
from _graph_networks import Network, cardamom, dspin, judged, levels, networks

import perturbflow as pf

if TYPE_CHECKING:
    from collections.abc import Iterable

N_HALVES = 20
SURE = 0.9  # share of halves; without perturbations the confidence is two thirds of it
SIZES = (250, 500, 1000)
SLOW = "boosting"
TIMED = ("FN4", "FN8", "Trees5", "Trees20")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="ranks in simulated screens alone")
    parser.add_argument("--large", action="store_true", help="networks of hundreds of genes, too")
    parser.add_argument("--time", action="store_true", help="only cells with times, used or not")
    parser.add_argument("--confidence", action="store_true", help="only edges that are confident, and shuffled genes")
    parser.add_argument("--out", type=Path, default=None, help="folder for the tables")
    options = parser.parse_args()
    folder = Path(os.environ["PERTURBFLOW_DATA"]) if "PERTURBFLOW_DATA" in os.environ and not options.quick else None
    if options.time:
        if folder is None:
            parser.error("Expected the folder of CARDAMOM in PERTURBFLOW_DATA. Set it, and leave out --quick.")
        print(markdown(times(folder).round(2).set_index("network")))
        return
    if options.confidence:
        print(markdown(calibration(networks(folder, large=False)).round(2).set_index("network")))
        return
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


def times(folder: Path) -> pd.DataFrame:
    """AUPRC over chance and CPU seconds with and without the times of cells, mean over replicates."""
    rows = []
    for name in TIMED:
        for replicate in (1, 2, 3):
            network = cardamom(folder / "cardamom" / name, name, replicate)
            row: dict[str, str | float] = {"network": name}
            for how, method in (("times used", time_stamped), ("not used", default)):
                start = time.process_time()
                row[how] = judged(method(network), network)["AUPRC ratio"]
                row[f"{how}, CPU s"] = time.process_time() - start
            rows.append(row)
            print(row, flush=True)
    return pd.DataFrame(rows).groupby("network", sort=False).mean().reset_index()


def _sure(network: Network) -> float:
    """Return the confidence of edges that come back in nine of ten halves of the cells."""
    return SURE if "gene" in network.cells.obs else SURE * 2 / 3 - 1e-9


def calibration(every: Iterable[Network]) -> pd.DataFrame:
    """Edges that are sure, how many of them are true, and how many there are after every gene was shuffled among cells."""
    rows: dict[str, list[tuple[int, int, int]]] = {}
    for network in every:
        cells = fitted(network)
        pf.tl.infer_graph(cells, n_bootstraps=N_HALVES)
        edges = cells.uns["dynamics_graph"]["edges"]
        sure = edges[edges["confidence"] >= _sure(network)]
        places = [cells.var_names.get_indexer(sure[end]) for end in ("source", "target")]
        rng, values = np.random.default_rng(0), levels(network)
        mixed = np.column_stack([rng.permutation(column) for column in values.T])
        none = Network(network.name, network.group, network.cells.copy(), network.truth, network.regulators)
        none.cells.X = mixed.astype(np.float32)
        shuffled = fitted(none)
        pf.tl.infer_graph(shuffled, n_bootstraps=N_HALVES)
        n_shuffled = int((shuffled.uns["dynamics_graph"]["edges"]["confidence"] >= _sure(none)).sum())
        found = (len(sure), int((network.truth[tuple(places)] != 0).sum()), n_shuffled)
        print(network.name, *found, flush=True)
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
    """CPU seconds of evidence and fit as genes, regulators and cells double together, the last time under perturbations, too."""
    rows = []
    for n_genes, n_held in (*((size, 0) for size in SIZES), (SIZES[-1], SIZES[-1] // 20)):
        cells = lognormal_cells(n_genes, n_genes // 10, 50 * n_genes, n_held=n_held)
        seconds = []
        for work in (pf.dynamics.snapshot_evidence, pf.dynamics.fit_standing):
            start = time.process_time()
            work(cells)
            seconds.append(time.process_time() - start)
        rows.append({"genes": n_genes, "perturbations": n_held, "evidence": seconds[0], "fit": seconds[1]})
    return pd.DataFrame(rows)


def lognormal_cells(n_genes: int, n_regulators: int, n_cells: int, *, n_held: int) -> pf.dynamics.Snapshot:
    """Draw cells of a linear network of log levels, three regulators a gene, half of them with some gene held low."""
    rng = np.random.default_rng(0)
    weights = np.zeros((n_genes, n_regulators))
    for row in weights:
        row[rng.choice(n_regulators, 3, replace=False)] = 0.4 * rng.normal(size=3)
    weights[:n_regulators] *= 0.3
    np.fill_diagonal(weights, 0.0)
    log_levels = rng.normal(size=(n_cells, n_genes)).astype(np.float32)
    among = np.linalg.inv(np.eye(n_regulators) - weights[:n_regulators]).astype(np.float32)
    log_levels[:, :n_regulators] = log_levels[:, :n_regulators] @ among.T
    log_levels[:, n_regulators:] += log_levels[:, :n_regulators] @ weights[n_regulators:].T.astype(np.float32)
    condition, held = np.zeros(n_cells, dtype=int), np.zeros((n_held + 1, n_genes), dtype=bool)
    if n_held:
        condition = rng.integers(0, 2 * n_held, n_cells)
        condition[condition > n_held] = 0
        held[np.arange(1, n_held + 1), np.arange(1, n_held + 1)] = True
        is_held = condition > 0
        log_levels[is_held, condition[is_held]] = -3.0
    names = ("control", *(str(number) for number in range(1, n_held + 1)))
    regulators, context = tuple(range(n_regulators)), np.zeros(n_cells, dtype=int)
    return pf.dynamics.Snapshot(np.exp(0.5 * log_levels), condition, names, held, regulators, context)


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
