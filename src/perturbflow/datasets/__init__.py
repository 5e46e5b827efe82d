"""Data sets: simulated screens and time courses whose truth is known, and published ones read from this machine."""

from __future__ import annotations

from perturbflow.datasets._dynamical_systems import lorenz96, second_order_system
from perturbflow.datasets._hematopoiesis import hematopoiesis
from perturbflow.datasets._hill_network import hill_network
from perturbflow.datasets._hill_system import HillNetwork
from perturbflow.datasets._local import kang_ifnb, norman_mcfaline_subset
from perturbflow.datasets._motion_capture import motion_capture
from perturbflow.datasets._simulated_contexts import simulated_contexts
from perturbflow.datasets._simulated_perturb_seq import simulated_perturb_seq
from perturbflow.datasets._simulated_responders import simulated_responders
from perturbflow.datasets._yeast_hill import yeast_hill

__all__ = [
    "HillNetwork",
    "hematopoiesis",
    "hill_network",
    "kang_ifnb",
    "lorenz96",
    "motion_capture",
    "norman_mcfaline_subset",
    "second_order_system",
    "simulated_contexts",
    "simulated_perturb_seq",
    "simulated_responders",
    "yeast_hill",
]
