"""Style of the edges of a drawn graph, and the legend that says what it means."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.legend_handler import HandlerPatch
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch
from matplotlib.path import Path

from perturbflow.pl._drawing import BLUE, DARK, VERMILLION, legend_beside

COLORS = {1: BLUE, -1: VERMILLION}
SIGNS = {1: "activation", -1: "repression"}
REGULATOR, TARGET, RIM = DARK, "#F2F2F2", "#6E6E6E"


@dataclass(frozen=True)
class EdgeStyle:
    """Width, heads and shades of edges.

    Lines of no weight are ``thin`` and those of the ``largest`` weight ``thick``, in points; of its colour a line of confidence 1
    has the share ``strong``, the rest is white.
    """

    thin: float
    thick: float
    largest: float
    head: float
    strong: float
    shows_confidence: bool

    @classmethod
    def of(cls, edges: pd.DataFrame, *, crowding: float, show_confidence: bool) -> Self:
        """Style for edges of these weights; thinner and fainter the more they crowd, from 0 to 1."""
        few, many = np.array([0.8, 3.2, 9.0, 1.0]), np.array([0.5, 1.8, 5.0, 0.85])
        thin, thick, head, strong = (few + crowding * (many - few)).tolist()
        largest = float(edges["weight"].abs().max()) if len(edges) else 0.0
        return cls(thin, thick, largest or 1.0, head, strong, show_confidence)

    def width(self, weight: float) -> float:
        """Width of a line, in points; linear in the absolute weight."""
        return self.thin + (self.thick - self.thin) * abs(weight) / self.largest

    def head_size(self, weight: float) -> float:
        """Length of the bar at the end of a line, and twice that of an arrow head, in points."""
        return self.head + 1.6 * self.width(weight)

    def head_room(self, sign: int, weight: float) -> float:
        """Room between a head and its node, in points; more for a bar, which may meet the outline at an angle."""
        return 1.5 if sign > 0 else 1.5 + 0.25 * self.head_size(weight)

    def color(self, color: str, confidence: float) -> tuple[float, float, float]:
        """Colour mixed with white, which unlike transparency does not add up where lines and their heads overlap."""
        share = self.strong * (0.15 + 0.85 * confidence if self.shows_confidence else 1.0)
        red, green, blue = (1 - share * (1 - part) for part in to_rgb(color))
        return red, green, blue

    def arrow(self, path: Path, sign: int, weight: float, confidence: float, **options: Any) -> FancyArrowPatch:
        """Line along a path with the head of its sign."""
        return FancyArrowPatch(
            path=path,
            arrowstyle="-|>,head_length=0.5,head_width=0.25" if sign > 0 else "-[,widthB=0.5,lengthB=0",
            mutation_scale=self.head_size(weight),
            linewidth=self.width(weight),
            color=self.color(COLORS[sign], confidence),
            fill=sign > 0,
            capstyle="butt",
            joinstyle="miter",
            **options,
        )


class _ArrowHandler(HandlerPatch):
    """Draws an arrow in a legend along the width that is there."""

    def __init__(self, style: EdgeStyle, sign: int) -> None:
        super().__init__()
        self.style, self.sign = style, sign

    def create_artists(self, legend, handle, x0, y0, width, height, fontsize, trans) -> list[Artist]:  # type: ignore[no-untyped-def]
        path = Path([[x0, y0 + height / 2], [x0 + width, y0 + height / 2]])
        return [self.style.arrow(path, self.sign, self.style.largest / 2, 1.0, transform=trans)]


def graph_legend(ax: Axes, edges: pd.DataFrame, *, style: EdgeStyle, kinds: list[bool]) -> None:
    """Write the legend to the right: signs, kinds of nodes, and widths and shades where edges differ in them."""
    handles: list[Artist] = []
    handlers: dict[Any, Any] = {}
    for sign, name in SIGNS.items():
        if (edges["sign"] == sign).any():
            handles.append(FancyArrowPatch((0, 0), (1, 0), label=name))
            handlers[handles[-1]] = _ArrowHandler(style, sign)
    marker: dict[str, Any] = {"linestyle": "none", "markeredgecolor": RIM, "markeredgewidth": 0.7}
    if any(kinds) and not all(kinds):
        handles.append(Line2D([], [], marker="o", markersize=8, color=REGULATOR, label="regulator", **marker))
        handles.append(Line2D([], [], marker="s", markersize=6, color=TARGET, label="target", **marker))
    weights, confidences = edges["weight"].abs(), edges["confidence"]
    handles += [
        Line2D([], [], color=DARK, linewidth=style.width(value), solid_capstyle="butt", label=f"weight {value:.2g}")
        for value in _scale(weights.min(), weights.max())
    ]
    if style.shows_confidence:
        handles += [
            Line2D([], [], color=style.color(DARK, value), linewidth=2.2, label=f"confidence {value:.2g}")
            for value in _scale(confidences.min(), confidences.max())
        ]
    legend_beside(ax, handles=handles, handler_map=handlers, handlelength=2.4)


def _scale(low: float, high: float) -> list[float]:
    """Both ends of a range, or none if it is empty or has no width."""
    if not high > low:
        return []
    return list(dict.fromkeys(float(f"{value:.2g}") for value in (high, low)))
