"""Speed, memory and scaling of the flow, and how few evaluations of the network a prediction needs.

Every measurement runs in a process of its own on one thread (or on the GPU where there is one), on synthetic sparse
cells (CSR, a tenth of the values stored), all networks zero-inflated, with the training settings of their preset
(`benchmarks/_training.py`) and sampled as the default samples (from control cells, start 0.7). On the CPU seconds are
CPU seconds, and the U-Net takes fewer cells a step over many genes. Memory is the highest resident set of the process
beyond what it had after its imports, the cells included; on a GPU it is the highest allocation. Work outside matrix
products is what the profiler finds in a training step that is neither a product nor a convolution nor attention.

    python benchmarks/flow_speed.py [--genes 500 2000 8000 18000] [--networks ...] [--set norman] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from _common import SETS, markdown, one_thread
from _speed_measurements import SOURCES, evaluations_against_energy, fit_and_sample, peak_of_matrix_products
from _training import NETWORKS

WITHIN = 0.02
MOST_EVALUATIONS = 20


def apart(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(function, *arguments).result()


def exponent(sizes: pd.Series, values: pd.Series) -> float:
    """Slope of a line through the logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def by_genes(options: argparse.Namespace) -> pd.DataFrame:
    """Every network at every number of genes."""
    rows = []
    for network in options.networks:
        for n_genes in options.genes:
            rows.append(apart(fit_and_sample, network, options.cells[0], n_genes, options.conditions[0], True))
            print(f"  {network}, {n_genes} genes", flush=True)
    return pd.DataFrame(rows)


def by_size(options: argparse.Namespace) -> pd.DataFrame:
    """The default at several numbers of cells and of conditions, each at the fewest genes."""
    n_genes = min(options.genes)
    sizes = [(n, options.conditions[0]) for n in options.cells] + [
        (options.cells[0], n) for n in options.conditions[1:]
    ]
    rows = [apart(fit_and_sample, "MLP", n_cells, n_genes, n, False) for n_cells, n in sizes]
    return pd.DataFrame(rows)


def print_speed(table: pd.DataFrame, peak: float) -> None:
    """Throughput, memory, and where the time goes."""
    shown = table[["network", "genes", "batch"]].copy()
    shown["training cells/s"] = table["training cells/s"].map("{:,.0f}".format)
    shown["sampled cells/s"] = table["sampled cells/s"].map("{:,.0f}".format)
    shown["memory, MB"] = table["memory MB"].map("{:,.0f}".format)
    shown["outside matrix work"] = table["outside matrix work"].map("{:.0%}".format)
    shown["of the peak"] = (table["FLOP/s"] / peak).map("{:.0%}".format)
    print(f"\nSpeed on {table['device'].iloc[0]}; peak: {peak / 1e9:,.0f} GFLOP/s in a large matrix product\n")
    print(markdown(shown.set_index("network")))


def print_exponents(genes: pd.DataFrame, sizes: pd.DataFrame) -> None:
    """How time and memory grow."""
    rows = []
    for network, part in genes.groupby("network", sort=False):
        rows.append({"of": network, "with": "genes"} | exponents(part, "genes"))
    few_cells, few_conditions = sizes["cells"].min(), sizes["conditions"].min()
    rows.append({"of": "MLP", "with": "cells"} | exponents(sizes[sizes["conditions"] == few_conditions], "cells"))
    rows.append({"of": "MLP", "with": "conditions"} | exponents(sizes[sizes["cells"] == few_cells], "conditions"))
    print("\nScaling exponents (slope between logarithms; 0 is constant, 1 is linear)\n")
    print(markdown(pd.DataFrame(rows).set_index(["of", "with"])))


def exponents(table: pd.DataFrame, size: str) -> dict[str, str]:
    """Exponents of a table's columns in one of its sizes."""
    if table[size].nunique() < 2:
        return {}
    values = {
        "a trained cell": 1 / table["training cells/s"],
        "a sampled cell": 1 / table["sampled cells/s"],
        "fit of the prior": table["prior s"],
        "memory": table["memory MB"],
    }
    return {name: f"{exponent(table[size], column):.2f}" for name, column in values.items()}


def print_evaluations(table: pd.DataFrame, *, name: str) -> None:
    """Energy distance by number of evaluations, relative to the most."""
    print(f"\nEvaluations of the network a cell against energy distance, {name}, held-out conditions\n")
    wide = table.pivot_table(index="steps", columns="source", values=["evaluations", "energy"], sort=False)
    shown, lines = pd.DataFrame(index=wide.index), []
    for source in SOURCES:
        energy, evaluations = wide["energy", source], wide["evaluations", source]
        relative = energy / energy.iloc[-1] - 1
        shown[f"{source}: evaluations"] = evaluations.round().astype(int)
        shown[f"{source}: energy"] = energy.map("{:.4f}".format)
        shown[f"{source}: against the most"] = relative.map("{:+.1%}".format)
        outside = np.flatnonzero(relative.abs().to_numpy() > WITHIN)
        first = outside[-1] + 1 if len(outside) else 0
        fewest = int(evaluations.iloc[first])
        verdict = "at most" if fewest <= MOST_EVALUATIONS else "MORE THAN"
        lines.append(f"- {source}: within {WITHIN:.0%} from {fewest} evaluations on ({verdict} {MOST_EVALUATIONS})")
    print(markdown(shown))
    print("\n" + "\n".join(lines))


def parsed() -> argparse.Namespace:
    """Options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, nargs="+", default=[500, 2000, 8000, 18000])
    parser.add_argument("--cells", type=int, nargs="+", default=[2000, 8000, 32000])
    parser.add_argument("--conditions", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--set", default="norman", choices=[*SETS, "simulated"], help="cells for the last table")
    parser.add_argument("--steps", type=int, default=600, help="steps of training for the last table")
    parser.add_argument("--solver-steps", type=int, nargs="+", default=[1, 2, 3, 5, 10, 20, 50, 100, 200])
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    return parser.parse_args()


def main() -> None:
    """Measure, save and print."""
    options = parsed()
    one_thread()
    options.output.mkdir(parents=True, exist_ok=True)
    genes = by_genes(options)
    sizes = by_size(options)
    evaluations = pd.DataFrame(apart(evaluations_against_energy, options.set, options.steps, options.solver_steps))
    for name, table in {"genes": genes, "sizes": sizes, "evaluations": evaluations}.items():
        table.to_csv(options.output / f"flow_speed_{name}.csv", index=False)
    print_speed(genes, apart(peak_of_matrix_products))
    print_exponents(genes, sizes)
    print_evaluations(evaluations, name=options.set)


if __name__ == "__main__":
    main()
