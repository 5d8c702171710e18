"""Subsets of batches that are held: the same samples, whatever a batch is made of."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from bnaudit.engine.batches import Batch, map_tensors
from bnaudit.engine.regroup import regrouped

SIZES = (4, 4, 3)
CHOSEN = (10, 0, 5, 6, 7, 2)


def numbers(size: int, start: int) -> Tensor:
    return torch.arange(start, start + size, dtype=torch.float32)


def batches(make: Any) -> list[Batch]:
    made, start = [], 0
    for index, size in enumerate(SIZES):
        made.append(Batch(index, make(size, start), torch.zeros(size, dtype=torch.long)))
        start += size
    return made


def first_values(data: Any) -> list[float]:
    """The numbers of the samples that are left, from the first input."""
    found: list[float] = []

    def look(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point() and tensor.dim():
            found.extend(tensor.flatten(1)[:, 0].tolist() if tensor.dim() > 1 else tensor.tolist())
        return tensor

    map_tensors(look, data)
    return found


STRUCTURES = {
    "tensor": lambda n, s: numbers(n, s)[:, None],
    "pair": lambda n, s: (numbers(n, s)[:, None], torch.arange(s, s + n)),
    "dict": lambda n, s: {"x": numbers(n, s)[:, None], "y": torch.arange(s, s + n), "task": "a"},
    "same for all": lambda n, s: (numbers(n, s)[:, None], {"scale": torch.tensor([2, 3])}),
    "images of a list": lambda n, s: ([torch.full((1, 2, 2), float(s + i)) for i in range(n)],),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_chosen_samples_are_kept_in_reading_order(structure: str) -> None:
    made = regrouped(batches(STRUCTURES[structure]), CHOSEN, size=4)
    values = [value for batch in made for value in first_values(batch.data)]
    if structure == "images of a list":
        values = [float(image[0, 0, 0]) for batch in made for image in batch.data[0]]
    assert values == sorted(CHOSEN)
    assert [batch.size for batch in made] == [2, 4]
    assert [batch.index for batch in made] == [0, 1]
    assert all(not batch.groups.any() for batch in made)


def test_inputs_of_different_lengths_stay_in_batches_of_their_own() -> None:
    made = regrouped(batches(lambda n, s: numbers(n, s)[:, None].expand(n, 2 + s)), CHOSEN, size=8)
    assert [tuple(batch.data.shape) for batch in made] == [(2, 2), (3, 6), (1, 10)]


def test_labels_stay_with_their_samples() -> None:
    for batch in regrouped(batches(STRUCTURES["pair"]), CHOSEN, size=4):
        inputs, labels = batch.data
        assert inputs[:, 0].tolist() == labels.tolist()
