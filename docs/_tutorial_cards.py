"""Cards of the tutorials: title, first lines, a figure and CPU time, from the notebooks themselves."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# CPU seconds on one thread, as `python tutorials/run.py` prints them.
SECONDS = {"1": 54, "2": 85, "3": 109, "4": 170, "5": 150, "6": 32}
MOST_WORDS = 28


def write_cards(folder: Path) -> None:
    """Write ``cards.txt`` and the thumbnails that it shows, for all notebooks in a folder."""
    cards = [card(path) for path in sorted(folder.glob("[0-9]_*.ipynb"))]
    text = "::::{grid} 1 2 2 3\n:gutter: 2\n\n" + "\n".join(cards) + "::::\n"
    (folder / "cards.txt").write_text(text, encoding="utf-8")


def card(path: Path) -> str:
    """Return the card of a notebook, and write its thumbnail beside it."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    title, _, rest = "".join(cells[0]["source"]).lstrip("# ").partition("\n")
    words = re.sub(r"[*`]|\[([^\]]*)\]\([^)]*\)", r"\1", rest.strip().partition("\n\n")[0]).split()
    lines = " ".join(words[:MOST_WORDS]) + (" …" if len(words) > MOST_WORDS else "")
    options = [f":link: tutorials/{path.stem}", ":link-type: doc"]
    if figures := list(images(cells)):
        thumbnail = path.with_suffix(".png")
        thumbnail.write_bytes(base64.b64decode(figures[len(figures) // 2]))
        options.append(f":img-top: tutorials/{thumbnail.name}")
    seconds = SECONDS.get(path.name[0])
    time = "" if seconds is None else f"\n*{duration(seconds)}*\n"
    return f":::{{grid-item-card}} {title}\n" + "\n".join(options) + f"\n\n{lines}\n{time}:::\n"


def images(cells: list[dict[str, Any]]) -> Iterator[str]:
    """Figures among the outputs of cells, in base64."""
    for cell in cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield output["data"]["image/png"]


def duration(seconds: float) -> str:
    """CPU time in words."""
    return f"{seconds:.0f} s of CPU time" if seconds < 90 else f"{seconds / 60:.0f} min of CPU time"
