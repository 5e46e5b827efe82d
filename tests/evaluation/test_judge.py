from __future__ import annotations

import numpy as np

from perturbflow.evaluation._judge import Controls, Judged, interpolated
from perturbflow.metrics import METRICS, Moments
from perturbflow.metrics._samples import Sample, Space


def test_the_interpolated_duplicate_lies_between_a_half_and_all_perturbed_cells():
    def judged(half, adjusted):
        return Judged(
            {}, [(Moments(3, np.array(half), np.zeros(3)), Moments(3, np.ones(3), np.zeros(3)))], adjusted=[adjusted]
        )

    ceilings = [judged([4.0, 4.0, 4.0], np.array([0.0, 0.25, np.nan])), judged([0.0, 0.0, 0.0], None)]
    controls = Controls(Sample(np.zeros((2, 3)), Space(np.zeros(3))), None)
    found, untested = interpolated(ceilings, [METRICS["mae_of_mean_effects"]], controls)
    assert untested is None
    assert found is not None
    np.testing.assert_allclose(found.pairs[0][0].mean, [4.0, 3.5, 2.0])
    assert np.isclose(found.values["mae_of_mean_effects"], (3.0 + 2.5 + 1.0) / 3)
