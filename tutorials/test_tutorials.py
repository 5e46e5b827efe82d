"""Every tutorial runs from start to end in a kernel of its own, and its claims hold; two also on a MuData."""

from __future__ import annotations

import ast

import nbformat
import pytest

from tutorials.run import NOTEBOOKS, OnModality, execute, tidied, with_modality

ON_MUDATA = [path for path in NOTEBOOKS if path.name.startswith(("1_", "4_"))]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_tutorial_runs(path):
    done = execute(nbformat.read(path, as_version=4))
    code = [cell for cell in done.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    said = [output.text for cell in code for output in cell.outputs if output.get("name") == "stderr"]
    assert said == []  # no warnings, no progress bars


@pytest.mark.parametrize("path", ON_MUDATA, ids=lambda path: path.stem)
def test_tutorial_runs_on_mudata(path):
    notebook = with_modality(nbformat.read(path, as_version=4))
    assert "modality='rna'" in "".join(cell.source for cell in notebook.cells)
    execute(notebook)


def test_tidied_notebook_is_the_same_in_every_run():
    cells = [
        nbformat.v4.new_markdown_cell("text"),
        nbformat.v4.new_code_cell("1", metadata={"execution": {"start": "now"}}),
    ]
    once, again = (tidied(nbformat.v4.new_notebook(cells=cells)) for _ in range(2))
    assert once == again
    assert [cell.id for cell in once.cells] == ["cell-01", "cell-02"]
    assert once.cells[1].metadata == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("a = pf.datasets.x(1)", "a = with_proteins(pf.datasets.x(1))", id="data"),
        pytest.param("n = pf.datasets.HillNetwork(1)", "n = pf.datasets.HillNetwork(1)", id="class"),
        pytest.param("pf.tl.f(data, 'key')", "pf.tl.f(data, 'key', modality='rna')", id="call"),
        pytest.param("pf.tl.f(other)", "pf.tl.f(other)", id="call_on_other"),
        pytest.param("data.obs['x']", "data['rna'].obs['x']", id="field"),
        pytest.param("data[0].X", "data[0]['rna'].X", id="field_of_subset"),
        pytest.param("f(data[0])", "f(data[0]['rna'])", id="other_function"),
        pytest.param(
            "part = data[data.obs.x].copy()\npf.pl.f(part)",
            "part = data[data['rna'].obs.x].copy()\npf.pl.f(part, modality='rna')",
            id="subset",
        ),
        pytest.param("b = pf.pp.f(data)\npf.pp.g(b)", "b = pf.pp.f(data, modality='rna')\npf.pp.g(b)", id="result"),
        pytest.param("data = None\ndata.uns", "data = None\ndata['rna'].uns", id="none"),
        pytest.param("data = 1\ndata.uns", "data = 1\ndata.uns", id="replaced"),
    ],
)
def test_code_on_anndata_becomes_code_on_mudata(source, expected):
    change = OnModality()
    change.data = {"data"}
    assert ast.unparse(change.visit(ast.parse(source))) == expected
