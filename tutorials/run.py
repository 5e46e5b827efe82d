"""Run the tutorials from start to end; with ``--keep`` their outputs are written into the notebooks."""

from __future__ import annotations

import argparse
import ast
import copy
import os
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import nbclient
import nbformat

if TYPE_CHECKING:
    from nbformat import NotebookNode

FOLDER = Path(__file__).parent
NOTEBOOKS = sorted(FOLDER.glob("[0-9]_*.ipynb"))
SECONDS_A_CELL = 300
DATA = "PERTURBFLOW_DATA"

# Without ipywidgets, tqdm says that a bar is text.
QUIET = "ignore:IProgress not found"

MODALITY = "rna"
PROTEINS = "protein"
# Fields of a data set, which become those of the modality.
FIELDS = {
    *("X", "layers", "n_obs", "n_vars", "obs", "obs_names", "obsm", "shape", "to_df", "uns"),
    *("var", "var_names", "varm", "varp"),
}
WITH_PROTEINS = f"""
import anndata, mudata, numpy, pandas

def with_proteins(adata):
    counts = numpy.random.default_rng(0).poisson(5.0, (adata.n_obs, 3)).astype("float32")
    names = pandas.DataFrame(index=["CD34", "CD44", "CD71"])
    proteins = anndata.AnnData(counts, obs=pandas.DataFrame(index=adata.obs_names), var=names)
    if hasattr(mudata, "set_options"):  # before 0.4, which does so by itself
        mudata.set_options(pull_on_update=False)
    return mudata.MuData({{"{MODALITY}": adata, "{PROTEINS}": proteins}})
"""


def execute(notebook: NotebookNode) -> NotebookNode:
    """Run a copy of the notebook in a kernel of its own and in an empty folder, and return it with its outputs.

    Raises nbclient.exceptions.CellExecutionError, with the cell and its traceback, as soon as a cell fails.
    """
    notebook = copy.deepcopy(notebook)
    # Figures belong into the notebook, whatever the tests around it chose; kernels resolve paths from another folder.
    environment = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    environment.setdefault(DATA, str(FOLDER.parents[1] / "shared" / "data"))
    environment["PYTHONWARNINGS"] = QUIET
    environment["TQDM_DISABLE"] = "1"  # bars are for those who wait
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):  # Numba sets the number for torch, too
        environment.setdefault(name, "1")  # threads that wait for a busy core cost more than they give
    with tempfile.TemporaryDirectory() as folder:
        client = nbclient.NotebookClient(
            notebook,
            timeout=SECONDS_A_CELL,
            kernel_name="python3",
            resources={"metadata": {"path": folder}},
            record_timing=False,
        )
        client.execute(env=environment)
    return notebook


def tidied(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what differs from run to run or from machine to machine."""
    notebook = copy.deepcopy(notebook)
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    for number, cell in enumerate(notebook.cells, start=1):
        cell.id, cell.metadata = f"cell-{number:02d}", nbformat.from_dict({})
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = nbformat.from_dict({})
    return notebook


def with_modality(notebook: NotebookNode) -> NotebookNode:
    """The same notebook on a MuData: every data set gets a second modality, and every call on it ``modality="rna"``.

    Data sets are what ``pf.datasets`` and ``AnnData(...)`` return, and subsets of these. Their fields, such as ``adata.obs``, become
    those of the modality, and functions that are not perturbflow's get its AnnData. At the end nothing may have been written
    beside the modality.
    """
    notebook = copy.deepcopy(notebook)
    change = OnModality()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.source = ast.unparse(change.visit(ast.parse(cell.source)))
    checks = [
        f"for mdata in [{', '.join(sorted(change.data))}]:",
        f"    assert mdata is None or (list(mdata.mod) == ['{MODALITY}', '{PROTEINS}'] and not mdata.uns and not mdata['{PROTEINS}'].uns)",
    ]
    new_cell = nbformat.v4.new_code_cell
    notebook.cells = [
        new_cell(WITH_PROTEINS, id="first"),
        *notebook.cells,
        new_cell("\n".join(checks), id="last"),
    ]
    return notebook


class OnModality(ast.NodeTransformer):
    """Changes code on AnnData to code on MuData, cell after cell.

    Attributes
    ----------
    data
        Names of the data sets so far.
    """

    def __init__(self) -> None:
        self.data: set[str] = set()

    def is_data(self, node: ast.expr) -> bool:
        """Whether an expression is a data set, or a subset or a copy of one."""
        match node:
            case ast.Name(id=name):
                return name in self.data
            case ast.Subscript(value=value) | ast.Call(func=ast.Attribute(value=value, attr="copy"), args=[]):
                return self.is_data(value)
        return False

    def visit_Assign(self, node: ast.Assign) -> ast.Assign:
        """Give a new data set its second modality, and remember which names are data sets."""
        names = {target.id for target in node.targets if isinstance(target, ast.Name)}
        function = ast.unparse(node.value.func) if isinstance(node.value, ast.Call) else ""
        is_new = function == "AnnData" or (function.startswith("pf.datasets.") and function.islower())
        is_data = is_new or self.is_data(node.value)
        is_none = isinstance(node.value, ast.Constant) and node.value.value is None
        self.generic_visit(node)
        if is_new:
            node.value = ast.Call(ast.Name("with_proteins", ast.Load()), [node.value], [])
        if not is_none:
            self.data = self.data | names if is_data else self.data - names
        return ast.fix_missing_locations(node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.Attribute:
        """Take fields from the modality."""
        is_field = node.attr in FIELDS and self.is_data(node.value)
        self.generic_visit(node)
        if is_field:
            node.value = in_modality(node.value)
        return ast.fix_missing_locations(node)

    def visit_Call(self, node: ast.Call) -> ast.Call:
        """Name the modality where a function of perturbflow gets a data set; others get its AnnData."""
        is_data = [self.is_data(argument) for argument in node.args]
        is_ours = ast.unparse(node.func).startswith(("pf.pp.", "pf.tl.", "pf.pl."))
        self.generic_visit(node)
        if is_ours and is_data[:1] == [True]:
            node.keywords.append(ast.keyword("modality", ast.Constant(MODALITY)))
        elif not is_ours:
            node.args = [in_modality(one) if yes else one for one, yes in zip(node.args, is_data, strict=True)]
        return ast.fix_missing_locations(node)


def in_modality(node: ast.expr) -> ast.Subscript:
    """The modality of a MuData."""
    return ast.Subscript(node, ast.Constant(MODALITY), ast.Load())


def main() -> None:
    """Run the notebooks that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path, default=NOTEBOOKS)
    parser.add_argument("--keep", action="store_true", help="write the outputs into the notebooks")
    parser.add_argument("--mudata", action="store_true", help="run them on a MuData, which is never kept")
    arguments = parser.parse_args()
    for path in arguments.notebooks:
        notebook = nbformat.read(path, as_version=4)
        started, used = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        done = execute(with_modality(notebook) if arguments.mudata else notebook)
        now = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
        print(f"{path.name}: {time.monotonic() - started:.0f} s, {cpu:.0f} s of CPU", flush=True)
        if arguments.keep and not arguments.mudata:
            nbformat.write(tidied(done), path)


if __name__ == "__main__":
    main()
