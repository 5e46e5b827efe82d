from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from perturbflow.flow import ConditionEncoder

ENCODER = ConditionEncoder(3, (2, 4))
FLAG, PERTURBATIONS, COVARIATES = slice(0, 1), slice(1, 4), (slice(4, 6), slice(6, 10))


def hidden(encoder, encoded, **options):
    """Encoded conditions as training shows them, and which are dropped whole."""
    mask, dropped = encoder.draw_mask(len(encoded), **options)
    return encoded * mask, dropped


def encode(doses, codes=(1, 2), encoder=ENCODER):
    return encoder.encode(torch.tensor([doses], dtype=torch.float32), torch.tensor([codes], dtype=torch.long))[0]


def test_parts():
    assert ENCODER.size == 10
    assert encode([0.5, 0, 1]).tolist() == [1, 0.5, 0, 1, 0, 1, 0, 0, 1, 0]


def test_combinations_add():
    """So the order of their components cannot matter, and a dose scales."""
    control, a, c, both = (encode(doses) for doses in ([0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]))
    assert (both - control == (a - control) + (c - control)).all()
    assert (encode([0.25, 0, 0]) - control == 0.25 * (a - control)).all()


def test_control_is_not_the_null_condition():
    bare = ConditionEncoder(3, ())
    control = encode([0, 0, 0], codes=(), encoder=bare)
    assert control.tolist() == [1, 0, 0, 0]
    generator = torch.Generator().manual_seed(0)
    null, dropped = hidden(bare, control[None], whole=1.0, part=0.0, generator=generator)
    assert null.tolist() == [[0, 0, 0, 0]]
    assert dropped.tolist() == [True]


def test_nothing_is_dropped_at_probability_zero():
    conditions = encode([1, 0.5, 0]).repeat(200, 1)
    kept, dropped = hidden(ENCODER, conditions, whole=0.0, part=0.0, generator=torch.Generator().manual_seed(0))
    assert (kept == conditions).all()
    assert not dropped.any()


@pytest.mark.parametrize(("whole", "part"), [(0.2, 0.0), (0.0, 0.3), (0.2, 0.3)])
def test_drop_probabilities(whole, part):
    n = 20_000
    conditions = encode([1, 1, 1]).repeat(n, 1)
    kept, dropped = hidden(ENCODER, conditions, whole=whole, part=part, generator=torch.Generator().manual_seed(0))

    def share_is(events, p):
        return abs(events.double().mean().item() - p) <= 4 * math.sqrt(p * (1 - p) / n)

    assert share_is(dropped, whole)
    assert (kept[dropped] == 0).all()
    assert (kept[~dropped][:, FLAG] == 1).all()
    parts = [(kept[:, where] != 0).any(dim=1) for where in (PERTURBATIONS, *COVARIATES)]
    for place, present in enumerate(parts):
        assert share_is(present, (1 - whole) * (1 - part))
        for other in parts[:place]:  # each part is dropped on its own
            assert share_is(present & other, (1 - whole) * (1 - part) ** 2)


def test_parts_are_dropped_as_one():
    conditions = encode([1, 0.5, 0.25]).repeat(500, 1)
    kept, _ = hidden(ENCODER, conditions, whole=0.1, part=0.5, generator=torch.Generator().manual_seed(0))
    for where in (PERTURBATIONS, *COVARIATES):
        unchanged, gone = (kept[:, where] == conditions[:, where]).all(1), (kept[:, where] == 0).all(1)
        assert (unchanged ^ gone).all()


FEATURES = np.array([[3.0, 0.0], [0.0, 4.0], [3.0, 4.0]])
FEATURED = ConditionEncoder(3, (2, 4), features=FEATURES)


def test_components_have_a_one_hot_and_their_features():
    assert FEATURED.size == 12
    scaled = FEATURES / np.sqrt((9 + 16 + 25) / 3)  # norm 1 on average, like a one-hot
    for j, one_hot in enumerate(np.eye(3).tolist()):
        found = encode(one_hot, encoder=FEATURED)
        assert found[1:4].tolist() == one_hot
        np.testing.assert_allclose(found[4:6], scaled[j], rtol=1e-6)
        assert found[6:].tolist() == [0, 1, 0, 0, 1, 0]


def test_features_of_combinations_add_and_scale():
    control, a, c, both = (encode(d, encoder=FEATURED) for d in ([0, 0, 0], [1, 0, 0], [0, 0, 1], [1, 0, 1]))
    assert (control[1:6] == 0).all()
    torch.testing.assert_close(both - control, (a - control) + (c - control))
    torch.testing.assert_close(encode([0, 0, 0.25], encoder=FEATURED) - control, 0.25 * (c - control))


def test_features_are_dropped_with_the_one_hots():
    conditions = encode([1, 1, 0.5], encoder=FEATURED).repeat(300, 1)
    kept, _ = hidden(FEATURED, conditions, whole=0.1, part=0.5, generator=torch.Generator().manual_seed(0))
    perturbation, gone = kept[:, 1:6], (kept[:, 1:6] == 0).all(dim=1)
    assert 0 < gone.sum() < 300
    assert (perturbation[~gone] == conditions[0, 1:6]).all()
    assert (kept[:, 6:] != 0).any()


def test_without_features_nothing_changes():
    none = ConditionEncoder(3, (2, 4), features=np.zeros((3, 0)))
    assert none.size == ENCODER.size
    assert (encode([1, 0.5, 0], encoder=none) == encode([1, 0.5, 0])).all()


def test_features_of_other_components_are_an_error():
    with pytest.raises(ValueError, match="`features` with one row for each of 3 perturbation components, found 2"):
        ConditionEncoder(3, (), features=np.ones((2, 1)))
