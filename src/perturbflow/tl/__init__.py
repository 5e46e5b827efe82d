"""Tools: fit, predict, judge."""

from __future__ import annotations

from perturbflow.tl._evaluate import evaluate
from perturbflow.tl._fit_flow import fit_flow
from perturbflow.tl._predict_perturbation import predict_perturbation

__all__ = ["evaluate", "fit_flow", "predict_perturbation"]
