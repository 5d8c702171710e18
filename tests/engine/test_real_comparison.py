"""A real network against itself, on real images: what did not change, and what did."""

from __future__ import annotations

from functools import cache

import pytest
from cifar_resnet import DATA, read_test_images, trained
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import bnaudit
from bnaudit.config import GateSettings, Tolerance
from bnaudit.findings.gate.judge import judge_gate
from bnaudit.results import Audit, Changes, Check, Side

pytestmark = [
    pytest.mark.shared,
    pytest.mark.slow,
    pytest.mark.skipif(not DATA.is_dir(), reason="no folder ../shared/data"),
]

SAMPLES = 300
NOISE_ALONE = GateSettings(
    tolerance=Tolerance(layer_esm=0, total_esm=0, disagreement=0, accuracy=0, relative=0)
)


@cache
def photographs() -> tuple[Tensor, Tensor]:
    return read_test_images()


def measured(model: nn.Module, seed: int) -> Audit:
    data = TensorDataset(*photographs())
    return bnaudit.measure(
        model, data, samples=SAMPLES, seed=seed, batch_size=100, attribute="none"
    )


@cache
def baseline() -> Audit:
    return measured(trained(3), seed=0)


def failed(audit: Audit, changes: Changes, settings: GateSettings) -> list[Check]:
    gate = judge_gate(audit, settings, subject=Side.of(audit, "today"), changes=changes)
    return [check for check in gate.with_outcome("fail") if check.kind == "regression"]


def test_other_images_are_no_regression_even_without_tolerance() -> None:
    for seed in range(1, 4):
        audit = measured(trained(3), seed)
        changes = bnaudit.compare(baseline(), audit)
        assert not changes.paired
        assert failed(audit, changes, NOISE_ALONE) == []


@cache
def recalibrated() -> Audit:
    return measured(healthy(), seed=0)


def healthy() -> nn.Module:
    """The network with statistics of these images: it was not trained on JPEGs."""
    model = trained(3)
    model.load_state_dict(statistics())
    return model


@cache
def statistics() -> dict[str, Tensor]:
    model = trained(3)
    data = TensorDataset(*photographs())
    bnaudit.recalibrate(model, data, samples=1000, seed=99, batch_size=100, force=True)
    return model.state_dict()


@pytest.mark.parametrize("layer", ["bn1", "layer2.0.bn2", "layer3.2.bn2"])
@pytest.mark.parametrize("factor", [1.5, 1 / 1.5])
def test_a_variance_that_is_wrong_is_caught_in_its_layer(layer: str, factor: float) -> None:
    model = healthy()
    model.get_submodule(layer).get_buffer("running_var").mul_(factor)
    for seed in (0, 1):
        audit = measured(model, seed)
        changes = bnaudit.compare(recalibrated(), audit)
        assert changes.paired == (seed == 0)
        (check,) = (x for x in failed(audit, changes, GateSettings()) if x.name == "layer_esm")
        assert layer in check.layers


def test_the_same_images_show_what_other_images_hide() -> None:
    model = trained(3)
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.mul_(1.02)
    paired, apart = (bnaudit.compare(baseline(), measured(model, seed)) for seed in (0, 1))
    widths = [
        [x.output_shift.high - x.output_shift.low for x in c.layers]  # type: ignore[union-attr,operator]
        for c in (paired, apart)
    ]
    assert all(narrow < wide for narrow, wide in zip(*widths, strict=True))
    assert sum(widths[0]) < sum(widths[1]) / 2
