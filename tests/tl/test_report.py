from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest

import perturbflow as pf

if TYPE_CHECKING:
    from anndata import AnnData

QUICK: dict[str, Any] = {"metrics": ["energy_distance"], "n_permutations": 20, "n_resamples": 20, "progress_bar": False}
VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags of a page, of which none may be left open."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def images(self) -> list[bytes]:
        sources = [str(values["src"]) for tag, values in self.tags if tag == "img"]
        return [base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) for source in sources]


@pytest.fixture(scope="module")
def judged(_fitted) -> AnnData:
    adata = _fitted.copy()
    pf.tl.evaluate(adata, **QUICK)
    return adata


def test_a_page_has_words_tables_and_figures_and_needs_nothing_else(judged, tmp_path, unchanged):
    import matplotlib.pyplot as plt

    file, figures = tmp_path / "report.html", plt.get_fignums()
    file.write_text("earlier", encoding="utf-8")
    with unchanged(judged):
        path = pf.tl.report(judged, str(file), title="Mine & yours")
    assert plt.get_fignums() == figures  # those of the page are closed
    assert path == file
    text = path.read_text(encoding="utf-8")
    assert "earlier" not in text
    page = Page(text)
    assert "<h1>Mine &amp; yours</h1>" in text
    assert "On 2 held-out conditions of the split" in text
    assert len(page.images()) == 3  # all models, every condition, training
    assert all(image.startswith(b"\x89PNG") for image in page.images())
    assert not re.search(r"(?:src|href)=\"(?!data:)", text)
    assert "@import" not in text
    assert "url(" not in text
    assert [values for tag, values in page.tags if tag == "table" and not values.get("class")] == []
    assert (
        len([values for _, values in page.tags if values.get("class") == "scroll"]) == text.count("<table") + 3
    )  # wide figures scroll as tables do
    assert '<meta name="viewport" content="width=device-width' in text


def test_dynamics_have_their_figures(fitted_dynamics, tmp_path):
    pf.tl.infer_graph(fitted_dynamics, n_bootstraps=0)
    text = pf.tl.report(fitted_dynamics, tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Dynamics</h2>" in text
    assert len(Page(text).images()) == 2


def test_a_fit_alone_is_enough(registered, tmp_path):
    pf.tl.fit_flow(registered, preset="prior", plan_kwargs={"calibrate": False}, progress_bar=False)
    text = pf.tl.report(registered, tmp_path / "report.html").read_text(encoding="utf-8")
    assert Page(text).images() == []  # nothing was trained or judged


def test_nothing_fitted_is_an_error_and_no_file(registered, tmp_path):
    with pytest.raises(ValueError, match=r"Expected a fit or an evaluation in `adata.uns`.*Run `pf.tl.fit_flow"):
        pf.tl.report(registered, tmp_path / "report.html")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["report", "report.pdf"])
def test_other_files_are_refused(name, judged, tmp_path):
    with pytest.raises(ValueError, match=r"Expected `path` to end in '.html', found"):
        pf.tl.report(judged, tmp_path / name)


def test_a_path_that_is_none_is_refused(judged):
    with pytest.raises(TypeError, match="Expected `path` to be the path of a file"):
        pf.tl.report(judged, None)  # type: ignore[arg-type]


def test_places_that_cannot_be_written_are_refused_before_figures_are_drawn(judged, tmp_path, monkeypatch):
    monkeypatch.setattr("perturbflow.tl._report._drawn", lambda *_: pytest.fail("a figure was drawn"))
    with pytest.raises(FileNotFoundError, match=r"Expected `path` to be a file that can be written, .*No such file"):
        pf.tl.report(judged, tmp_path / "nowhere" / "report.html")
    (tmp_path / "folder.html").mkdir()
    with pytest.raises(IsADirectoryError, match="Expected `path` to be a file that can be written"):
        pf.tl.report(judged, tmp_path / "folder.html")
