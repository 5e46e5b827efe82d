"""Data sets: a simulated screen whose truth is known, and published screens read from this machine."""

from __future__ import annotations

from perturbflow.datasets._local import kang_ifnb, norman_mcfaline_subset
from perturbflow.datasets._simulated_perturb_seq import simulated_perturb_seq

__all__ = ["kang_ifnb", "norman_mcfaline_subset", "simulated_perturb_seq"]
