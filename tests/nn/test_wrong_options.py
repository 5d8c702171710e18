"""Options that a conversion does not have, or cannot take, are told in words of `convert`."""

from __future__ import annotations

from typing import Any

import pytest
from torch import nn

from bnaudit import nn as bnn


@pytest.mark.parametrize(
    ("kind", "options", "said"),
    [
        ("ghost", {}, r'convert\(model, "ghost"\) needs ghost_size=…'),
        ("batch-group", {}, "needs groups=…"),
        ("example-weighing", {}, "needs alpha=…"),
        ("ghost", {"ghost_size": 4, "alpha": 0.1}, "no option alpha; it takes ghost_size"),
        ("frozen", {"epoch": 3}, "no option epoch; it takes no options"),
    ],
)
def test_missing_and_unknown_options_are_named(
    kind: Any, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(TypeError, match=said):
        bnn.convert(nn.Sequential(nn.BatchNorm2d(4)), kind, **options)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ghost", {"ghost_size": 2.5}),
        ("ghost", {"ghost_size": "4"}),
        ("example-weighing", {"alpha": "a"}),
        ("example-weighing", {"alpha": float("nan")}),
    ],
)
def test_values_of_another_kind_are_refused_before_the_first_forward(
    kind: Any, options: dict[str, Any]
) -> None:
    model = nn.Sequential(nn.BatchNorm2d(4))
    layer = model[0]
    with pytest.raises(ValueError, match="got"):
        bnn.convert(model, kind, **options)
    assert model[0] is layer


@pytest.mark.parametrize("epoch", [2.5, "a", -1])
def test_epochs_are_whole_numbers(epoch: Any) -> None:
    with pytest.raises(ValueError, match="whole number from 0"):
        bnn.FreezeAfter(nn.Sequential(nn.BatchNorm2d(4)), epoch=epoch)
