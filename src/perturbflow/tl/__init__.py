"""Tools: fit, predict, judge."""

from __future__ import annotations

from perturbflow.tl._evaluate import evaluate
from perturbflow.tl._fit_flow import fit_flow
from perturbflow.tl._predict_perturbation import predict_perturbation
from perturbflow.tl._rank_perturbations import rank_perturbations
from perturbflow.tl._write_cell_eval import write_cell_eval

__all__ = ["evaluate", "fit_flow", "predict_perturbation", "rank_perturbations", "write_cell_eval"]
