"""Names of the ways to sparsity."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from perturbflow.dynamics._cnode import CNODE
from perturbflow.dynamics._group_lasso import GroupLasso
from perturbflow.dynamics._l0 import L0
from perturbflow.dynamics._l1 import L1
from perturbflow.dynamics._lasso_net import LassoNet
from perturbflow.dynamics._pathreg import PathReg
from perturbflow.dynamics._pathreg_edge import PathRegEdge
from perturbflow.dynamics._sparsity import Sparsity

SPARSITIES: Mapping[str, type[Sparsity]] = MappingProxyType(
    {
        "none": Sparsity,
        "l1": L1,
        "cnode": CNODE,
        "l0": L0,
        "group_lasso": GroupLasso,
        "lassonet": LassoNet,
        "pathreg": PathReg,
        "pathreg_edge": PathRegEdge,
    }
)
"""Ways to sparsity by name, a read-only view; formulas and sources are in the classes."""
