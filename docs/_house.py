"""The figure of the house: packages on their floors, and who imports from whom, as the source says."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

CHECKOUT = Path(__file__).parents[1]
SOURCE = CHECKOUT / "src" / "perturbflow"
ROOT = "checks, warnings, settings, progress"
OUTSIDE = "torch, NumPy, SciPy"
COLOURS = (
    *("#DDDDDD", "#F3D9C9", "#EEE4D6", "#E8E3C8", "#E0E5CF", "#D6E6DC"),
    *("#D2E3E6", "#CFE0EE", "#D6DEED", "#DADDEC", "#E3D9EA", "#EBD6E4"),
)


def levels() -> dict[str, int]:
    """Floor of every package, from the test that holds the order."""
    values = {}
    for node in ast.parse((CHECKOUT / "tests/house/test_imports.py").read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign):
            values[ast.unparse(node.targets[0])] = node.value
    return ast.literal_eval(values["LEVEL"]) | {ROOT: ast.literal_eval(values["ROOT_LEVEL"])}


def room(module: str, rooms: dict[str, int]) -> str:
    """The package that a dotted name below perturbflow belongs to."""
    part = (module.split(".") + [""])[1]
    return part if part in rooms else ROOT


def imports(path: Path) -> set[str]:
    """Modules of perturbflow that a file imports, also within functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("perturbflow"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("perturbflow.")}
    return found


def draw() -> None:
    """Draw the house."""
    rooms = levels()
    files, lines, links = Counter(), Counter(), Counter()
    for path in SOURCE.rglob("*.py"):
        if path == SOURCE / "__init__.py":
            continue
        own = room(".".join(("perturbflow", *path.relative_to(SOURCE).with_suffix("").parts)), rooms)
        files[own] += 1
        lines[own] += len(path.read_text(encoding="utf-8").splitlines())
        links.update((own, other) for other in {room(name, rooms) for name in imports(path)} - {own})

    figure, ax = plt.subplots(figsize=(7.4, 9.6), dpi=150, layout="constrained")
    floors = {level: [name for name in rooms if rooms[name] == level] for level in sorted({*rooms.values()})}
    place = {OUTSIDE: (0.5, 0.0, 0.96)}
    for height, names in enumerate(floors.values(), start=1):
        width = 1 / len(names)
        for column, name in enumerate(names):
            place[name] = ((column + 0.5) * width, float(height), min(0.96 * width, 0.42))
    place[ROOT] = (*place[ROOT][:2], 0.96)
    links.update({(name, OUTSIDE): 1 for name in floors[min(floors)]})
    for name, (x, y, width) in place.items():
        text = name if name == OUTSIDE else f"{name}\n{files[name]} files, {lines[name]:,} lines"
        ax.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.21),
                width,
                0.42,
                boxstyle="round,pad=0,rounding_size=0.02",
                facecolor=COLOURS[int(y)],
                edgecolor="#444444",
                linewidth=0.8,
                mutation_aspect=5,
                zorder=2,
            )
        )
        ax.text(x, y, text, ha="center", va="center", fontsize=8.5, linespacing=1.4, zorder=3)
    for (source, target), count in links.items():
        (x0, y0, width0), (x1, y1, width1) = place[source], place[target]
        if y0 - y1 > 1 and target != OUTSIDE:
            continue  # floors further below are reached in the same way, and lines across rooms tell nothing
        start = min(max(x1, x0 - 0.4 * width0), x0 + 0.4 * width0)
        end = min(max(start, x1 - 0.4 * width1), x1 + 0.4 * width1)
        ax.annotate(
            "",
            (end, y1 + 0.21),
            (start, y0 - 0.21),
            arrowprops={
                "arrowstyle": "-|>",
                "lw": 0.6 + 0.12 * count**0.75,
                "color": "#555555",
                "shrinkA": 0,
                "shrinkB": 0,
            },
            zorder=1,
        )
    ax.set(xlim=(-0.01, 1.01), ylim=(-0.35, len(floors) + 0.35))
    ax.axis("off")
