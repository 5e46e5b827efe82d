"""Plots of what the tools wrote."""

from __future__ import annotations

from perturbflow.pl._embedding import embedding
from perturbflow.pl._evaluation import evaluation
from perturbflow.pl._expression import expression
from perturbflow.pl._guidance import guidance
from perturbflow.pl._perturbation_effect import perturbation_effect
from perturbflow.pl._ranked_perturbations import ranked_perturbations
from perturbflow.pl._training import training

__all__ = [
    "embedding",
    "evaluation",
    "expression",
    "guidance",
    "perturbation_effect",
    "ranked_perturbations",
    "training",
]
