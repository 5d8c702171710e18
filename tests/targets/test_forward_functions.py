from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from bnaudit.errors import InputError
from bnaudit.targets.forward import build_compare, build_forward

Write = Callable[..., Path]

FILE = """
def second(model, batch): return model(batch[1])
def of_batch(batch): return batch
def gap(a, b): return (a - b).abs().mean()
def gaps(a, b): return {'mean': (a - b).mean(), 'n': 3}
def words(a, b): return 'close'
"""


class Echo(nn.Module):
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return args, kwargs


X = torch.ones(2, 3)
Y = torch.zeros(2)


def test_a_files_function_is_the_forward(write: Write) -> None:
    forward = build_forward(f"{write('fwd.py', FILE)}:second")
    assert forward(Echo(), (X, Y)) == ((Y,), {})


def test_a_files_function_compares(write: Write) -> None:
    file = write("fwd.py", FILE)
    assert build_compare(f"{file}:gap")(X, X + 1) == 1.0
    assert build_compare(f"{file}:gaps")(X, X) == {"mean": 0.0, "n": 3.0}


@pytest.mark.parametrize(
    ("build", "name", "words"),
    [
        (build_forward, "of_batch", ["--forward", "fn(model, batch)", "of_batch(batch)"]),
        (build_forward, "secnd", ["--forward", "has no secnd", "did you mean second"]),
        (build_compare, "of_batch", ["--compare", "fn(outputs_a, outputs_b)"]),
    ],
)
def test_a_wrong_function_is_named(
    write: Write, build: Callable[[str], Any], name: str, words: list[str]
) -> None:
    with pytest.raises(InputError) as caught:
        build(f"{write('fwd.py', FILE)}:{name}")
    for word in words:
        assert word in str(caught.value)


def test_a_comparison_that_gives_no_number_is_named(write: Write) -> None:
    compare = build_compare(f"{write('fwd.py', FILE)}:words")
    with pytest.raises(InputError, match=r"--compare .*:words returned a str"):
        compare(X, X)
