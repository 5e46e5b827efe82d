"""Data sets: simulated screens and time courses whose truth is known, and published ones, read from this machine or downloaded."""

from perturbflow.datasets._hill_network import hill_network
from perturbflow.datasets._hill_system import HillNetwork
from perturbflow.datasets._local import hematopoiesis, kang_ifnb, norman_mcfaline_subset
from perturbflow.datasets._motion_capture import motion_capture
from perturbflow.datasets._published import (
    adamson_2016_upr,
    kang_2018,
    luecken_2021_bone_marrow,
    norman_2019,
    replogle_2022_k562_essential,
    srivatsan_2020_sciplex3,
)
from perturbflow.datasets._simulated_contexts import simulated_contexts
from perturbflow.datasets._simulated_perturb_seq import simulated_perturb_seq
from perturbflow.datasets._simulated_responders import simulated_responders
from perturbflow.datasets._time_courses import solve_system, time_courses

__all__ = [
    "HillNetwork",
    "adamson_2016_upr",
    "hematopoiesis",
    "hill_network",
    "kang_2018",
    "kang_ifnb",
    "luecken_2021_bone_marrow",
    "motion_capture",
    "norman_2019",
    "norman_mcfaline_subset",
    "replogle_2022_k562_essential",
    "simulated_contexts",
    "simulated_perturb_seq",
    "simulated_responders",
    "solve_system",
    "srivatsan_2020_sciplex3",
    "time_courses",
]
