"""Run cell-eval's full profile on two files, in an interpreter that has cell-eval; perturbflow is not needed.

python _cell_eval_run.py real.h5ad predicted.h5ad --control NAME --column NAME --threads N --output FOLDER
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path


def main() -> None:
    """Write the values of all metrics by perturbation, and what they cost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("real", type=Path)
    parser.add_argument("predicted", type=Path)
    parser.add_argument("--control", required=True)
    parser.add_argument("--column", required=True)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()

    from _memory import resident
    from anndata import read_h5ad
    from cell_eval import MetricsEvaluator

    real, predicted = read_h5ad(options.real), read_h5ad(options.predicted)
    wall, cpu = time.perf_counter(), time.process_time()
    evaluator = MetricsEvaluator(
        adata_pred=predicted,
        adata_real=real,
        control_pert=options.control,
        pert_col=options.column,
        num_threads=options.threads,
        outdir=str(options.output / "files"),
    )
    results, _ = evaluator.compute(profile="full", write_csv=False, break_on_error=True)
    cost = {
        "seconds": time.perf_counter() - wall,
        "cpu_seconds": time.process_time() - cpu,
        "peak_gb": resident() / 1e9,
        "metrics": len(results.columns) - 1,
    }
    results.write_csv(options.output / "values.csv")
    (options.output / "cost.json").write_text(json.dumps(cost))


if __name__ == "__main__":
    main()
