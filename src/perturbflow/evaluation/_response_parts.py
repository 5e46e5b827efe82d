"""Parts of the responses of a screen: what all perturbations do, what is conserved over contexts, the rest, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    from typing import Self

    from numpy.typing import NDArray

    from perturbflow.flow import GroupSums

PARTS = ("template", "conserved", "interaction", "noise")


@dataclass(frozen=True, eq=False)
class Responses:
    """Mean effects of n conditions, with what is known of their sampling.

    Parameters
    ----------
    effects
        Mean of the cells less that of the controls of the context (n, G).
    noise
        Sampling variance of the effects, summed over genes (n,).
    control_noise
        The part of it that comes from the controls, which conditions of a context share (n,).
    n_cells
        Number of cells (n,).
    contexts
        Number of the context (n,).
    doses
        Dose of every component (n, P).
    """

    effects: NDArray[np.float64]
    noise: NDArray[np.float64]
    control_noise: NDArray[np.float64]
    n_cells: NDArray[np.int64]
    contexts: NDArray[np.intp]
    doses: sparse.csr_matrix

    @classmethod
    def of(cls, sums: GroupSums) -> Self:
        """Effects of the groups of at least two perturbed cells, each of a context with control cells, in the order of the groups."""
        _, contexts = np.unique(sums.covariates, axis=0, return_inverse=True)
        contexts = contexts.ravel()
        n_cells = sums.n_cells[:, None].astype(np.float64)
        means = sums.total / n_cells
        variances = np.maximum(sums.squares / n_cells - np.square(means), 0) / (n_cells - 1)
        noise = variances.sum(axis=1)
        perturbed = np.flatnonzero(~sums.is_control)
        control_of = np.full(contexts.max(initial=-1) + 1, -1)
        control_of[contexts[sums.is_control]] = np.flatnonzero(sums.is_control)
        controls = control_of[contexts[perturbed]]
        return cls(
            means[perturbed] - means[controls],
            noise[perturbed] + noise[controls],
            noise[controls],
            sums.n_cells[perturbed],
            contexts[perturbed],
            sums.doses[perturbed],
        )

    def template(self) -> NDArray[np.float64]:
        """Mean effect of the other conditions of the context (n, G), of those that share no component with a condition.

        NaN where there is none.
        """
        components = self.doses.astype(bool).astype(np.float64)
        found = np.full_like(self.effects, np.nan)
        for context in np.unique(self.contexts):
            rows = np.flatnonzero(self.contexts == context)
            own = components[rows]
            related = sparse.csr_matrix((own @ own.T).astype(bool).astype(np.float64))
            n_others = len(rows) - np.asarray(related.sum(axis=1))
            total = self.effects[rows].sum(axis=0) - related @ self.effects[rows]
            found[rows] = np.divide(total, n_others, out=np.full_like(total, np.nan), where=n_others > 0)
        return found

    def elsewhere(self, own: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean over the other contexts of what the same perturbation has as its own there (n, G); NaN where there is none."""
        keys: dict[tuple[bytes, bytes], list[int]] = {}
        known = np.asarray(~np.isnan(own).any(axis=1))
        for row, (first, last) in enumerate(zip(self.doses.indptr[:-1], self.doses.indptr[1:], strict=True)):
            if known[row]:
                name = self.doses.indices[first:last].tobytes(), self.doses.data[first:last].tobytes()
                keys.setdefault(name, []).append(row)
        found = np.full_like(own, np.nan)
        for rows in keys.values():
            if len(rows) > 1:
                found[rows] = (own[rows].sum(axis=0) - own[rows]) / (len(rows) - 1)
        return found


def response_parts(responses: Responses) -> dict[str, NDArray[np.float64]]:
    r"""Divide the squared size of every response into four parts that add up to it: their means over genes (n,) by name.

    With the measured effect :math:`d_{pc}` of a perturbation in a context, the template :math:`t` (the mean effect of the
    unrelated perturbations of the context) and what is conserved, :math:`k` (the mean over the other contexts of
    :math:`d_{pc'} - t_{pc'}`),

    .. math::

        \lVert d \rVert^2 = (d \cdot t - s) + d \cdot k + \text{interaction} + n,

    with the sampling variance n of the effect, and s that of the controls, which d and t share. Neither t nor k has a
    cell of the condition itself, so that each part is unbiased, and therefore negative at times: by sampling where a part is small,
    and truly where a condition does the opposite of what others do.

    ``effect`` is the total without noise, ``own`` the effect without the template. NaN where a part cannot be told: without an
    unrelated perturbation in the context, or the same in another. Where no condition has a template, as in a screen of one
    perturbation, nothing is taken from any.
    """
    effects, n_genes = responses.effects, responses.effects.shape[1]
    template = responses.template()
    has_template = not np.isnan(template).all()
    elsewhere = responses.elsewhere(effects - template if has_template else effects)
    total, noise = np.square(effects).sum(axis=1), responses.noise
    shared = np.einsum("ng,ng->n", effects, template) - responses.control_noise
    conserved = np.einsum("ng,ng->n", effects, elsewhere)
    own = total - noise - (shared if has_template else 0)
    found = {"total": total, "effect": total - noise, "template": shared, "own": own}
    found |= {"conserved": conserved, "interaction": own - conserved, "noise": noise}
    return {name: values / n_genes for name, values in found.items()}


def split_half_reliability(halvings: list[tuple[Responses, Responses]], *, own: bool = False) -> NDArray[np.float64]:
    """Return how well the profile of a response over genes would come back in as many new cells of all groups (n,).

    The correlation r of the effects in two halves of the cells, of controls too, is that of half as many cells;
    ``2 r / (1 + r)`` is that of all (Spearman and Brown). r is the mean over some halvings; NaN where unknown. ``own`` leaves out
    the template of each half: what a condition has beyond what all perturbations do.
    """
    r = np.mean([_correlations(*(_profiles(half, own=own) for half in pair)) for pair in halvings], axis=0)
    # Of two halves that disagree nothing would come back.
    return np.where(r > 0, 2 * r / (1 + r), r)


def _profiles(responses: Responses, *, own: bool) -> NDArray[np.float64]:
    return responses.effects - responses.template() if own else responses.effects


def _correlations(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of every row (n,)."""
    x, y = (rows - rows.mean(axis=1, keepdims=True) for rows in (x, y))
    size = np.sqrt(np.square(x).sum(axis=1) * np.square(y).sum(axis=1))
    return np.divide((x * y).sum(axis=1), size, out=np.full(len(x), np.nan), where=size > 0)
