"""The package as a whole: how fast it loads, what it promises, how large its modules are, what is tracked."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import perturbflow

CHECKOUT = Path(__file__).parents[2]
MODULES = sorted((CHECKOUT / "src" / "perturbflow").rglob("*.py"))

MODULES_OF_PACKAGE = [name for name in perturbflow.__all__ if name != "settings"]  # which is an object
HEAVY = {"anndata", "lightning", "matplotlib", "pandas", "scanpy", "scvi", "torch"}
MAX_SECONDS = 1.0
MAX_LINES = 400
MAX_BYTES = 500_000
DATA_SUFFIXES = {
    *(".ckpt", ".csv", ".gz", ".h5", ".h5ad", ".h5mu", ".npy", ".npz", ".parquet", ".pickle", ".pkl", ".pt"),
    *(".pth", ".safetensors", ".tsv", ".zarr", ".zip"),
}

IMPORT = """
import json, sys, time
start = time.perf_counter()
import {module}
print(json.dumps([time.perf_counter() - start, sorted(set(sys.modules))]))
"""


def import_in_new_process(module: str) -> tuple[float, set[str]]:
    """Seconds that importing ``module`` takes in a new interpreter, and the modules that are loaded then."""
    command = [sys.executable, "-c", IMPORT.format(module=module)]
    seconds, modules = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return seconds, set(modules)


def too_long(path: Path) -> bool:
    return len(path.read_text().splitlines()) >= MAX_LINES


def is_data(name: str, *, root: Path = CHECKOUT) -> bool:
    """Whether the file ``name`` below ``root`` has the name or the size of a data file."""
    suffixes = {suffix for part in Path(name).parts for suffix in Path(part).suffixes}
    path = root / name
    return bool(suffixes & DATA_SUFFIXES) or (path.is_file() and path.stat().st_size > MAX_BYTES)


def unresolved(module) -> list[str]:
    return [name for name in module.__all__ if not hasattr(module, name)]


def test_import_is_fast_and_light():
    # The first of three may wait for the disk, or for other processes.
    seconds, loaded = zip(*(import_in_new_process("perturbflow") for _ in range(3)), strict=True)
    assert min(seconds) < MAX_SECONDS
    assert loaded[0] & HEAVY == set()


def test_heavy_imports_are_seen():
    assert import_in_new_process("pandas")[1] & HEAVY == {"pandas"}


def test_public_names_resolve():
    assert unresolved(perturbflow) == []
    for module in (perturbflow, *(import_module(f"perturbflow.{name}") for name in MODULES_OF_PACKAGE)):
        assert module.__all__, module
        assert unresolved(module) == [], module
        assert len(set(module.__all__)) == len(module.__all__), module


def test_submodules_are_attributes():
    assert set(perturbflow.__all__) <= set(dir(perturbflow))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        perturbflow.nothing  # noqa: B018


def test_names_that_do_not_resolve_are_found():
    class Module:
        __all__ = ["present", "absent"]
        present = 1

    assert unresolved(Module) == ["absent"]


def test_modules_are_short():
    assert [path.relative_to(CHECKOUT).as_posix() for path in MODULES if too_long(path)] == []


def test_long_modules_are_found(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("x = 1\n" * (MAX_LINES - 1))
    assert not too_long(path)
    path.write_text("x = 1\n" * MAX_LINES)
    assert too_long(path)


def test_no_data_in_the_repository():
    if not (CHECKOUT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    output = subprocess.run(command, cwd=CHECKOUT, check=True, capture_output=True, text=True).stdout
    names = output.rstrip("\0").split("\0")
    assert "pyproject.toml" in names
    assert [name for name in names if is_data(name)] == []


@pytest.mark.parametrize("name", ["cells.h5ad", "table.csv.gz", "store.zarr/0.0", "weights.pt"])
def test_data_files_are_found(name):
    assert is_data(name)


def test_large_files_are_found(tmp_path):
    (tmp_path / "small.md").write_bytes(b" " * MAX_BYTES)
    (tmp_path / "large.md").write_bytes(b" " * (MAX_BYTES + 1))
    assert not is_data("small.md", root=tmp_path)
    assert is_data("large.md", root=tmp_path)
