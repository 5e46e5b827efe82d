"""Preparation: say where AnnData keeps what was done to the cells and when they were seen, divide and bin them."""

from perturbflow.pp._assign_lineages import assign_lineages
from perturbflow.pp._bin_pseudotime import bin_pseudotime
from perturbflow.pp._check_split import check_split
from perturbflow.pp._guides_to_genes import guides_to_genes
from perturbflow.pp._perturbation_features import perturbation_features
from perturbflow.pp._setup_dynamics import setup_dynamics
from perturbflow.pp._setup_perturbation import setup_perturbation
from perturbflow.pp._split_perturbations import split_perturbations
from perturbflow.pp._split_scenario import split_scenario

__all__ = [
    "assign_lineages",
    "bin_pseudotime",
    "check_split",
    "guides_to_genes",
    "perturbation_features",
    "setup_dynamics",
    "setup_perturbation",
    "split_perturbations",
    "split_scenario",
]
