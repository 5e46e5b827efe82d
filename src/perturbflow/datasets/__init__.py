"""Data sets: simulated screens and time courses whose truth is known, and published ones, read from this machine or downloaded."""

from __future__ import annotations

from perturbflow.datasets._bone_marrow import luecken_2021_bone_marrow
from perturbflow.datasets._dynamical_systems import HELD_LEVEL as HELD_LEVEL
from perturbflow.datasets._dynamical_systems import STIFFNESS as STIFFNESS
from perturbflow.datasets._dynamical_systems import lorenz96, second_order_system
from perturbflow.datasets._hematopoiesis import hematopoiesis
from perturbflow.datasets._hill_network import hill_network
from perturbflow.datasets._hill_system import HillNetwork
from perturbflow.datasets._kang_2018 import kang_2018
from perturbflow.datasets._local import kang_ifnb, norman_mcfaline_subset
from perturbflow.datasets._motion_capture import motion_capture
from perturbflow.datasets._scperturb import (
    adamson_2016_upr,
    norman_2019,
    replogle_2022_k562_essential,
    srivatsan_2020_sciplex3,
)
from perturbflow.datasets._simulated_contexts import simulated_contexts
from perturbflow.datasets._simulated_perturb_seq import simulated_perturb_seq
from perturbflow.datasets._simulated_responders import simulated_responders
from perturbflow.datasets._yeast_hill import yeast_hill

__all__ = [
    "HillNetwork",
    "adamson_2016_upr",
    "hematopoiesis",
    "hill_network",
    "kang_2018",
    "kang_ifnb",
    "lorenz96",
    "luecken_2021_bone_marrow",
    "motion_capture",
    "norman_2019",
    "norman_mcfaline_subset",
    "replogle_2022_k562_essential",
    "second_order_system",
    "simulated_contexts",
    "simulated_perturb_seq",
    "simulated_responders",
    "srivatsan_2020_sciplex3",
    "yeast_hill",
]
