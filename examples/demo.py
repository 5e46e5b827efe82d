"""The main jobs on the embedded data sets: cells under perturbations never seen, and which gene drives which."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from matplotlib.axes import Axes

import perturbflow as pf

METRICS = ["energy_distance", "mmd", "rmse_of_mean_effects", "cosine_of_mean_effects", "normalised_rank"]


def main() -> None:
    """Run both demonstrations and save their tables and figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"))
    parser.add_argument("--max-steps", type=int, default=1000, help="training steps of the flow")
    parser.add_argument("--effort", type=float, default=0.4, help="share of the usual steps of the dynamics")
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    screen, combination = predict_cells(arguments.output, max_steps=arguments.max_steps)
    graph = infer_network(screen, combination, arguments.output)
    infer_dynamics(arguments.output, effort=arguments.effort)
    answer(screen, graph, arguments.output)


def predict_cells(output: Path, *, max_steps: int) -> tuple[AnnData, str]:
    """Fit a flow to a simulated screen, predict held-out combinations, judge and plot: the screen, and one of them."""
    adata = pf.datasets.simulated_perturb_seq(seed=0)
    print(
        f"Simulated {adata.n_obs} cells x {adata.n_vars} genes, {adata.obs['perturbation'].nunique() - 1} perturbations"
    )
    pf.pp.setup_perturbation(adata, perturbation_key="perturbation", control="control", covariate_keys=["cell_type"])
    pf.pp.split_perturbations(adata, task="combination", test_fraction=0.4, valid_fraction=0.2, seed=0)

    started = time.monotonic()
    pf.tl.fit_flow(adata, max_steps=max_steps, seed=0)
    held_out = adata.uns["split"]["held_out"]
    combination = held_out.loc[held_out["split"] == "test", "perturbation"].iloc[0]
    pf.tl.predict_perturbation(adata, combination, seed=0)
    print(f"Trained and predicted in {time.monotonic() - started:.0f} s")

    pf.tl.evaluate(adata, seed=0)
    summary = adata.uns["evaluation_summary"]
    table = summary.pivot_table(index=["split", "model"], columns="metric", values="mean", sort=False)
    table = table[[*METRICS, "dynamic_range_fraction"]].round(3)
    print("\nMean over conditions ('test': combinations never seen; 'ceiling': real cells against real cells)\n")
    print(table.to_string())
    table.to_csv(output / "evaluation.csv")

    pf.tl.rank_perturbations(adata, {"perturbation": combination}, combinations=True)
    ranked = adata.uns["ranked_perturbations"]
    print(f"\nWhich perturbation makes cells like those of {combination}? The first five of {len(ranked)}\n")
    columns = ["perturbation", "score", "lower", "upper", "probability_best", "kind"]
    print(ranked[columns].head().round(2).to_string(index=False))

    context = {"cell_type": adata.obs["cell_type"].cat.categories[0]}
    figures = {
        "perturbation_effect": lambda ax: pf.pl.perturbation_effect(adata, combination, ax=ax),
        "expression": lambda ax: pf.pl.expression(adata, combination, covariates=context, ax=ax),
        "embedding": lambda ax: pf.pl.embedding(adata, combination, covariates=context, ax=ax),
        "evaluation": lambda ax: pf.pl.evaluation(adata, split="test", ax=ax),
        "training": lambda ax: pf.pl.training(adata, ax=ax),
        "guidance": lambda ax: pf.pl.guidance(adata, ax=ax),
        "ranked_perturbations": lambda ax: pf.pl.ranked_perturbations(adata, ax=ax),
    }
    save(figures, output)
    print(f"\nSaved the table and {len(figures)} figures in {output}/")
    return adata, combination


def infer_network(adata: AnnData, combination: str, output: Path) -> AnnData:
    """Ask the same screen which gene drives which, and for the means after a combination that the fit has not seen.

    Returns the cells of the fit, with the graph.
    """
    is_test = (adata.obs["split"] == "test").to_numpy()
    train = adata[~is_test].copy()  # registered as it was for the flow
    started = time.monotonic()
    pf.pp.setup_dynamics(train, regulators="is_regulator")
    pf.tl.fit_dynamics(train, seed=0)
    pf.tl.infer_graph(train, n_bootstraps=0)
    print(f"\nFitted dynamics to the same cells and ranked all pairs of genes in {time.monotonic() - started:.0f} s")

    truth = train.varp["true_network"]
    candidates = np.repeat(train.var["is_regulator"].to_numpy()[:, None], train.n_vars, axis=1)
    controls = train.X[(train.obs["perturbation"] == "control").to_numpy()].toarray()
    found = {
        "sparse dynamics": train.varp["dynamics_graph_evidence"],
        "partial correlation": pf.baselines.partial_correlation_graph(controls),
        "correlation": pf.baselines.correlation_graph(controls),
    }
    rows = {}
    for name, graph in found.items():
        scores = pf.metrics.network_scores(abs(graph), truth, candidates=candidates)
        rows[name] = (scores["average_precision"], scores["auroc"])
    rows["random"] = (pf.metrics.edge_density(truth, candidates=candidates), 0.5)
    table = pd.DataFrame(rows, index=["AUPRC", "AUROC"]).T.round(3)
    print("\nHow well the true edges of the screen are ranked first (only regulators have any)\n")
    print(table.to_string())
    table.to_csv(output / "screen_graph.csv")

    # Each gene is held where its own perturbation holds it.
    genes = combination.split("+")
    levels = {gene: float(train[(train.obs["perturbation"] == gene).to_numpy(), gene].X.mean()) for gene in genes}
    pf.tl.simulate_knockout(train, levels)
    knockout = train.uns["knockout"]
    cells = adata.X[is_test & (adata.obs["perturbation"] == combination).to_numpy()].toarray()
    change, others = knockout["perturbed"] - knockout["unperturbed"], ~train.var_names.isin(genes)
    measured = cells.mean(axis=0) - controls.mean(axis=0)
    correlation = np.corrcoef(change[others], measured[others])[0, 1]
    print(
        f"\nMeans after {combination}, which was held out: correlation {correlation:.2f} with the change that was measured"
    )
    save({"precision_recall": lambda ax: pf.pl.precision_recall(train, "true_network", ax=ax)}, output)
    return train


