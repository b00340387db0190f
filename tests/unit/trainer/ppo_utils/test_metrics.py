"""Means over samples, from numbers and from tensors that are read once."""

from __future__ import annotations

import torch

from openrlhf.trainer.ppo_utils import metrics as module
from openrlhf.trainer.ppo_utils.metrics import MeanMetrics


def test_tensors_and_numbers_add_up_and_are_divided_once(monkeypatch):
    monkeypatch.setattr(module, "all_gather_object", lambda value: [value, ({"a": 3.0, "b": 1.0}, {"a": 1, "b": 1})])
    metrics = MeanMetrics()
    metrics.add("a", [1, True])
    metrics.add_sums({"a": torch.tensor(2.5), "c": torch.tensor(1.0)}, 2)
    metrics.add_sum("a", torch.tensor(0.5), 1)
    # a: (1 + 1 + 2.5 + 0.5 + 3) / (1 + 1 + 2 + 1 + 1) = 8 / 6
    assert metrics.reduce() == {"a": 8 / 6, "b": 1.0, "c": 0.5}


def test_tensors_are_added_in_float64(monkeypatch):
    monkeypatch.setattr(module, "all_gather_object", lambda value: [value])
    metrics = MeanMetrics()
    for value in (2.0**25, 1.0):  # 2^25 + 1 is no float32
        metrics.add_sum("a", torch.tensor(value), 0.5)
    assert metrics.reduce() == {"a": 2.0**25 + 1}


def test_names_without_samples_are_left_out(monkeypatch):
    monkeypatch.setattr(module, "all_gather_object", lambda value: [value])
    metrics = MeanMetrics()
    metrics.add_sum("loss", torch.tensor(0.0), 0)
    assert metrics.reduce() == {}
