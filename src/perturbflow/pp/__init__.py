"""Preparation: say where AnnData keeps what was done to the cells and what it was, and divide them into splits."""

from __future__ import annotations

from perturbflow.pp._perturbation_features import perturbation_features
from perturbflow.pp._setup_perturbation import setup_perturbation
from perturbflow.pp._split_perturbations import split_perturbations

__all__ = ["perturbation_features", "setup_perturbation", "split_perturbations"]