def infer_dynamics(output: Path, *, effort: float) -> None:
    """Fit sparse dynamics to a simulated gene network, read its graph, and predict a knock-out never seen."""
    adata = pf.datasets.hill_network(n_genes=12, n_trajectories=12, knockouts=4, seed=0)
    labels = adata.obs["perturbation"].astype(str)
    held_out = next(label for label in labels.unique() if label != "control")
    train = adata[(labels != held_out).to_numpy()].copy()
    print(f"\nSimulated a network of {adata.n_vars} genes along time; the knock-out of {held_out} is held out")

    started = time.monotonic()
    pf.pp.setup_dynamics(train, time_key="time", trajectory_key="trajectory", perturbation_key="perturbation")
    pf.tl.fit_dynamics(train, effort=effort, seed=0)
    pf.tl.infer_graph(train, n_bootstraps=3)
    print(f"Fitted and inferred the graph in {time.monotonic() - started:.0f} s")

    truth = train.varp["true_graph"]
    scores = {"sparse neural ODE": train.varp["dynamics_graph_evidence"]}
    for name, method in {"partial correlation": "partial_correlation", "correlation": "correlation"}.items():
        pf.tl.infer_graph(train, method=method, key_added=method)
        scores[name] = train.varp[method]
    rows = {name: pf.metrics.network_scores(abs(score), truth) for name, score in scores.items()}
    rows = {name: (row["average_precision"], row["auroc"]) for name, row in rows.items()}
    rows["random"] = (pf.metrics.edge_density(truth), 0.5)
    table = pd.DataFrame(rows, index=["AUPRC", "AUROC"]).T.round(3)
    print("\nHow well the true edges are ranked first\n")
    print(table.to_string())
    table.to_csv(output / "graph.csv")

    pf.tl.forecast(train)
    observed = adata[(labels == held_out).to_numpy()]
    last = observed.obs["time"] == observed.obs["time"].max()
    starts = observed[(observed.obs["time"] == observed.obs["time"].min()).to_numpy()].layers["noise_free"]
    pf.tl.simulate_knockout(train, held_out)
    end = float(observed.obs["time"].max())
    pf.tl.simulate_knockout(train, held_out, start=starts, until=end, key_added="held_out")
    predicted = train.uns["held_out"]["perturbed"][:, -1]
    others = train.var_names != held_out
    measured = observed[last.to_numpy()].layers["noise_free"]
    mean = adata[(labels == "control").to_numpy()].layers["noise_free"].mean(axis=0)
    correlation = np.corrcoef((predicted - mean)[:, others].ravel(), (measured - mean)[:, others].ravel())[0, 1]
    print(f"\nLevels after the held-out knock-out of {held_out}: correlation {correlation:.2f} with the truth")

    figures = {
        "dynamics_graph": lambda ax: pf.pl.dynamics_graph(train, ax=ax),
        "regulators": lambda ax: pf.pl.regulators(train, ax=ax),
        "knockout_response": lambda ax: pf.pl.knockout_response(train, ax=ax),
        "sparsity_path": lambda ax: pf.pl.sparsity_path(train, ax=ax),
    }
    save(figures, output)
    figure = pf.pl.trajectories(
        train, list(train.var_names[:4]), trajectories=list(train.uns["forecast"]["trajectories"][:4])
    )
    figure.savefig(output / "trajectories.png", dpi=150)
    print(f"Saved the table and {len(figures) + 1} figures in {output}/")


def answer(screen: AnnData, graph: AnnData, output: Path) -> None:
    """Say in words what both halves have found of the screen, and write it as a page."""
    for key in ("dynamics_fields", "dynamics", "dynamics_graph"):
        screen.uns[key] = graph.uns[key]
    page = pf.tl.report(screen, output / "report.html", title="A simulated screen")
    print(f"\nThe same with all tables and figures is in {page}\n")
    print(pf.tl.summarise(screen))


def save(figures: Mapping[str, Callable[[Axes], object]], output: Path) -> None:
    """Draw each figure on axes of its own and save it."""
    for name, draw in figures.items():
        figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
        draw(ax)
        figure.savefig(output / f"{name}.png", dpi=150)
        plt.close(figure)


if __name__ == "__main__":
    main()
