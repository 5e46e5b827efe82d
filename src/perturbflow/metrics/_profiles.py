"""Common parts of metrics of profiles: arrays of conditions by genes, and the correlation of changes from a reference."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from perturbflow.metrics._cells import RELATIVE_ZERO
from perturbflow.screen._named_arrays import real_numbers


def check_profiles(**named: ArrayLike) -> list[NDArray[np.float64]]:
    """Profiles (P, G) in float64; refuse other shapes, different shapes and values that are not finite."""
    found = {name: _real(profiles, name) for name, profiles in named.items()}
    for name, profiles in found.items():
        if profiles.ndim != 2 or profiles.size == 0:
            msg = f"Expected `{name}` to have shape (conditions, genes), found {profiles.shape}."
            raise ValueError(msg)
    shapes = {name: profiles.shape for name, profiles in found.items()}
    if len(set(shapes.values())) > 1:
        msg = f"Expected the same conditions and genes in {', '.join(found)}; found shapes {shapes}."
        raise ValueError(msg)
    return list(found.values())


def per_gene(values: ArrayLike, like: NDArray[np.float64], *, name: str) -> NDArray[np.float64]:
    """Values of every gene (G,), or of every condition and gene, as an array of the shape (P, G) of ``like``."""
    found = _real(values, name)
    if found.shape not in {like.shape, like.shape[1:]}:
        msg = f"Expected `{name}` to have shape {like.shape[1:]} or {like.shape}, found {found.shape}."
        raise ValueError(msg)
    return np.broadcast_to(found, like.shape)


def correlation_of_changes(
    predicted: NDArray[np.float64],
    observed: NDArray[np.float64],
    reference: NDArray[np.float64],
    predicted_reference: NDArray[np.float64] | None = None,
    *,
    is_centred: bool = True,
) -> NDArray[np.float64]:
    """Pearson correlation over genes of the changes of profiles (P, G) from their references, shape (P,).

    0 where the predicted change is the same in every gene, as it orders no genes; NaN where the observed one is. Not
    centred, it is the cosine, and a change that is nothing but rounding is what has no direction.
    """
    base = reference if predicted_reference is None else predicted_reference
    change_predicted, _ = _direction(predicted, base, is_centred)
    change_observed, flat_observed = _direction(observed, reference, is_centred)
    correlation = np.clip(np.einsum("pg,pg->p", change_predicted, change_observed), -1.0, 1.0)
    correlation[flat_observed] = np.nan
    return correlation


def pearson(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Pearson correlation over the last axis; 0 for a prediction that is constant, NaN with nothing to predict."""
    if observed.shape[-1] < 2:
        return np.full(observed.shape[:-1], np.nan)
    rows = [values.reshape(-1, values.shape[-1]) for values in (predicted, observed)]
    return correlation_of_changes(rows[0], rows[1], np.zeros_like(rows[0])).reshape(observed.shape[:-1])


def spearman(predicted: NDArray[np.float64], observed: NDArray[np.float64]) -> NDArray[np.float64]:
    """Spearman correlation over the last axis, as :func:`pearson` of ranks."""
    return pearson(stats.rankdata(predicted, axis=-1), stats.rankdata(observed, axis=-1))


def _direction(
    profiles: NDArray[np.float64], reference: NDArray[np.float64], is_centred: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Changes of length 1, and which of them are nothing but rounding: these become 0."""
    change = profiles - reference
    size = np.maximum(np.linalg.norm(reference, axis=-1), np.linalg.norm(change, axis=-1))
    if is_centred:
        change -= change.mean(axis=-1, keepdims=True)
    norm = np.linalg.norm(change, axis=-1)
    flat = norm <= RELATIVE_ZERO * size
    return change / np.where(flat, np.inf, norm)[:, None], flat


def _real(values: ArrayLike, name: str) -> NDArray[np.float64]:
    array = real_numbers(values, name=name)
    bad = np.count_nonzero(~np.isfinite(array))
    if bad:
        msg = f"Expected finite values in `{name}`, found {bad} that are NaN or infinite. Leave out such conditions."
        raise ValueError(msg)
    return array
