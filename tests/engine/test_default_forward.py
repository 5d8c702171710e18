from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from bnaudit.engine.batches import batch_size, default_forward
from bnaudit.errors import InputError


class Echo(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


X = torch.ones(2, 3)
Y = torch.zeros(2)


@pytest.mark.parametrize(
    ("batch", "args", "kwargs"),
    [
        (X, (X,), {}),
        ((X, Y), (X,), {}),
        ([X], (X,), {}),
        (([X, X], [Y, Y]), ([X, X],), {}),
        ({"image": X, "label": Y}, (X,), {}),
        ({"pixels": X, "targets": Y, "y": Y}, (X,), {}),
        ({"ids": X, "mask": Y, "labels": Y}, (), {"ids": X, "mask": Y}),
    ],
)
def test_the_default_forward_gives_the_model_its_inputs(
    batch: Any, args: tuple[Any, ...], kwargs: dict[str, Tensor]
) -> None:
    given = default_forward(Echo(), batch)
    assert repr(given) == repr((args, kwargs))


@pytest.mark.parametrize("batch", [(), {"label": Y}, {}, 3, None])
def test_a_batch_of_no_known_form_asks_for_a_forward(batch: Any) -> None:
    with pytest.raises(InputError, match=r"--forward path/file\.py:fn"):
        default_forward(Echo(), batch)


def test_a_bare_list_of_images_is_a_batch_of_images() -> None:
    images = [torch.ones(3, 4, 5), torch.ones(3, 6, 7)]
    assert batch_size(images) == 2
    assert default_forward(Echo(), images) == ((images,), {})


def test_a_pair_of_equal_tensors_is_inputs_and_targets() -> None:
    pair = [torch.ones(7, 4, 5), torch.ones(7, 4, 5)]
    assert batch_size(pair) == 7
