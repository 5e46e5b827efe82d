"""The documentation is complete, and its links lead somewhere."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import perturbflow

CHECKOUT = Path(__file__).parents[1]
DOCS = CHECKOUT / "docs"
PAGES = sorted(
    path
    for path in [*CHECKOUT.glob("*.md"), *DOCS.rglob("*.md")]
    if not {"_build", "generated"} & set(path.relative_to(CHECKOUT).parts)
)


def anchors(text: str) -> set[str]:
    """What the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(text: str, folder: Path) -> list[str]:
    """Relative links of a page in ``folder`` to files that are not there or to headings that they do not have."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text)
    broken = []
    for link in links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        candidates = [folder / name, folder / f"{name}.md"] if name else []
        target = next((path for path in candidates if path.is_file()), None)
        if target is None:
            found = anchor in anchors(text) if not name else (folder / name).is_dir()
        else:
            found = not anchor or anchor in anchors(target.read_text(encoding="utf-8"))
        if not found:
            broken.append(link)
    return broken


def names_of(page: str) -> list[str]:
    """The names in the tables of a page of the API reference."""
    return [
        name
        for block in re.findall(r"^\.\. autosummary::\n(.+?)^```", page, flags=re.DOTALL | re.MULTILINE)
        for name in re.findall(r"^   (\w+)$", block, flags=re.MULTILINE)
    ]


def test_links_lead_somewhere():
    broken = {
        path.relative_to(CHECKOUT).as_posix(): broken_links(path.read_text(encoding="utf-8"), path.parent)
        for path in PAGES
    }
    assert {page: links for page, links in broken.items() if links} == {}


def test_broken_links_are_found(tmp_path):
    (tmp_path / "page.md").write_text("# A `good` heading\n")
    text = "# Here\n[a](page.md) [b](page.md#a-good-heading) {doc}`page` {doc}`it <page>` [c](#here) [d](https://x.y/z)"
    assert broken_links(text, tmp_path) == []
    text = "[a](pages.md) [b](page.md#bad) {doc}`pages` {doc}`it <pages>` [c](#here)"
    assert broken_links(text, tmp_path) == ["pages.md", "page.md#bad", "#here", "pages", "pages"]


def test_every_public_name_is_in_the_reference():
    for layer in {*perturbflow.__all__} - {"settings"}:
        names = names_of((DOCS / "api" / f"{layer}.md").read_text(encoding="utf-8"))
        assert sorted(names) == sorted(import_module(f"perturbflow.{layer}").__all__)


def test_names_of_the_reference_are_read():
    page = ".. autosummary::\n   :toctree: ../generated\n\n   one\n   two\n```\n\n   three\n"
    assert names_of(page) == ["one", "two"]


def test_every_benchmark_has_a_page_with_its_command():
    table = (DOCS / "benchmarks.md").read_text(encoding="utf-8")
    pages = [path.read_text(encoding="utf-8") for path in (DOCS / "benchmarks").glob("*.md")]
    for script in (path.name for path in (CHECKOUT / "benchmarks").glob("[a-z]*.py")):
        assert f"| `{script}` |" in table
        assert sum(f"benchmarks/{script}" in page.split("\n## ")[0] for page in pages) == 1, script
