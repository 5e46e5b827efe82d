"""Names of the ways to sparsity."""

from __future__ import annotations

from collections.abc import Mapping

from perturbflow.dynamics._cnode import CNODE
from perturbflow.dynamics._group_lasso import GroupLasso
from perturbflow.dynamics._l0 import L0
from perturbflow.dynamics._l1 import L1
from perturbflow.dynamics._lasso_net import LassoNet
from perturbflow.dynamics._pathreg import PathReg
from perturbflow.dynamics._pathreg_edge import PathRegEdge
from perturbflow.dynamics._sparsity import Sparsity

SPARSITIES: Mapping[str, type[Sparsity]] = {
    "none": Sparsity,
    "l1": L1,
    "cnode": CNODE,
    "l0": L0,
    "group_lasso": GroupLasso,
    "lassonet": LassoNet,
    "pathreg": PathReg,
    "pathreg_edge": PathRegEdge,
}
