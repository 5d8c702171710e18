"""Independent of bnaudit: the figures of every BatchNorm layer of any model, in float64.

What the layers see is recorded with plain hooks, in eval mode, whatever the model's input is.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pytest
import torch
from oracles import Forward, naive_moments
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import bnaudit

ROUNDING = 1e-6
"""The largest ESM that float32 leaves in a layer whose statistics are those of its inputs."""

SHIFTED = 0.01
"""A model whose layers are all off by less shows nothing."""


@dataclass(frozen=True)
class Shift:
    """By the definition, of one layer: its ESM, the two parts of it, and weighted by γ²."""

    total: float
    mean_part: float
    scale_part: float
    output: float


def shift_of(layer: Any, mean: np.ndarray, var: np.ndarray) -> Shift:
    """Of a layer whose inputs have the moments `mean`, `var`, (C,)."""
    estimated, spread = (t.double().numpy() for t in (layer.running_mean, layer.running_var))
    deployed, expected = np.sqrt(spread + layer.eps), np.sqrt(var + layer.eps)
    of_mean = ((mean - estimated) / deployed) ** 2
    of_scale = (np.sqrt(var) / deployed - np.sqrt(var) / expected) ** 2
    gamma2 = layer.weight.detach().double().numpy() ** 2
    d2 = of_mean + of_scale
    return Shift(
        float(np.sqrt(d2.mean())),
        float(np.sqrt(of_mean.mean())),
        float(np.sqrt(of_scale.mean())),
        float(np.sqrt((gamma2 * d2).sum() / gamma2.sum())),
    )


def assert_measured(
    audit: bnaudit.Audit,
    state: Mapping[str, Tensor],
    model: nn.Module,
    batches: Sequence[Any],
    forward: Forward,
) -> None:
    """Every layer is in `audit` with the figures of what `model` with `state` shows it."""
    model = _with_state(model, state)
    layers = _batchnorms(model)
    assert [layer.name for layer in audit.audited] == list(layers)
    assert audit.channels is not None
    for name, (mean, var) in naive_moments(model, batches, forward, list(layers)).items():
        found, channels = audit.layer(name), audit.channels.layer(name)
        assert (np.abs(channels["expected_mean"] - mean) <= 1e-5 * np.sqrt(var)).all(), name
        np.testing.assert_allclose(channels["expected_var"], var, rtol=1e-5, err_msg=name)
        assert found.total_shift is not None
        assert found.output_shift is not None
        measured = {
            "total": found.total_shift.plain,
            "mean_part": found.mean_part,
            "scale_part": found.scale_part,
            "output": found.output_shift.plain,
        }
        expected = shift_of(layers[name], mean, var)
        assert measured == pytest.approx(asdict(expected), rel=1e-4), name
        assert expected.total > SHIFTED, name


def assert_only_statistics_became_exact(
    before: Mapping[str, Tensor], model: nn.Module, batches: Sequence[Any], forward: Forward
) -> None:
    """The layers' statistics are those of their inputs to rounding; the rest is as before."""
    state = model.state_dict()
    changed = {key for key, value in state.items() if not torch.equal(value, before[key])}
    model = _with_state(model, state)
    layers = _batchnorms(model)
    assert changed == {f"{name}.running_{of}" for name in layers for of in ("mean", "var")}
    for name, (mean, var) in naive_moments(model, batches, forward, list(layers)).items():
        assert shift_of(layers[name], mean, var).total <= ROUNDING, name


def trained(model: nn.Module, batches: Iterable[Any], forward: Forward) -> nn.Module:
    """After a large step of SGD for each batch, behind which the averages lag; in eval mode."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for batch in batches:
        optimiser.zero_grad()
        (forward(model, batch) - 0.5).square().mean().backward()
        optimiser.step()
    return model.eval()


def _with_state(model: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    model = copy.deepcopy(model)
    model.load_state_dict(state)
    return model


def _batchnorms(model: nn.Module) -> dict[str, Any]:
    """PyTorch's own BatchNorm modules by name, in the order of registration."""
    return {name: m for name, m in model.named_modules() if isinstance(m, _BatchNorm)}
