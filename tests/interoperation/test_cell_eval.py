"""Files for cell-eval, read and judged by it."""

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.tl import predict_perturbation, write_cell_eval

cell_eval = pytest.importorskip(
    "cell_eval", reason="installed by `make interoperation` in the environment of `make parity`"
)

pytestmark = pytest.mark.filterwarnings("default:::(anndata|cell_eval|pdex|polars|scanpy|sklearn)")


def test_the_files_are_judged_by_cell_eval(fitted, tmp_path):
    labels = ["A", "B", "B+D"]
    predict_perturbation(fitted, labels)
    write_cell_eval(fitted, tmp_path / "predicted.h5ad", real_path=tmp_path / "real.h5ad")
    evaluator = cell_eval.MetricsEvaluator(
        str(tmp_path / "predicted.h5ad"),
        str(tmp_path / "real.h5ad"),
        control_pert="non-targeting",
        pert_col="target_gene",
        num_threads=1,
        outdir=str(tmp_path / "results"),
    )
    results, _ = evaluator.compute(profile="minimal", write_csv=False, break_on_error=True)
    scores = {row["perturbation"]: row for row in results.to_dicts()}
    assert set(scores) == set(labels)
    for label in labels:
        observed = fitted.X[(fitted.obs["perturbation"] == label).to_numpy()].toarray()
        predicted = fitted.obsm[f"predicted_{label}"]
        predicted = predicted[predicted.getnnz(axis=1) > 0].toarray()
        expected = np.abs(predicted.mean(axis=0) - observed.mean(axis=0)).mean()
        assert scores[label]["mae"] == pytest.approx(expected, rel=1e-4)
