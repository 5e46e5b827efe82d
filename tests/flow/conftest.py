"""Cells of a known hurdle model."""

from __future__ import annotations

import numpy as np
import pytest

from perturbflow.flow import CellData

SD = 0.3


class HurdleScreen:
    """Collects groups of cells with independent genes; means should be far above 0, so that nothing is cut off."""

    def __init__(self, n_genes: int, *, seed: int = 0) -> None:
        self.rng = np.random.default_rng(seed)
        self.angle = self.rng.uniform(1.0, 2.1, n_genes)  # shares of 0.23 to 0.75
        self.mean = self.rng.uniform(1.5, 3.0, n_genes)
        self.groups: list[tuple[np.ndarray, tuple, tuple]] = []

    def cells(self, n_cells, angle, mean):
        shape = (n_cells, len(angle))
        expressed = self.rng.random(shape) < np.sin(np.clip(angle, 0, np.pi) / 2) ** 2
        return np.where(expressed, mean + SD * self.rng.standard_normal(shape), 0).astype(np.float32)

    def add(self, n_cells, doses, codes=(), *, angle=0.0, mean=0.0):
        """Add a group whose distribution is that of the base moved by ``angle`` and ``mean``; returns the cells."""
        x = self.cells(n_cells, self.angle + angle, self.mean + mean)
        self.groups.append((x, tuple(doses), tuple(codes)))
        return x

    def data(self, container=np.asarray) -> CellData:
        x, doses, codes = zip(*self.groups, strict=True)
        sizes = [len(part) for part in x]
        return CellData(
            container(np.concatenate(x)),
            np.repeat(np.array(doses, dtype=np.float32), sizes, axis=0),
            np.repeat(np.array(codes, dtype=np.int64).reshape(len(codes), -1), sizes, axis=0),
        )


@pytest.fixture
def hurdle_screen():
    return HurdleScreen
