from __future__ import annotations

from typing import Any

import pytest
import torch

from perturbflow.dynamics import FieldConfig, TargetField
from perturbflow.dynamics._elimination import CompactField, on_support

FIELDS: dict[str, dict[str, Any]] = {
    "network": {},
    "deep": {"hidden": (4, 3), "activation": "tanh"},
    "linear": {"structure": "linear", "hidden": ()},
    "skip": {"skip": True},
    "second_order": {"order": 2, "decay": False, "production": "free", "self_regulation": True},
}
EVERYONE = torch.arange(5)


def whole_field(name: str, **options) -> TargetField:
    config = FieldConfig(5, (0, 1, 3, 4), **(FIELDS[name] | options))
    field = TargetField(config, range(5), seed=3)
    with torch.no_grad():
        field.centre.normal_(generator=torch.Generator().manual_seed(1))
        field.raw_decay.normal_(generator=torch.Generator().manual_seed(2))
    return field


def states(field, n=7):
    return torch.randn(n, field.config.order * 5, generator=torch.Generator().manual_seed(0))


def shuffled(field, *, n=None):
    """Candidates of every target, in an order of its own."""
    generator = torch.Generator().manual_seed(4)
    order = torch.stack([torch.randperm(field.config.n_inputs, generator=generator) for _ in range(5)])
    return order[:, :n]


@pytest.mark.parametrize("name", FIELDS)
def test_with_all_candidates_it_is_the_whole_field(name):
    field = whole_field(name)
    candidates = shuffled(field)
    compact = CompactField(field, EVERYONE, candidates, field.allowed.gather(1, candidates))
    torch.testing.assert_close(compact(states(field)), field(states(field)))


@pytest.mark.parametrize("name", FIELDS)
def test_with_some_candidates_others_do_not_count(name):
    field = whole_field(name)
    candidates = shuffled(field, n=2)
    compact = CompactField(field, EVERYONE, candidates, field.allowed.gather(1, candidates))
    field.allowed.mul_(torch.zeros_like(field.allowed).scatter_(1, candidates, 1.0))
    torch.testing.assert_close(compact(states(field)), field(states(field)))
    # What is not allowed does not count either.
    compact.allowed[:, 0] = 0
    field.allowed.scatter_(1, candidates[:, :1], 0.0)
    torch.testing.assert_close(compact(states(field)), field(states(field)))


@pytest.mark.parametrize("name", FIELDS)
def test_expanded_again_it_is_a_whole_field(name):
    field = whole_field(name)
    candidates = shuffled(field, n=2)
    compact = CompactField(field, EVERYONE, candidates, field.allowed.gather(1, candidates))
    compact.allowed[2, 0] = 0
    again = compact.expand()
    assert type(again) is TargetField
    torch.testing.assert_close(again(states(field)), compact(states(field)))
    assert again.allowed.sum(dim=1).tolist() == compact.allowed.sum(dim=1).tolist()
    first = again.weights()[0]
    assert (first.abs().sum(dim=1) > 0).sum().item() == compact.allowed.sum().item()
    # A target without inputs is a constant and its decay.
    compact.allowed[:] = 0
    assert not compact.expand().allowed.any()


@pytest.mark.parametrize("name", FIELDS)
def test_selected_mechanisms_are_the_same_and_independent(name):
    field = whole_field(name)
    candidates = shuffled(field, n=3)
    compact = CompactField(field, EVERYONE, candidates, field.allowed.gather(1, candidates))
    heads = torch.tensor([4, 1, 1])
    chosen = compact.select(heads)
    x = states(field)
    before = compact.highest_rates(x)
    torch.testing.assert_close(chosen.highest_rates(x), before[:, heads])
    assert chosen.targets.tolist() == [4, 1, 1]
    assert dict(chosen.named_parameters()).keys() == dict(compact.named_parameters()).keys()
    chosen.allowed[0] = 0
    with torch.no_grad():
        for parameter in chosen.parameters():
            parameter.add_(1.0)
    assert torch.equal(compact.highest_rates(x), before)
    other = chosen.select(torch.tensor([1, 2])).highest_rates(x)
    torch.testing.assert_close(other[:, 0], other[:, 1])


def test_gradients_are_those_of_the_whole_field():
    field = whole_field("network")
    candidates = shuffled(field)
    compact = CompactField(field, EVERYONE, candidates, field.allowed.gather(1, candidates))
    for one in (field, compact):
        (one(states(field)) ** 2).sum().backward()
    whole = field.matrices[0].grad
    own = compact.matrices[0].grad
    assert whole is not None
    assert own is not None
    torch.testing.assert_close(own, whole.gather(2, candidates[:, None].expand(-1, whole.shape[1], -1)))


@pytest.mark.parametrize("n_regulators", [1, 4])
def test_on_its_support_a_field_is_the_same_and_keeps_what_is_learned(n_regulators):
    field = whole_field("network")
    field.allowed.mul_(torch.zeros_like(field.allowed).scatter_(1, shuffled(field, n=n_regulators), 1.0))
    support = field.allowed.clone()
    with on_support(field) as small:
        assert isinstance(small, CompactField) == (n_regulators == 1)
        torch.testing.assert_close(small(states(field)), field(states(field)))
        with torch.no_grad():
            for parameter in small.parameters():
                parameter.add_(0.1)
        changed = small(states(field))
    torch.testing.assert_close(field(states(field)), changed)
    torch.testing.assert_close(field.allowed, support)


def test_an_interrupted_fit_on_the_support_keeps_what_was_learned():
    field = whole_field("network")
    field.allowed.mul_(torch.zeros_like(field.allowed).scatter_(1, shuffled(field, n=1), 1.0))
    before = field(states(field))

    def interrupted() -> None:
        with on_support(field) as small:
            small.raw_decay.data.add_(1.0)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not torch.allclose(field(states(field)), before)
