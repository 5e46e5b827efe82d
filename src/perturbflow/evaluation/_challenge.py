"""The score of the 2026 Virtual Cell Challenge, where an evaluation has what it takes."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perturbflow.evaluation._tables import CEILING, CHALLENGE, DUPLICATE
from perturbflow.metrics import SUITES, challenge_score

BASELINE = "mean effect"
# Errors are not divided by the sizes of effects here: on a scale between two ends a common factor cancels.
NAMES = {
    "discrimination_score": "pds_cosine",
    "unbiased_mse_capped": "expr_mse_unbiased_capped_norm",
    "direction_fidelity_yield": "de_wilcoxon_direction_fidelity_yield_raw",
    "direction_reach": "de_wilcoxon_direction_reach_raw",
    "jaccard_of_significant_genes": "de_wilcoxon_sig_jaccard",
    "relative_error_of_log_fold_changes": "de_wilcoxon_lfc_nmae",
}


def with_challenge_scores(summary: pd.DataFrame) -> pd.DataFrame:
    """Return a summary with the challenge's score of every model, by split.

    It has further rows, with the mean of :func:`perturbflow.metrics.challenge_score`, where it has all six metrics, the
    baseline "mean effect" and the ceiling.
    """
    rows: list[dict[str, Any]] = []
    part = summary[summary["metric"].isin(SUITES["vcc2026"])]
    for split, here in part.groupby("split", sort=False):
        means = here.pivot(index="model", columns="metric", values="mean").rename(columns=NAMES)
        if not {BASELINE, CEILING} <= {*means.index} or len(means.columns) < len(NAMES):
            continue
        counts = here.groupby("model", sort=False)["n_conditions"].min()
        for model in counts.index.drop([CEILING, DUPLICATE], errors="ignore"):
            score = challenge_score(*(means.loc[name].to_dict() for name in (model, BASELINE, CEILING)))["mean"]
            row = {"split": split, "model": model, "metric": CHALLENGE, "mean": score, "best_baseline": ""}
            rows.append(row | {"n_conditions": int(counts[model])})
    return pd.DataFrame(summary.to_dict("records") + rows, columns=summary.columns) if rows else summary
