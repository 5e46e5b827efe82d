from __future__ import annotations

import joblib
import pytest
import torch

from perturbflow.predict._torch_state import spare_core


@pytest.fixture(autouse=True)
def four_threads(monkeypatch):
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 1), (4, 3), (5, 4), (64, 4)])
def test_one_core_is_left_to_others(cores, expected, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: cores)
    with spare_core():
        assert torch.get_num_threads() == expected
        with spare_core():
            assert torch.get_num_threads() == expected
        assert torch.get_num_threads() == expected
    assert torch.get_num_threads() == 4


def test_the_number_comes_back_after_an_error(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)

    @spare_core()
    def broken():
        assert torch.get_num_threads() == 1
        raise RuntimeError

    for _ in range(2):
        with pytest.raises(RuntimeError):
            broken()
        assert torch.get_num_threads() == 4


def test_a_number_that_was_chosen_is_kept(monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    with spare_core():
        assert torch.get_num_threads() == 4
