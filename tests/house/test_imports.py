"""Who may import whom. The rules are read from the source, so that imports inside functions count too."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SOURCE = CHECKOUT / "src"

# A room imports only from lower floors. The root has what every room but the two of mathematics may use.
LEVEL = {
    "tl": 9,  # a report has figures
    "report": 8.5,  # names things as figures do
    "pl": 8,
    "models": 7,  # the scvi-tools classes
    "evaluation": 7,  # what tl.evaluate does
    "train": 6,  # chooses on validation conditions with the metrics
    "predict": 5,
    "pp": 5,
    "metrics": 5,
    "baselines": 5,
    "datasets": 5,
    "trajectories": 4,
    "screen": 3,
    "store": 2,
    "flow": 1,
    "dynamics": 1,
}
ROOT_LEVEL = 1.5
ABOVE_THE_ROOT = {"_settings": 1.6, "_progress": 1.7}  # settings are checked, and progress asks them
ROOT_MODULES = {"__init__", "_checks", "_docs", "_progress", "_settings", "_warnings"}

NUMERIC = {"numpy", "scipy", "torch"}
ALLOWED = {"flow": NUMERIC, "dynamics": NUMERIC}
FORBIDDEN = {
    "_checks": {"anndata", "scanpy", "scvi"},
    "store": {"scanpy", "scvi"},
    "train": {"scanpy", "scvi"},
    "predict": {"scanpy", "scvi"},
}
ENGINE = {"lightning": {"train"}, "scvi": {"models"}}  # which rooms know a framework


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, *, module: str, is_package: bool = False) -> list[str]:
    """Absolute dotted names that ``source`` imports; a name imported from a module is its last part."""
    return imported_by(list(ast.walk(ast.parse(source))), module=module, is_package=is_package)


def imported_by(nodes: Iterable[ast.AST], *, module: str, is_package: bool = False) -> list[str]:
    package = module.split(".") if is_package else module.split(".")[:-1]
    names = []
    for node in nodes:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            prefix = [*base, node.module] if node.module else base
            names += [".".join([*prefix, alias.name]) for alias in node.names]
    return names


def layer(name: str) -> str:
    """The part of perturbflow that a dotted name belongs to; empty for the package itself."""
    return (name.split(".") + [""])[1]


def upward_imports(source: str, *, module: str, is_package: bool = False) -> list[str]:
    """Imports of ``module`` that its place in the package forbids."""
    own, levels = layer(module), LEVEL | ABOVE_THE_ROOT
    level = levels.get(own, ROOT_LEVEL)
    wrong = []
    for name in imported(source, module=module, is_package=is_package):
        top, other = name.split(".")[0], layer(name)
        if top == "perturbflow":
            if other != own and (other == "" or levels.get(other, ROOT_LEVEL) >= level):
                wrong.append(name)
        elif (
            (own in ALLOWED and top not in ALLOWED[own] | sys.stdlib_module_names)
            or top in FORBIDDEN.get(own, ())
            or own not in ENGINE.get(top, {own})
        ):
            wrong.append(name)
    return wrong


def private_imports(source: str) -> list[str]:
    """Names with a leading underscore that ``source`` takes from third-party packages."""
    nodes = list(ast.walk(ast.parse(source)))
    names = imported_by(nodes, module="perturbflow.module")
    # Attributes such as `np._core`, under the full name of the module.
    modules = {
        alias.asname or alias.name.split(".")[0]: alias.name if alias.asname else alias.name.split(".")[0]
        for node in nodes
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    for node in nodes:
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if parts and isinstance(node, ast.Name) and node.id in modules:
            names.append(".".join([modules[node.id], *parts]))
    own = sys.stdlib_module_names | {"perturbflow"}
    private = re.compile(r"\._(?!_)")
    return [name for name in names if name.split(".")[0] not in own and private.search(name)]


def private_modules(source: str) -> list[str]:
    """Modules of perturbflow with a leading underscore that ``source`` imports, or imports from."""
    names = imported(source, module="script")
    return [name for name in names if name.startswith("perturbflow.") and "._" in name]


MODULES = sorted((SOURCE / "perturbflow").rglob("*.py"))
SCRIPTS = sorted(
    path for folder in ("src", "tests", "benchmarks", "examples") for path in (CHECKOUT / folder).rglob("*.py")
)


def test_the_root_has_what_every_room_may_use_only():
    assert {path.stem for path in (SOURCE / "perturbflow").glob("*.py")} == ROOT_MODULES


def test_layers_import_downwards():
    wrong = {
        module_name(path): upward_imports(
            path.read_text(), module=module_name(path), is_package=path.name == "__init__.py"
        )
        for path in MODULES
        if path != SOURCE / "perturbflow/__init__.py"  # which names every layer
    }
    assert {module: names for module, names in wrong.items() if names} == {}


def test_nothing_private_of_other_packages():
    private = {path.relative_to(CHECKOUT).as_posix(): private_imports(path.read_text()) for path in SCRIPTS}
    assert {path: names for path, names in private.items() if names} == {}


def test_scripts_use_what_a_room_offers():
    private = {
        path.relative_to(CHECKOUT).as_posix(): private_modules(path.read_text())
        for path in SCRIPTS
        if path.relative_to(CHECKOUT).parts[0] in {"benchmarks", "examples"}
    }
    assert {path: names for path, names in private.items() if names} == {}


@pytest.mark.parametrize(
    "source",
    ["from perturbflow.train._fit import fit", "from perturbflow.train import _fit", "import perturbflow._checks as c"],
)
def test_private_modules_are_found(source):
    assert private_modules(source) != []
    assert private_modules("from perturbflow.train import train_flow\nimport perturbflow as pf") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("metrics._energy", "from perturbflow.tl import evaluate", id="upward"),
        pytest.param("metrics._energy", "from perturbflow import tl", id="upward_from_package"),
        pytest.param("metrics._energy", "from ..tl._evaluate import evaluate", id="upward_relative"),
        pytest.param("metrics._energy", "from .. import tl", id="upward_relative_package"),
        pytest.param("metrics._energy", "def f():\n    import perturbflow.tl", id="upward_in_function"),
        pytest.param("pl._evaluation", "from perturbflow.report._words import number", id="figures_upward"),
        pytest.param("models._primeflow", "from perturbflow.evaluation import _scores", id="sideways"),
        pytest.param("tl._evaluate", "import perturbflow as pf", id="whole_package"),
        pytest.param("flow._path", "from perturbflow.dynamics import solve", id="flow_dynamics"),
        pytest.param("dynamics._field", "from perturbflow.flow import solve", id="dynamics_flow"),
        pytest.param("flow._path", "from perturbflow._checks import check_one_of", id="flow_helper"),
        pytest.param("flow._path", "import pandas as pd", id="flow_pandas"),
        pytest.param("flow._path", "from anndata import AnnData", id="flow_anndata"),
        pytest.param("dynamics._field", "import lightning.pytorch as pl", id="dynamics_lightning"),
        pytest.param("_checks", "from scvi.data import AnnDataManager", id="helper_scvi"),
        pytest.param("_checks", "import anndata", id="helper_anndata"),
        pytest.param("_checks", "from perturbflow._warnings import warn", id="root_sideways"),
        pytest.param("_settings", "from perturbflow._progress import progress", id="settings_upward"),
        pytest.param("screen._fields", "from perturbflow.models import PRiMeFlow", id="screen_upward"),
        pytest.param("train._fit", "from scvi.train import TrainRunner", id="train_scvi"),
        pytest.param("predict._prediction", "import lightning.pytorch as pl", id="predict_lightning"),
    ],
)
def test_forbidden_imports_are_found(module, source):
    assert len(upward_imports(source, module=f"perturbflow.{module}")) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        pytest.param("tl._evaluate", "from perturbflow import metrics\nimport anndata, pandas", id="downward"),
        pytest.param("tl._evaluate", "from perturbflow.screen._fields import Fields", id="screen"),
        pytest.param("_progress", "from perturbflow._settings import settings", id="progress"),
        pytest.param("flow._path", "from ._solver import solve\nimport math, torch\nimport scipy.sparse", id="flow"),
        pytest.param("screen._fields", "import anndata\nfrom perturbflow._checks import check_one_of", id="root"),
    ],
)
def test_permitted_imports_pass(module, source):
    assert upward_imports(source, module=f"perturbflow.{module}") == []


@pytest.mark.parametrize(
    "source",
    [
        "from scvi.data._utils import x",
        "from scvi import _types",
        "import anndata._core",
        "import anndata._core.views as v",
        "import numpy as np\nnp._core.x",
        "import scipy.sparse\nscipy.sparse._csr",
    ],
)
def test_private_imports_are_found(source):
    assert private_imports(source) != []


def test_public_and_own_imports_pass():
    source = (
        "from __future__ import annotations\nimport sys\nsys._getframe()\n"
        "from perturbflow._checks import x\nfrom ._y import _z\nfrom scvi import __version__\nself._make()"
    )
    assert private_imports(source) == []


def test_relative_imports_of_a_package_start_in_it():
    assert imported("from ._x import y", module="perturbflow.tl", is_package=True) == ["perturbflow.tl._x.y"]
    assert imported("from ._x import y", module="perturbflow.tl.z") == ["perturbflow.tl._x.y"]
