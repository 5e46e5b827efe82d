"""The gallery shows every plot."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from perturbflow import pl

GALLERY = Path(__file__).parents[2] / "docs" / "gallery.md"


@pytest.fixture(scope="module")
def cells():
    """The code of the page, cell by cell."""
    return re.findall(
        r"^```\{code-cell\}.*?\n(.*?)^```$", GALLERY.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_cells_are_python(cells):
    for cell in cells:
        lines = [line for line in cell.splitlines() if not line.startswith((":", "%"))]
        compile("\n".join(lines), "gallery", "exec")


@pytest.mark.parametrize("name", pl.__all__)
def test_every_plot_is_drawn_in_a_cell_of_its_own(cells, name):
    calls = [cell for cell in cells if re.search(rf"\bpf\.pl\.{name}\(", cell)]
    assert calls
    assert all(len(re.findall(r"\bpf\.pl\.", cell)) == 1 for cell in calls)
