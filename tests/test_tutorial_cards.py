"""The page of the tutorials has a card for every notebook."""

from __future__ import annotations

import base64
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

CHECKOUT = Path(__file__).parents[1]
PIXEL = base64.b64encode(b"\x89PNG pixel").decode()


@pytest.fixture(scope="module")
def cards() -> Any:
    """The module that writes them, which is part of the documentation and not of the package."""
    specification = importlib.util.spec_from_file_location("_tutorial_cards", CHECKOUT / "docs/_tutorial_cards.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def notebook(path: Path, *, text: str, images: int) -> None:
    """Write a notebook with an introduction and some figures."""
    outputs = [{"data": {"image/png": PIXEL}} for _ in range(images)]
    cells = [{"cell_type": "markdown", "source": [text]}, {"cell_type": "code", "source": [], "outputs": outputs}]
    path.write_text(json.dumps({"cells": cells}), encoding="utf-8")


def test_cards_have_title_text_figure_and_link(cards, tmp_path):
    notebook(tmp_path / "1_first.ipynb", text="# A title\n\n**Bold** and [a link](x.md).\n\nMore.", images=2)
    notebook(tmp_path / "9_last.ipynb", text="# Another\n\n" + "word " * 50, images=0)
    cards.write_cards(tmp_path)
    text = (tmp_path / "cards.txt").read_text(encoding="utf-8")
    first, last = text.split(":::{grid-item-card} ")[1:]
    assert first.startswith("A title\n:link: tutorials/1_first\n:link-type: doc\n:img-top: tutorials/1_first.png\n")
    assert "Bold and a link." in first
    assert "More" not in first
    assert f"*{cards.duration(cards.SECONDS['1'])}*" in first
    assert (tmp_path / "1_first.png").read_bytes() == b"\x89PNG pixel"
    assert ":img-top:" not in last
    assert "CPU time" not in last
    assert last.count("word") == cards.MOST_WORDS


@pytest.mark.parametrize(("seconds", "words"), [(32, "32 s"), (89, "89 s"), (109, "2 min"), (170, "3 min")])
def test_times_in_words(cards, seconds, words):
    assert cards.duration(seconds) == f"{words} of CPU time"


def test_every_tutorial_has_a_title_an_introduction_and_a_figure(cards):
    for path in (CHECKOUT / "tutorials").glob("[0-9]_*.ipynb"):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        title, _, rest = "".join(cells[0]["source"]).partition("\n")
        assert title.startswith("# ")
        assert rest.strip()
        assert any(cards.images(cells))
