"""The samples that are held: whatever their form, in the order in which they were read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset

from bnaudit.errors import InputError
from bnaudit.targets.samples import BadSample
from bnaudit.verbs.leakage_pool import read_pool
from bnaudit.verbs.samples import MapReader
from bnaudit.verbs.streams import StreamReader


def pairs(sizes: list[int]) -> list[list[Tensor]]:
    numbers = torch.arange(sum(sizes)).split(sizes)
    return [[part[:, None].float().expand(-1, 3), part % 2] for part in numbers]


@pytest.mark.parametrize("sizes", [[4], [4, 4, 4, 4], [4, 4, 4, 4, 3], [5, 1, 2, 7, 1, 1, 4]])
def test_batches_of_any_size_are_one(sizes: list[int]) -> None:
    pool = read_pool(StreamReader(pairs(sizes)), {}, lambda n: None)
    assert pool.samples == sum(sizes)
    assert pool.data[0][:, 0].tolist() == list(range(pool.samples))
    assert pool.labels is not None
    assert pool.labels.tolist() == [i % 2 for i in range(pool.samples)]
    assert pool.order.tolist() == list(range(pool.samples))
    chosen = pool.batch(np.array([2, 0, 1]))
    assert chosen.data[0][:, 0].tolist() == [2, 0, 1]
    assert chosen.data[1].tolist() == [0, 0, 1]


def test_dicts_and_lists_of_images_are_put_together() -> None:
    batches = [{"image": torch.full((4, 2), i), "label": torch.full((4,), i)} for i in range(3)]
    pool = read_pool(StreamReader(batches), {}, lambda n: None)
    assert pool.labels is not None
    assert pool.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert pool.batch(np.array([11, 0])).data["image"][:, 0].tolist() == [2, 0]
    images = [[torch.full((3, 2 + i, 2), float(k)) for i in range(4)] for k in range(3)]
    listed = read_pool(StreamReader([(one,) for one in images]), {}, lambda n: None)
    assert [image.shape[1] for image in listed.batch(np.array([3, 4])).data[0]] == [5, 2]


def test_what_cannot_be_one_batch_is_refused() -> None:
    ragged = [torch.zeros(4, 3, 8), torch.zeros(4, 3, 9)]
    with pytest.raises(InputError, match="samples of different batches cannot be put into one"):
        read_pool(StreamReader(ragged), {}, lambda n: None)
    with pytest.raises(InputError, match="the data gave no batch"):
        read_pool(StreamReader([]), {}, lambda n: None)


class Damaged(Dataset[object]):
    """Sample i is its number; every seventh cannot be read."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, index: int) -> object:
        if index % 7 == 3:
            return BadSample(f"sample {index}", "OSError: truncated")
        return torch.full((2,), float(index)), index % 3


def test_unreadable_samples_leave_the_others_in_the_files_order() -> None:
    reader = MapReader(Damaged(), 8, None, 5, skip_bad=True)
    pool = read_pool(reader, {"parity": lambda batch: batch[0][:, 0] % 2}, lambda n: None)
    assert reader.order.tolist() == pool.data[0][:, 0].tolist()
    in_order = pool.data[0][pool.order, 0].tolist()
    assert in_order == [i for i in range(40) if i % 7 != 3]
    assert pool.groups["parity"].tolist() == (pool.data[0][:, 0] % 2).tolist()
    assert pool.folders is None
