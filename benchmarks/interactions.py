"""Whether what perturbations do in one context and not in others is learned from a few of them.

Simulated screens (:func:`perturbflow.datasets.simulated_contexts`): 8 contexts, 100 perturbations, 200 genes; conserved effects, interactions
of three factors, and a rest that nothing tells. Of one context 0, 10, 30 or 50 % of the perturbations are in the fit; those
of the other half are judged, by their expected expression. "Readable": half of the variance between controls lies along the factors of
contexts; "hidden": none does. "Nothing to learn": all interactions are rest.

Columns, means over seeds and contexts: squared error of the prior relative to that of the shift (control means and the mean change over the
other contexts); share of the learnable interactions that is recovered, ``1 - |predicted - true|^2 / |interaction|^2``, true being without the
rest, in the genes' directions of the true factors and over all genes, where errors of conserved effects count as well; how often
intervals of 90 % hold, as stated by the prior and after calibration (``--calibrate``), in conditions of the context that are not in the fit and that
are; CPU seconds of the fit.

    python benchmarks/interactions.py [--seeds 3] [--calibrate] [--quick] [--output FOLDER]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from _common import markdown
from scipy import sparse
from scipy.special import ndtri

import perturbflow as pf
from perturbflow.flow import AdditiveHurdlePrior, Calibration, CellData, condition_kind, mean_expression

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

SCREENS = {
    "readable": {},
    "hidden": {"readable": 0.0},
    "nothing to learn": {"learnable": 0.0},
}
QUICK = {"n_contexts": 5, "n_perturbations": 30, "n_genes": 80}
SHARES = (0.0, 0.1, 0.3, 0.5)
LEVEL = 0.9


class Screen:
    """Cells of a simulated screen with the truth of every condition (contexts, conditions, genes), controls first."""

    def __init__(self, **options: float) -> None:
        adata = pf.datasets.simulated_contexts(**options)
        self.n_contexts, self.n_factors = adata.uns["context_factors"].shape
        self.names = adata.uns["perturbation_factors"].index
        self.x = adata.X
        self.contexts = adata.obs["context"].cat.codes.to_numpy().astype(int)
        self.perturbations = self.names.get_indexer(adata.obs["perturbation"])  # -1 for controls
        shape = (self.n_contexts, 1 + len(self.names), adata.n_vars)
        self.truth = {part: table.to_numpy().reshape(shape) for part, table in adata.uns["expected"].items()}

    def cells(self, rows: NDArray[np.bool_]) -> CellData:
        """Cells of some rows, as a fit takes them."""
        own = self.perturbations[rows]
        perturbed = np.flatnonzero(own >= 0)
        doses = sparse.csr_matrix(
            (np.ones(len(perturbed), dtype=np.float32), (perturbed, own[perturbed])), shape=(len(own), len(self.names))
        )
        return CellData(self.x[rows], doses, self.contexts[rows, None])

    def shift(self, rows: NDArray[np.bool_], target: int, judged: NDArray[np.intp]) -> NDArray[np.float64]:
        """Mean of the controls of a context and the mean change over all others."""
        means = np.full((self.n_contexts, 1 + len(self.names), self.x.shape[1]), np.nan)
        number = self.contexts[rows] * means.shape[1] + 1 + self.perturbations[rows]
        of_group = sparse.csr_matrix((np.ones(len(number)), (number, np.arange(len(number)))))
        total, n_cells = of_group @ self.x[rows], np.asarray(of_group.sum(axis=1)).ravel()
        places = np.flatnonzero(n_cells)
        means.reshape(-1, means.shape[2])[places] = total[places].toarray() / n_cells[places, None]
        others = np.delete(means, target, axis=0)
        return means[target, 0] + (others[:, 1 + judged] - others[:, :1]).mean(axis=0)


def judged(name: str, options: dict, *, seed: int, targets: int, calibrate: bool) -> Iterator[dict]:
    """Scores of every target context and share of its perturbations."""
    screen = Screen(**options, seed=seed)
    n_perturbations = len(screen.names)
    for target in np.random.default_rng(seed).permutation(screen.n_contexts)[:targets]:
        order = np.random.default_rng([seed, target]).permutation(n_perturbations)
        absent = np.sort(order[n_perturbations // 2 :])
        for share in SHARES:
            present = np.sort(order[: round(share * n_perturbations)])
            own = screen.perturbations
            rows = (screen.contexts != target) | (own < 0) | np.isin(own, present)
            cells = screen.cells(rows)
            started = time.process_time()
            prior = AdditiveHurdlePrior.fit(cells)
            seconds = time.process_time() - started
            calibration = Calibration.fit(cells) if calibrate else None
            predicted, *held = predictions(screen, prior, calibration, target, absent)
            learnable, conserved = (screen.truth[part][target, 1 + absent] for part in ("learnable", "conserved"))
            true = screen.truth["all"][target, 1 + absent]
            shifted = screen.shift(rows, target, absent)
            found = {
                "screen": name,
                "measured": f"{share:.0%}",
                "seed": seed,
                "context": int(target),
                "error / shift": np.square(predicted - true).mean() / np.square(shifted - true).mean(),
                "recovered": recovered(predicted, learnable, conserved, screen.n_factors),
                "over all genes": recovered(predicted, learnable, conserved, None),
                "stated": held[0],
                "calibrated": held[1],
                "seconds": seconds,
            }
            if len(present):
                _, found["stated, measured"], found["calibrated, measured"] = predictions(
                    screen, prior, calibration, target, present
                )
            yield found


def predictions(
    screen: Screen, prior: AdditiveHurdlePrior, calibration: Calibration | None, target: int, which: NDArray[np.intp]
) -> tuple[NDArray[np.float64], float, float]:
    """Predicted means (n, G), and how often stated and calibrated intervals hold the truth."""
    context = prior.context(np.array([target]))
    predicted, stated, calibrated = [], [], []
    for number in which:
        dose = (np.arange(len(screen.names)) == number).astype(np.float32)
        mean, sd = mean_expression(prior, dose, context)
        true = screen.truth["all"][target, 1 + number]
        predicted.append(mean)
        stated.append(np.abs(true - mean) <= ndtri((1 + LEVEL) / 2) * sd)
        if calibration is not None:
            kind = condition_kind(prior, dose, context)
            low, high = calibration.interval(mean, sd, kind=kind, level=LEVEL)
            calibrated.append((low <= true) & (true <= high))
    return np.array(predicted), float(np.mean(stated)), float(np.mean(calibrated)) if calibrated else np.nan


def recovered(
    predicted: NDArray[np.float64], true: NDArray[np.float64], conserved: NDArray[np.float64], n_factors: int | None
) -> float:
    """Share of the interactions (n, G) that predictions recover, in the directions of their factors or over all genes."""
    interaction, error = true - conserved, predicted - true
    if not interaction.any():
        return np.nan
    if n_factors is not None:
        directions = np.linalg.svd(interaction, full_matrices=False)[2][:n_factors].T
        interaction, error = interaction @ directions, error @ directions
    return float(1 - np.square(error).sum() / np.square(interaction).sum())


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--targets", type=int, default=2, help="contexts of every screen that are left out in turn")
    parser.add_argument("--screens", nargs="+", default=list(SCREENS))
    parser.add_argument("--calibrate", action="store_true", help="calibrate as well, minutes a fit")
    parser.add_argument("--quick", action="store_true", help="small screens and one seed")
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    arguments = parser.parse_args()
    scores = pd.DataFrame(
        row
        for name in arguments.screens
        for seed in range(1 if arguments.quick else arguments.seeds)
        for row in judged(
            name,
            SCREENS[name] | (QUICK if arguments.quick else {}),
            seed=seed,
            targets=1 if arguments.quick else arguments.targets,
            calibrate=arguments.calibrate,
        )
    )
    table = scores.drop(columns=["seed", "context"]).groupby(["screen", "measured"], sort=False).mean()
    arguments.output.mkdir(parents=True, exist_ok=True)
    scores.to_csv(arguments.output / "interactions_contexts.csv", index=False)
    table.reset_index().to_csv(arguments.output / "interactions.csv", index=False)
    print(markdown(table.dropna(axis=1, how="all").round(3).reset_index().set_index("screen")))


if __name__ == "__main__":
    main()
