"""Numbers that pages quote are those of the benchmark page that measured them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PAGES = ["index", "guide", "simpler_models", "settings", "dynamics", "graphs", "evaluation"]
VALUE = r"[−-]?\d*\.?\d+ ± \d*\.?\d+"


def normalised(text: str) -> str:
    """Text with one kind of minus and of space, and without emphasis."""
    return re.sub(r"\s+", " ", text.replace("−", "-").replace("*", ""))


def sources_of(block: str) -> list[Path]:
    """Benchmark pages that a paragraph names: by a link, or by the script that they describe."""
    pages = [DOCS / f"benchmarks/{name}.md" for name in re.findall(r"\{doc\}`benchmarks/(\w+)`", block)]
    for script in re.findall(r"benchmarks/(\w+\.py)", block):
        pages += [
            page
            for page in (DOCS / "benchmarks").glob("*.md")
            if f"benchmarks/{script}" in page.read_text(encoding="utf-8").split("\n## ")[0]
        ]
    return pages


def unfounded(text: str) -> list[str]:
    """Values with a standard deviation that are not on the page that was named last before them."""
    found, measured = [], ""
    for block in re.split(r"\n\s*\n", text):
        if sources := sources_of(block):
            measured = " ".join(normalised(page.read_text(encoding="utf-8")) for page in sources)
        found += [value for value in re.findall(VALUE, normalised(block)) if f" {value} " not in f"{measured} "]
    return found


def table_of(page: str, first: str) -> dict[str, dict[str, str]]:
    """Rows by name of the first table of a page whose first column has this name."""
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {first} |"))
    cells = [[cell.strip() for cell in line.strip("| ").split("|")] for line in lines[start:]]
    rows = {}
    for row in cells[2:]:
        if len(row) != len(cells[0]):
            break
        rows[row[0]] = dict(zip(cells[0], row, strict=True))
    return rows


@pytest.mark.parametrize("page", PAGES)
def test_quoted_values_are_those_that_were_measured(page):
    assert unfounded((DOCS / f"{page}.md").read_text(encoding="utf-8")) == []


def test_values_are_looked_for():
    text = (DOCS / "simpler_models.md").read_text(encoding="utf-8")
    assert len(re.findall(VALUE, text)) > 40
    changed = text.replace("0.474 ± 0.157", "0.475 ± 0.157")
    assert unfounded(changed) == ["0.475 ± 0.157"]
    assert unfounded("Without a page: 0.474 ± 0.157.") == ["0.474 ± 0.157"]
    assert unfounded("{doc}`benchmarks/real_cells`: −0.037 ± 0.011") == []


def test_the_first_page_compares_packages_by_the_numbers_of_the_leaderboard():
    energy = table_of("benchmarks/leaderboard.md", "model")
    rows = table_of("index.md", "question")
    quoted = {
        "kang": (".1f", ("flow", "scgen", "cellflow", "mean effect", "control cells")),
        "norman": (".2f", ("flow", "cellflow", "additive effect", "control cells")),
    }
    texts = {"kang": "Kang", "norman": "Norman"}
    for name, (precision, models) in quoted.items():
        (text,) = (row["measured here"] for row in rows.values() if row["measured here"].startswith(texts[name]))
        expected = [format(float(energy[model][name]), precision) for model in models]
        assert re.findall(r"\d+\.\d+", text) == expected
