"""The sample models measured on digits drawn anew each time, and made worse by known amounts."""

from __future__ import annotations

import copy
import math
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.config import GateSettings
from bnaudit.findings.changes import changes_between
from bnaudit.findings.gate.judge import judge_gate
from bnaudit.results import Audit, Changes, Difference, Gate, Side

SAMPLES = Path(__file__).resolve().parents[2] / "sample_models"
NETWORK = ("total_esm", "accuracy", "disagreement")
LAYERS = ("bn", *(f"blocks.{block}.bn{i}" for block in range(4) for i in (1, 2)))


@cache
def population() -> tuple[Tensor, Tensor]:
    """The 897 digits that no model was trained on, (N, 1, 8, 8), and their classes."""
    with np.load(SAMPLES / "digits.npz") as file:
        x = np.concatenate([file["x_test"], file["x_verify"]]).reshape(-1, 1, 8, 8)
        y = np.concatenate([file["y_test"], file["y_verify"]])
    return torch.from_numpy(x / 255.0).float(), torch.from_numpy(y).long()


def sample_model(name: str) -> nn.Module:
    sys.path.insert(0, str(SAMPLES))
    try:
        import digits
    finally:
        sys.path.remove(str(SAMPLES))
    model: nn.Module = digits.model()
    model.load_state_dict(torch.load(SAMPLES / f"{name}.pt", weights_only=True))
    return model.eval()


def measured(model: nn.Module, samples: int, seed: int) -> Audit:
    """On images drawn with replacement: another seed gives samples that are really independent."""
    x, y = population()
    drawn = torch.from_numpy(np.random.default_rng(seed).integers(0, len(x), samples))
    return bnaudit.measure(model, TensorDataset(x[drawn], y[drawn]), seed=seed, attribute="none")


def exactly(model: nn.Module) -> Audit:
    """On the population itself: what the draws are from."""
    return bnaudit.measure(model, TensorDataset(*population()), attribute="none")


def between(before: Audit, after: Audit) -> Changes:
    return changes_between(before, after, before_source="baseline", after_source="today")


def gated(before: Audit, after: Audit, settings: GateSettings) -> Gate:
    changes = between(before, after)
    return judge_gate(after, settings, subject=Side.of(after, "today"), changes=changes)


def caught(gate: Gate, figure: str) -> bool:
    """Whether the gate says that the figure got worse; a layer's name stands for its shift."""
    failed = [c for c in gate.with_outcome("fail") if c.kind == "regression"]
    if figure in NETWORK:
        return any(check.name == figure for check in failed)
    return any(check.name == "layer_esm" and figure in check.layers for check in failed)


def difference(changes: Changes, figure: str) -> Difference:
    """That of the network, or of a layer by its name."""
    if figure in NETWORK:
        return next(x.change for x in changes.network if x.figure == figure)
    found = next(x.output_shift for x in changes.layers if x.name == figure)
    assert found is not None
    return found


def noise(changes: Changes, figure: str) -> float:
    """How far the figure would have to get worse for the simultaneous limit to leave 0."""
    found = difference(changes, figure)
    assert found.surely_low is not None
    assert found.surely_high is not None
    if figure == "accuracy":
        return found.surely_high - found.difference
    return found.difference - found.surely_low


def with_variance(model: nn.Module, layer: str, factor: float) -> nn.Module:
    """The model with one layer's running_var wrong by a factor."""
    other = copy.deepcopy(model)
    other.get_submodule(layer).get_buffer("running_var").mul_(factor)
    return other


def broken(figure: str, strength: float) -> nn.Module:
    """The healthy model with wrong statistics.

    A layer gets a running_mean that is off by so many deviations in every channel. For a figure of
    the network, the statistics of all layers go towards those of `lagging_ema`, which has the same
    weights; all the way at 1.
    """
    model = sample_model("healthy")
    if figure not in NETWORK:
        layer = model.get_submodule(figure)
        layer.get_buffer("running_mean").add_(strength * layer.get_buffer("running_var").sqrt())
        return model
    for own, other in zip(model.buffers(), sample_model("lagging_ema").buffers(), strict=True):
        if own.is_floating_point():
            own.lerp_(other, strength)
    return model


def worse_by(figure: str, amount: float) -> nn.Module:
    """Broken so that the figure of the population is worse by `amount`, by bisection."""
    start = _badness(exactly(sample_model("healthy")), figure)
    low, high = 0.0, 1.0
    for _ in range(12):
        middle = (low + high) / 2
        excess = _badness(exactly(broken(figure, middle)), figure) - start - amount
        low, high = (low, middle) if excess > 0 else (middle, high)
    return broken(figure, high)


def _badness(audit: Audit, figure: str) -> float:
    """The figure, so that more is worse."""
    network = audit.network
    if figure not in NETWORK:
        shift = audit.layer(figure).output_shift
        assert shift is not None
        return shift.value
    if figure == "total_esm":
        shifts = [layer.output_shift for layer in audit.audited]
        return math.sqrt(sum(s.value**2 for s in shifts if s is not None) / len(shifts))
    assert network is not None
    assert network.deployed is not None
    assert network.agreement is not None
    return -network.deployed.accuracy if figure == "accuracy" else 1 - network.agreement
