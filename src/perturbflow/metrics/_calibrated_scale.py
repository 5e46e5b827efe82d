"""The positive control of metrics of means."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perturbflow.screen._named_arrays import by_name, real_numbers


@by_name("conditions", "genes", of=("duplicate_mean", "dataset_mean", "p_values"))
def interpolated_duplicate(
    duplicate_mean: ArrayLike, dataset_mean: ArrayLike, p_values: ArrayLike
) -> NDArray[np.float64]:
    """Mean (G,) or (P, G) of a second half of a condition's own cells where it is certain, of all perturbed cells elsewhere.

    ``a_g duplicate_mean_g + (1 - a_g) dataset_mean_g`` with ``a_g = 1 - p_g``, p the adjusted p-values of the second half
    against the rest (NaN counts as 1). The mean of a second half alone carries its sampling noise in every gene, and for
    weak effects loses to the mean of all perturbations (Miller et al. 2025, bioRxiv 10.1101/2025.10.20.683304).
    """
    duplicate = real_numbers(duplicate_mean, name="duplicate_mean")
    dataset = real_numbers(dataset_mean, name="dataset_mean")
    p = np.nan_to_num(real_numbers(p_values, name="p_values"), nan=1.0)
    for name, array in (("dataset_mean", dataset), ("p_values", p)):
        if array.shape not in {duplicate.shape, duplicate.shape[-1:]}:
            msg = (
                f"Expected `{name}` to have the shape of `duplicate_mean`, {duplicate.shape}, or of its genes, "
                f"found {array.shape}."
            )
            raise ValueError(msg)
    if ((p < 0) | (p > 1)).any():
        msg = f"Expected `p_values` between 0 and 1, found {p.min():.3g} to {p.max():.3g}."
        raise ValueError(msg)
    return (1.0 - p) * duplicate + p * dataset
